"""The end of a search: which lines are run, once."""

import pytest
import searching

from embed import files
from embed.curation.trials import Search
from embed.workflows import command_lines, tune_final


@pytest.fixture
def lines(monkeypatch) -> searching.Lines:
    lines = searching.Lines()
    monkeypatch.setattr(command_lines, "_call", lines)
    monkeypatch.setattr("embed.evaluation.plots.available", lambda: False)
    return lines


@pytest.fixture
def search(tmp_path) -> Search:
    """A finished search without proposals; each run holds its rates."""
    search = Search(tmp_path, searching.plan(proposals=0), searching.formula())
    search.work()
    for trial in search.trials():
        (search.trial_folder(trial.number) / "run").mkdir()
        files.write_json(search.trial_folder(trial.number) / "run" / "rates.json", trial.rates)
    return search


def words(lines: searching.Lines, command: str) -> list[list[str]]:
    return [list(line[1:]) for line in lines.ran if line[0] == command]


def test_the_soup_is_of_the_chosen_and_all_are_compared_with_the_best_seed(search, lines):
    for _ in range(2):  # the second finds what the first has left
        tune_final.finish(search, ["x", "y"], 2, "dev.json", "test.json")
    (average,) = words(lines, "average")
    assert len([w for w in average if not w.startswith("--")]) == 2
    dev, test = words(lines, "evaluate")
    folder = search.folder / "final"
    for line, name in ((dev, "dev"), (test, "test")):
        assert line[0] == f"soup={folder / 'soup'}" and [w.partition("=")[0] for w in line[:3]][1:] == [
            "mixture-1",
            "mixture-2",
        ]
        assert f"--suite={name}.json" in line and f"--output={folder / name}" in line
        assert "--against=mixture-1" in line  # nothing beats the best seed, as there are no proposals
    rates = [trial.rates["a"] for trial in search.trials()]
    assert f"mixture-1={search.trial_folder(1 + min(range(7), key=lambda i: abs(rates[i] - 0.7))) / 'run'}" == dev[1]


def test_fewer_mixtures_with_a_score_are_said(search, lines, capsys):
    tune_final.finish(search, ["x", "y"], 9, "dev.json", None)
    assert "tune: 7 of 9 mixtures: no more have a score" in capsys.readouterr().out
    assert len(words(lines, "evaluate")) == 1


def test_one_mixture_is_no_soup(search, lines):
    tune_final.finish(search, ["x", "y"], 1, "dev.json", None)
    assert not words(lines, "average") and words(lines, "evaluate")[0][0].startswith("mixture-1=")


def test_the_best_seed_is_scored_beside_mixtures_that_beat_it(search, lines):
    later = search.folder / "mixtures" / "8"
    later.mkdir()
    files.write_json(later / "trial.json", {"kind": "exploit", "goal": "mean", "rates": {"a": 0.7, "b": 0.3}})
    files.write_json(later / "result.json", {"step": 1, "score": 0.9, "scores": {"mean": 0.9, "x": 0.9, "y": 0.9}})
    (later / "run").mkdir()
    files.write_json(later / "run" / "rates.json", {"a": 0.7, "b": 0.3})
    tune_final.finish(search, ["x", "y"], 1, "dev.json", None)
    (line,) = words(lines, "evaluate")
    assert line[0] == f"mixture-1={later / 'run'}" and line[1].startswith("best-seed=")
    assert "--against=best-seed" in line
