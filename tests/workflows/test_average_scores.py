"""Averages scored without being written: what is averaged, what is kept of each score, and the files that tell of them."""

import pathlib
import types

import numpy as np
import pytest

from embed import documents, hosts
from embed.averaging import soup
from embed.averaging.search import Trial
from embed.evaluation import plots
from embed.inference import model as inference
from embed.text import PROMPTS
from embed.workflows import average_scores
from embed.workflows.average_scores import Scorer

FOLDERS = [pathlib.Path("one"), pathlib.Path("two")]
# Angles of the texts, in degrees, by "model": with `one` the pairs are ordered as the scores say, with `two` the other way.
ANGLES = {
    "one": {"a": 0, "b": 10, "c": 0, "d": 40, "e": 0, "f": 80},
    "two": {"a": 0, "b": 80, "c": 0, "d": 40, "e": 0, "f": 10},
}


@pytest.fixture
def suite(tmp_path) -> pathlib.Path:
    """A suite of two tasks of one type, the second of them without the pair in the middle."""
    for name, rows in (("three", "a\tb\t5\nc\td\t3\ne\tf\t1\n"), ("two", "a\tb\t5\ne\tf\t1\n")):
        (tmp_path / f"{name}.tsv").write_text(f"sentence1\tsentence2\tscore\n{rows}")
    tasks = [{"name": name, "type": "sts", "path": f"{name}.tsv"} for name in ("three", "two")]
    files = tmp_path / "suite.json"
    files.write_bytes(documents.json_bytes({"name": "small", "tasks": tasks}))
    return files


@pytest.fixture
def averaged(monkeypatch):
    """The (folders, weights) that were averaged. The average of angles is what the model embeds with."""
    seen = []

    def average(folders, weights):
        seen.append((folders, weights))
        return {text: sum(w * ANGLES[f.name][text] for f, w in zip(folders, weights)) for text in "abcdef"}

    def with_params(angles):
        def encode(items, *, prompt, progress=lambda n: None, **options):
            found = np.radians([angles[getattr(item, "text", item)] for item in items])
            return np.stack([np.cos(found), np.sin(found)], 1).astype(np.float32)

        return types.SimpleNamespace(encode=encode, patches=None)

    def open_model(path):
        assert path == pathlib.Path("described")
        return types.SimpleNamespace(embedding_dim=2, prompts=dict(PROMPTS), with_params=with_params)

    monkeypatch.setattr(soup, "average", average)
    monkeypatch.setattr(inference, "open_model", open_model)
    return seen


def scorer(suite, tasks=None, method="greedy") -> Scorer:
    return Scorer(FOLDERS, pathlib.Path("described"), method, suite, tasks)


def test_an_average_has_the_mean_of_the_suite_and_takes_no_folder_without_weight(suite, averaged):
    made = scorer(suite)
    assert made.score((1.0, 0.0)) == pytest.approx(1.0) and made.score((0.0, 1.0)) == pytest.approx(-1.0)
    # A quarter of `two`: 27.5, 40 and 62.5 degrees, still in order; three quarters: not.
    assert made.score((0.75, 0.25)) == pytest.approx(1.0) and made.score((0.25, 0.75)) == pytest.approx(-1.0)
    assert averaged == [
        ((FOLDERS[0],), (1.0,)),
        ((FOLDERS[1],), (1.0,)),
        (tuple(FOLDERS), (0.75, 0.25)),
        (tuple(FOLDERS), (0.25, 0.75)),
    ]


def test_a_trial_is_told_with_its_weights(suite, averaged, capsys):
    made = scorer(suite)
    made.tell(Trial((0.5, 0.12345), 0.98765, True))
    made.tell(Trial((1.0, 0.0), 0.5, False))
    assert capsys.readouterr().out == "98.77  kept  weights 0.5 0.123\n50.00        weights 1 0\n"


