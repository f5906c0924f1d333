"""Trials are trained once each: by a process that is killed and started again, and by two at once."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import searching

from embed import files
from embed.curation import simplex, trials
from embed.curation.proposals import value
from embed.curation.trials import Search, TrialFailed
from embed.errors import DataError

pytest.importorskip("bayes_opt")
ALL = [*(f"alone/{n}" for n in (1, 2)), *(f"mixtures/{n}" for n in range(1, 13))]


@pytest.fixture(autouse=True)
def short_poll(monkeypatch):
    monkeypatch.setattr(trials, "POLL_SECONDS", 0.05)


def start(folder: pathlib.Path, seconds: float = 0.0, **environment: str) -> subprocess.Popen:
    """Starts a process that works on the search."""
    command = [sys.executable, searching.__file__, str(folder), str(seconds)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    paths = os.pathsep.join([str(pathlib.Path(searching.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths, **environment}, **pipes)


def trained(folder: pathlib.Path) -> list[str]:
    return (folder / "trained.txt").read_text().split()


def described(search: Search) -> list[dict]:
    numbers = range(1, search.plan.mixtures + 1)
    return [json.loads((search.trial_folder(n) / trials.TRIAL).read_text()) for n in numbers]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Search:
    """A search that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    search = Search(folder, searching.plan(), searching.formula(log=folder / "trained.txt"))
    search.work()
    return search


@pytest.mark.slow
def test_runs_come_in_order_once_each_and_beat_the_seeds(whole):
    assert trained(whole.folder) == ALL
    trials = whole.trials()
    assert [t.kind for t in trials[:7]] == ["grid"] * 3 + ["Dirichlet"] * 4
    assert trials[0].rates == {"a": 0.75, "b": 0.25}  # in proportion to the steps alone
    best = [max(value(t, "mean") for t in some) for some in (trials[:7], trials)]
    assert best[1] > best[0]
    assert {t.goal for t in trials[7:]} == {"mean", "x"}
    assert described(whole)[9]["basis"] == list(range(1, 10)) and described(whole)[9]["pending"] == []


@pytest.mark.slow
def test_a_finished_search_trains_nothing(whole):
    Search(whole.folder, whole.plan, lambda *arguments: pytest.fail("trained again")).work()


@pytest.mark.slow
def test_a_search_that_is_killed_twice_ends_as_one_that_was_not(whole, tmp_path):
    for point in ("tune.after_trial_5", "tune.before_trial_10"):
        process = start(tmp_path, EMBED_FAIL_AT=point)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, errors
    process = start(tmp_path)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert sorted(trained(tmp_path)) == sorted(ALL)
    search = Search(tmp_path, whole.plan, searching.formula())
    assert search.trials() == whole.trials() and described(search) == described(whole)
    assert "mixture 10 of 12" in out and "mixture 9 of 12" not in out


@pytest.mark.slow
def test_two_processes_divide_the_runs(whole, tmp_path):
    processes = [start(tmp_path, 0.1) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted(trained(tmp_path)) == sorted(ALL)
    for out, _ in outputs:
        assert "tune: mixture" in out  # both have trained
    search = Search(tmp_path, whole.plan, searching.formula())
    assert [t.rates for t in search.trials()[:7]] == [t.rates for t in whole.trials()[:7]]
    for number, record in enumerate(described(search)[7:], 8):
        assert sorted(record["basis"] + record["pending"]) == list(range(1, number))
    proposed = search.trials()[7:]
    for trial in proposed:
        others = [t.rates for t in search.trials() if t.number < trial.number]
        assert min(simplex.distance(trial.rates, rates) for rates in others) >= 0.01


@pytest.mark.slow
def test_the_run_of_a_process_that_dies_is_taken_over(tmp_path):
    process = start(tmp_path, 60.0)
    deadline = time.time() + 30
    while not (tmp_path / "trained.txt").exists() and time.time() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    Search(tmp_path, searching.plan(), searching.formula(log=tmp_path / "trained.txt")).work()
    assert trained(tmp_path) == ["alone/1", *ALL]


def test_a_process_without_work_says_what_it_waits_for(tmp_path, capsys):
    plan = searching.plan(random=[], proposals=0, grid_size=1, grid=lambda steps: [{"a": 0.5, "b": 0.5}])
    search = Search(tmp_path, plan, searching.formula())
    lock = files.FolderLock(search.alone_folder("b"))
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(search.alone_folder("b"))], stdout=subprocess.PIPE, text=True
    )
    assert held.stdout.readline() == "held\n"
    search.work()
    held.communicate(timeout=30)
    assert capsys.readouterr().out.count("waiting for runs of other processes, which this one takes over") == 1
    with lock:  # nothing is held in the end
        assert len(search.trials()) == 1 and sorted(search.alone()) == ["a", "b"]


