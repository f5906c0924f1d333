"""The runner: each text embedded once for all tasks and views, means by type, and what is told on the way."""

import math

import numpy as np
import pytest

from embed.errors import NumericError
from embed.evaluation import runner
from embed.evaluation.embeddings import Embeddings
from embed.evaluation.paired_tasks import Sts
from embed.evaluation.ranked_tasks import Reranking, Retrieval
from embed.evaluation.suites import Suite
from embed.evaluation.views import View


def retrieval(name: str = "r", prompt: str = "query") -> Retrieval:
    return Retrieval(
        name, prompt, "ndcg_at_10", (), ["q1", "q2", "q3"], ["red", "green", "blue"],
        ["d1", "d2"], ["a fox", "a crow"], ["Fox", ""], {"q1": {"d1": 1.0}, "q2": {}, "q3": {"d2": 2.0}},
    )  # fmt: skip


def sts(name: str = "s", prompt: str = "sentence similarity") -> Sts:
    return Sts(name, prompt, "cosine_spearman", (), ["red", "blue", "x"], ["green", "y", "z"], [1.0, 3.0, 2.0])


def suite(*tasks, **groups) -> Suite:
    return Suite("made up", list(tasks), {t.name: groups.get(t.name, t.type) for t in tasks}, "digest")


def run(model, *tasks, views=None, search=None, **options):
    views = views or [View(12), View(4)]
    return runner.run(suite(*tasks), Embeddings(model, lambda prompt: prompt), views, search, **options)


def test_every_task_is_scored_in_every_view(make_model, search):
    views = [View(12), View(4), View(4, "int8"), View(12, "binary-rescored")]
    found = run(make_model(), retrieval(), sts(), views=views, search=search)
    assert list(found.scores) == list(found.samples) == ["r", "s"]
    for task, main in (("r", "ndcg_at_10"), ("s", "cosine_spearman")):
        assert list(found.scores[task]) == list(found.samples[task]) == ["12", "4", "4 int8", "12 binary-rescored"]
        assert all(main in scores for scores in found.scores[task].values())
        assert {len(sample) for sample in found.samples[task].values()} == {2 if task == "r" else 3}


def test_each_text_is_embedded_once_for_all_tasks_and_views(make_model, search):
    model = make_model()
    # The second retrieval shares everything, the sts task two of its texts.
    run(model, retrieval(), retrieval("again"), sts(prompt="query"), search=search)
    asked = sorted((t, prompt) for texts, prompt, _ in model.calls for t in texts)
    assert asked == sorted(
        [(t, "query") for t in ("red", "blue", "green", "x", "y", "z")] + [(t, "document") for t in ("a fox", "a crow")]
    )


def test_progress_is_told_of_every_text(make_model, search):
    told = []
    run(make_model(), retrieval(), search=search, progress=told.append)
    assert sum(told) == 4


def test_each_task_is_told_with_its_main_score(make_model, search):
    said = []
    found = run(make_model(), retrieval(), sts(), search=search, say=said.append)
    assert said == [
        f"r: ndcg_at_10 {100 * found.scores['r']['12']['ndcg_at_10']:.2f} at 12",
        f"s: cosine_spearman {100 * found.scores['s']['12']['cosine_spearman']:.2f} at 12",
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("location", ["red", "a crow", "z"])
def test_embeddings_that_are_not_finite_cannot_be_scored(make_model, search, bad, location):
    model = make_model()

    def spoilt(items, **options):
        vectors = model(items, **options)
        vectors[[item.text == location for item in items], 5] = bad
        return vectors

    with pytest.raises(NumericError, match="1 of 8 embeddings are not finite") as caught:
        run(spoilt, retrieval(), sts(prompt="query"), search=search)
    assert caught.value.exit_code == 70


# means


SCORES = {
    "one": {"12": {"ndcg_at_10": 0.2, "mrr_at_10": 0.9}, "4": {"ndcg_at_10": 0.1}},
    "two": {"12": {"ndcg_at_10": 0.6}, "4": {"ndcg_at_10": 0.3}},
    "three": {"12": {"cosine_spearman": 0.8}, "4": {"cosine_spearman": 0.5}},
}


def test_types_weigh_alike_in_the_mean_of_the_types():
    found = runner.means(SCORES, suite(retrieval("one"), retrieval("two"), sts("three")))
    assert list(found) == ["12", "4"]
    assert found["12"] == pytest.approx(
        {"retrieval": 0.4, "sts": 0.8, "mean of the types": 0.6, "mean of the tasks": 1.6 / 3}
    )
    assert found["4"] == pytest.approx(
        {"retrieval": 0.2, "sts": 0.5, "mean of the types": 0.35, "mean of the tasks": 0.3}
    )


def test_groups_are_counted_apart():
    found = runner.means(SCORES, suite(retrieval("one"), retrieval("two"), sts("three"), two="code search"))["12"]
    assert found == pytest.approx(
        {"retrieval": 0.2, "code search": 0.6, "sts": 0.8, "mean of the types": 1.6 / 3, "mean of the tasks": 1.6 / 3}
    )


def test_a_score_that_is_not_defined_makes_its_means_so():
    scores = {**SCORES, "three": {"12": {"cosine_spearman": math.nan}, "4": {"cosine_spearman": 0.5}}}
    found = runner.means(scores, suite(retrieval("one"), retrieval("two"), sts("three")))
    assert found["12"]["retrieval"] == pytest.approx(0.4)
    assert all(math.isnan(found["12"][k]) for k in ("sts", "mean of the types", "mean of the tasks"))
    assert found["4"]["mean of the types"] == pytest.approx(0.35)


def test_a_part_of_the_tasks_has_means_too():
    found = runner.means({"two": SCORES["two"]}, suite(retrieval("one"), retrieval("two"), sts("three")))
    assert found["12"] == {"retrieval": 0.6, "mean of the types": 0.6, "mean of the tasks": 0.6}
    assert runner.means({}, suite(retrieval("one"))) == {}


def test_queries_left_out_are_counted():
    assert runner.unjudged(retrieval()) == 1
    assert runner.unjudged(sts()) == 0
    assert runner.unjudged(Reranking("k", "query", "map_at_1000", (), ["q"], [["a", "b"]], [[True, False]])) == 0