@pytest.mark.parametrize("plot", [b"picture", None])
def test_a_sweep_keeps_the_smallest_of_the_best_alphas(suite, averaged, capsys, monkeypatch, plot):
    monkeypatch.setattr(plots, "sweep", lambda sweep: plot)
    made = scorer(suite, ["two"])
    best = made.sweep({alpha: (alpha, 1 - alpha) for alpha in (1.0, 0.75, 0.25)})
    assert best == 0.75
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "alpha 1: mean of the types 100.00  two 100.00"
    assert told[2:] == [
        "alpha 0.25: mean of the types -100.00  two -100.00",
        "best alpha 0.75 by the mean of the types of small",
    ]
    found = made.sweep_files(best)
    assert found.get("sweep.png") == plot and set(found) - {"sweep.png"} == {"sweep.json", "sweep.md"}
    sweep = documents.parse_json(found["sweep.json"].decode(), "sweep.json")
    assert (sweep["suite"], sweep["best"], list(sweep["means"])) == ("small", 0.75, ["1", "0.75", "0.25"])
    assert sweep["means"]["0.25"] == pytest.approx(-1.0) and sweep["scores"]["1"] == pytest.approx({"two": 1.0})
    assert "best at alpha 0.75" in found["sweep.md"].decode()


@pytest.mark.parametrize("plot", [b"picture", None])
def test_a_soup_tells_every_trial_with_the_scores_of_its_tasks(suite, averaged, capsys, monkeypatch, plot):
    monkeypatch.setattr(plots, "soup", lambda record: plot)
    made = scorer(suite)
    tried = [((1.0, 0.0), True), ((0.0, 1.0), False), ((0.25, 0.75), False), ((0.75, 0.25), True)]
    trials = [Trial(weights, made.score(weights), kept) for weights, kept in tried]
    found = made.soup_files(trials)
    assert found.get("soup.png") == plot and set(found) - {"soup.png"} == {"soup.json", "soup.md"}
    record = documents.parse_json(found["soup.json"].decode(), "soup.json")
    assert (record["suite"], record["method"], record["inputs"]) == ("small", "greedy", ["one", "two"])
    assert [(tuple(t["weights"]), t["kept"]) for t in record["trials"]] == tried
    assert record["trials"][1]["scores"] == pytest.approx({"three": -1.0, "two": -1.0})
    assert [t["mean"] for t in record["trials"]] == [t.score for t in trials]
    assert capsys.readouterr().out == f"\n{found['soup.md'].decode()}\n"


def test_a_score_that_is_not_defined_is_below_all_others_and_null_in_files(suite, averaged, capsys, monkeypatch):
    """The half of both models puts all pairs at the same angle, which orders nothing."""
    monkeypatch.setattr(plots, "soup", lambda record: None)
    monkeypatch.setattr(plots, "sweep", lambda sweep: None)
    made = scorer(suite, ["two"])
    undefined = Trial((0.5, 0.5), made.score((0.5, 0.5)), False)
    assert undefined.score == -np.inf
    made.tell(undefined)
    assert made.sweep({0.5: (0.5, 0.5), 0.75: (0.25, 0.75)}) == 0.75
    assert capsys.readouterr().out.splitlines() == [
        "-        weights 0.5 0.5",
        "alpha 0.5: mean of the types -  two -",
        "alpha 0.75: mean of the types -100.00  two -100.00",
        "best alpha 0.75 by the mean of the types of small",
    ]
    sweep = documents.parse_json(made.sweep_files(0.75)["sweep.json"].decode(), "sweep.json")
    assert sweep["means"]["0.5"] is None and sweep["scores"]["0.5"] == {"two": None}
    trials = [Trial(w, made.score(w), w == (1.0, 0.0)) for w in ((1.0, 0.0), (0.0, 1.0))] + [undefined]
    soup_json = documents.parse_json(made.soup_files(trials)["soup.json"].decode(), "soup.json")
    assert soup_json["trials"][2] == {"weights": [0.5, 0.5], "mean": None, "kept": False, "scores": {"two": None}}


def test_another_host_embeds_the_same_takes_the_score_and_writes_nothing(suite, averaged, monkeypatch):
    monkeypatch.setattr(hosts, "is_main", lambda: False)
    shared = []

    def agree(value):
        shared.append(value)
        return np.array([0.25]).view(np.uint8) if value.dtype == np.uint8 and value.size == 8 else value

    monkeypatch.setattr(average_scores.hosts, "agree", agree)
    made = scorer(suite)
    assert made.score((0.5, 0.5)) == 0.25
    assert averaged == [(tuple(FOLDERS), (0.5, 0.5))]
    assert made.soup_files([]) == {} and made.sweep_files(0.5) == {}