HOLD = """
import sys, time
from embed.files import FolderLock
with FolderLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(0.5)
"""


def failing(numbers, reason: str = "ended with 70: embed: not finite (all of it: log.txt)"):
    """Returns a training that fails for some mixtures."""
    train = searching.formula()

    def some(title, folder, words):
        if folder.parent.name == "mixtures" and int(folder.name) in numbers:
            raise TrialFailed(reason)
        return train(title, folder, words)

    return some


@pytest.mark.slow
def test_a_trial_that_fails_is_marked_and_the_search_goes_on(tmp_path, capsys):
    search = Search(tmp_path, searching.plan(), failing({2, 9}))
    search.work()
    trials = search.trials()
    assert [t.number for t in trials if t.failed] == [2, 9] and len(trials) == 12
    assert "mixture 9 of 12 (explore) failed: it ended with 70: embed: not finite" in capsys.readouterr().out
    for trial in trials[9:]:
        assert simplex.distance(trial.rates, trials[8].rates) >= 0.01
    Search(tmp_path, searching.plan(), lambda *arguments: pytest.fail("trained again")).work()


@pytest.mark.slow
@pytest.mark.parametrize("score", [float("nan"), None])
def test_a_score_that_is_not_finite_or_missing_is_a_failure(tmp_path, score):
    train = searching.formula()

    def odd(title, folder, words):
        result = train(title, folder, words)
        missing = folder.name == "3" and folder.parent.name == "mixtures"
        return {**result, "scores": {"x": 0.5} if score is None else {"mean": score}} if missing else result

    search = Search(tmp_path, searching.plan(), odd)
    search.work()
    assert search.trials()[2].failed == "has no finite score 'mean'"


@pytest.mark.parametrize("random", [[], searching.plan().random])
def test_a_search_whose_seeds_all_fail_says_why_the_first_did(tmp_path, random):
    plan = dataclasses.replace(searching.plan(), random=random)
    search = Search(tmp_path, plan, failing(range(20)))
    for _ in range(2):  # and nothing is trained again
        with pytest.raises(DataError) as caught:
            search.work()
        assert str(caught.value) == (
            f"all {plan.seeds} mixtures that the search begins with failed; the first ended with 70: embed: not finite (all of it: "
            f"log.txt); correct that and remove {tmp_path}"
        )
        search = Search(tmp_path, plan, lambda *arguments: pytest.fail("trained again"))


def test_a_task_that_fails_alone_ends_the_search(tmp_path):
    def train(title, folder, words):
        raise TrialFailed("ended with 70: embed: not finite")

    with pytest.raises(DataError, match="tune: a alone ended with 70: .*; correct that, or leave the task out"):
        Search(tmp_path, searching.plan(), train).work()


def test_an_error_frees_the_run(tmp_path):
    def train(title, folder, words):
        raise OSError("disk")

    search = Search(tmp_path, searching.plan(), train)
    for _ in range(2):
        with pytest.raises(OSError, match="disk"):
            search.work()


def test_scores_for_people():
    assert trials.score_text(0.5, "mean") == "50.00" and trials.score_text(0.5, "validation/loss") == "0.5000"
    assert trials.score_text(None, "mean") == "-" == trials.score_text(float("nan"), "mean")
