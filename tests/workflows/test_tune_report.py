"""What a mixture search leaves: tables best first, gin files, plain values."""

import dataclasses
import math

import pytest
import searching

from embed import digests
from embed.curation.proposals import Trial
from embed.curation.trials import Search
from embed.documents import read_json
from embed.evaluation import plots
from embed.workflows import tune_report

RATES = [{"a": 0.5, "b": 0.5}, {"a": 0.25, "b": 0.75}, {"a": 0.75, "b": 0.25}]
TRIALS = [
    Trial(1, "grid", RATES[0], scores={"mean": 0.5, "code_search": 0.6}),
    Trial(2, "Dirichlet", RATES[1], failed="ended with 70"),
    Trial(3, "specialise", RATES[2], "code_search", {"mean": 0.625, "code_search": 0.7}),
]


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()]


def test_trials_stand_best_first_and_failures_last():
    assert rows(tune_report.trials_table(TRIALS, "mean", ["code_search"]))[2:] == [
        ["3", "specialise code search", "62.50", "70.00", "0.750", "0.250"],
        ["1", "grid", "50.00", "60.00", "0.500", "0.500"],
        ["2", "Dirichlet, failed", "-", "-", "0.250", "0.750"],
    ]
    assert rows(tune_report.trials_table(TRIALS, "code_search", ["code_search"]))[0][2:4] == ["code_search", "a"]


def test_the_lowest_loss_stands_first():
    losses = [Trial(n, "grid", RATES[n], scores={"validation/loss": 2.0 - n}) for n in range(2)]
    assert [row[2] for row in rows(tune_report.trials_table(losses, "validation/loss", ()))[2:]] == ["1.0000", "2.0000"]


def test_rates_are_a_gin_file_of_six_decimals(tmp_path):
    tune_report.write_rates(tmp_path / "rates.gin", {"a": 1 / 3, "b": 2 / 3})
    text = (tmp_path / "rates.gin").read_text()
    assert "tasks.Mixture.rates = {'a': 0.333333, 'b': 0.666667}\ntasks.Mixture.maximum = None\n" in text
    assert text.splitlines()[1] == "from __gin__ import dynamic_registration"


@pytest.mark.parametrize(
    ("metric", "columns"),
    [
        ("mean of the types", ["mean of the types", "retrieval", "sts"]),
        ("sts", ["sts", "mean of the types", "retrieval"]),
        ("pairs/ndcg_at_10", ["pairs/ndcg_at_10", "mean of the types", "retrieval", "sts"]),
        ("mean of the tasks", ["mean of the tasks", "mean of the types", "retrieval", "sts"]),
        ("validation/loss", ["mean of the types", "retrieval", "sts"]),
    ],
)
def test_scores_are_read_at_the_full_size_with_the_metric_first(tmp_path, metric, columns):
    content = searching.results({"soup": {"retrieval": 0.6, "sts": 0.8}}, "suite.json")
    digests.write_sealed(tmp_path / "results.json", content)
    scores = tune_report.read_scores(tmp_path / "results.json", metric)["soup"]
    assert list(scores) == columns
    expected = {"retrieval": 0.6, "sts": 0.8, "pairs/ndcg_at_10": 0.6}
    assert scores == pytest.approx({name: expected.get(name, 0.7) for name in columns})


@pytest.fixture
def search(tmp_path) -> Search:
    """A finished search without proposals."""
    search = Search(tmp_path, searching.plan(proposals=0), searching.formula())
    search.work()
    return search


def outcome(search: Search, **changes) -> dict:
    seed = tune_report.best_seed(search)
    dev = {"soup": {"mean": 0.7}, "mixture-1": {"mean": 0.65}, "best-seed": {"mean": 0.6}}
    facts = {"seed_name": "best-seed", "soup": True, "test_suite": None, "test": {}, "dev": dev}
    return tune_report.record(search, [(seed, "mean")], "dev.json", {**facts, **changes})


def test_the_report_says_what_was_chosen_on_and_what_may_be_reported(search, capsys, monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)
    test = {"soup": {"mean": 0.5}, "mixture-1": {"mean": 0.52}, "best-seed": {"mean": 0.51}}
    tune_report.write_search(search, outcome(search, test_suite="test.json", test=test), ["x", "y"])
    text = (search.folder / "search.md").read_text()
    assert "Scores on dev.json, which the mixtures were chosen on: they are too high" in text
    assert "Scores on test.json, which nothing was chosen on: report these" in text
    assert "Over the best seed, points of mean on dev.json: mixture-1 +5.00, soup +10.00" in text
    assert "Over the best seed, points of mean on test.json: mixture-1 +1.00, soup -1.00" in text
    assert "(seed)" in text and "Numbers up to 7 are seeds." in text
    printed = capsys.readouterr().out
    assert "no plots: matplotlib is not installed; run: pip install 'embed[plots]'" in printed
    assert printed.endswith("search.json, mixture-1.gin; models and reports: final/soup, final/dev, final/test\n")
    assert read_json(search.folder / "search.json")["test"] == test


def test_without_a_test_suite_nothing_is_said_of_one(search, capsys):
    dev = {"mixture-1": {"mean": math.nan}}
    tune_report.write_search(search, outcome(search, seed_name="mixture-1", soup=False, dev=dev), ["x", "y"])
    text = (search.folder / "search.md").read_text()
    assert "report these" not in text and "points of mean on dev.json: the best seed is the best mixture" in text
    assert read_json(search.folder / "search.json")["dev"] == {"mixture-1": {"mean": None}}
    assert {path.name for path in search.folder.glob("*.png")} == {"search.png", "rates.png"}
    assert "models and reports: final/dev\n" in capsys.readouterr().out


def test_the_best_seed_is_that_of_the_seeds_alone(search):
    assert tune_report.best_seed(search).number <= 7
    fewer = dataclasses.replace(search, plan=searching.plan(random=[], grid_size=1, proposals=6))
    assert tune_report.best_seed(fewer).number == 1
