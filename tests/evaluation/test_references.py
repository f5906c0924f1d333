"""Published scores: shares of one by the names that MTEB has for tasks and benchmarks, each with its source."""

import pytest

from embed.evaluation import references

PUBLISHED = {
    "sources": {"One": "arXiv:1", "Two": "arXiv:2"},
    "tasks": {"STS": {"One": 88.16, "Two": 50}},
    "benchmarks": {"MTEB": {"One": {"task": 68.32, "type": 59.5}}},
}


@pytest.fixture
def made_up(monkeypatch):
    monkeypatch.setattr(references, "load", lambda: PUBLISHED)


def test_percents_become_shares_of_one(made_up):
    assert references.of_task("STS") == pytest.approx({"One": 0.8816, "Two": 0.5}, rel=1e-12)
    found = references.of_benchmark("MTEB")
    assert list(found) == ["One"] and found["One"] == pytest.approx({"task": 0.6832, "type": 0.595}, rel=1e-12)
    assert PUBLISHED["tasks"]["STS"]["Two"] == 50, "what was read is left as it is"


def test_nothing_is_known_of_other_names(made_up):
    assert references.of_task("sts") == references.of_task(None) == references.of_benchmark("other") == {}


def test_the_source_of_a_model_is_told(made_up):
    assert references.source("Two") == "arXiv:2"
    with pytest.raises(KeyError):
        references.source("Three")


def test_the_file_holds_percents_of_models_whose_source_it_names():
    found = references.load()
    assert found is references.load(), "it is read once"
    for models in found["tasks"].values():
        assert models.keys() <= found["sources"].keys()
        assert all(1 < value < 100 for value in models.values()), "in percent"
    for models in found["benchmarks"].values():
        assert models.keys() <= found["sources"].keys()
        assert all(means.keys() <= {"task", "type"} for means in models.values())
        assert all(1 < value < 100 for means in models.values() for value in means.values())
    assert references.of_task("STSBenchmark")["EmbeddingGemma"] == pytest.approx(0.8816)
    assert references.of_benchmark("MTEB(Multilingual, v2)")["Gemini Embedding"]["task"] == pytest.approx(0.6832)
