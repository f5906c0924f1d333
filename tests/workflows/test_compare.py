"""A report of results that are there: merged, written as a new folder, shown. The content is tested with `outputs`."""

import dataclasses

import numpy as np
import pytest

from embed import documents
from embed.errors import StorageError, UsageError
from embed.evaluation import outputs, plots
from embed.evaluation.bootstrap import Sample
from embed.evaluation.runner import Results
from embed.evaluation.suites import Suite
from embed.evaluation.views import View
from embed.workflows import compare

ENVIRONMENT = {
    "embed": "1", "python": "3", "platform": "x", "packages": {}, "devices": {"kind": "cpu", "count": 1, "processes": 1},
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Foxes:
    """As much of a task as results say of it."""

    name: str = "foxes"
    type: str = "query"
    main: str = "ndcg_at_10"
    languages: tuple = ()


@pytest.fixture
def collected():
    """collected(model, score) -> what one evaluation of one model on one task has collected."""

    def make(model: str, score: float) -> outputs.Collected:
        found = outputs.Collected(Suite("made up", [Foxes()], {"foxes": "search"}, "digest"), ENVIRONMENT, ["embed"])
        scores = {"foxes": {"4": {"ndcg_at_10": score}}}
        sample = {"foxes": {"4": Sample("mean", np.full(3, score))}}
        found.add(model, {"model": f"runs/{model}", "prompts": {}}, [View(4)], Results(scores, sample))
        return found

    return make


@pytest.fixture
def written(collected, tmp_path, monkeypatch):
    """written(model, score) -> the folder with its results."""
    monkeypatch.setattr(plots, "available", lambda: False)

    def write(model: str, score: float):
        found = collected(model, score)
        (tmp_path / model).mkdir()
        outputs.write(found.results(), found.samples, tmp_path / model)
        return str(tmp_path / model)

    return write


def test_results_become_one_report_with_differences(written, tmp_path, capsys):
    compare.run([written("a", 0.5), written("b", 0.75)], tmp_path / "both", against="a")
    found = documents.read_json(tmp_path / "both" / "results.json")
    assert list(found["models"]) == ["a", "b"]
    (row,) = found["differences"]["rows"]
    assert found["differences"]["against"] == "a" and (row["model"], row["difference"]) == ("b", 0.25)
    told = capsys.readouterr()
    assert "50.00" in told.out and "75.00" in told.out
    assert told.out.rstrip().endswith(f"wrote {tmp_path}/both/: report.html, results.json, results.md, samples.npz")
    assert {p.name for p in (tmp_path / "both").iterdir()} == {
        "report.html",
        "results.json",
        "results.md",
        "samples.npz",
    }


def test_names_of_models_are_shown_as_they_are_and_do_not_move_the_cursor(collected, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plots, "available", lambda: False)
    found = collected("\x1b[31ma*b", 0.5)
    compare.write(found.results(), found.samples, tmp_path / "out")
    assert "| \\x1b[31ma*b " in capsys.readouterr().out  # results.md escapes the asterisk too


@pytest.mark.parametrize("available", [True, False])
def test_missing_plots_are_told_with_what_to_install(collected, tmp_path, monkeypatch, capsys, available):
    monkeypatch.setattr(plots, "available", lambda: available)
    monkeypatch.setattr(plots, "write_all", lambda results, folder: [])
    found = collected("a", 0.5)
    compare.write(found.results(), found.samples, tmp_path / "out")
    told = capsys.readouterr().err
    assert told == ("" if available else "no plots: matplotlib is not installed; run: pip install 'embed[plots]'\n")


def test_an_output_that_is_there_and_an_unknown_model_are_refused(written, tmp_path):
    one = written("a", 0.5)
    with pytest.raises(UsageError, match="--against=b"):
        compare.run([one], tmp_path / "out", against="b")
    assert not (tmp_path / "out").exists()
    with pytest.raises(StorageError, match="a: already exists; choose another output"):
        compare.run([one], one)
