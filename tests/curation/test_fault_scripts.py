"""`embed curate` against servers that fail at random: budgets, exit codes, secrecy and rows hold in every run."""

import collections
import shutil

import pytest
from fault_scripts import AsUser, InProcess, Script, play
from fault_server import FAULTS, FaultServer

SCRIPTS, QUICK_SCRIPTS = 1000, 30
SCRIPTS_AS_USER = 30


@pytest.fixture
def fault_server():
    server = FaultServer()
    yield server
    server.close()


@pytest.fixture
def in_process(monkeypatch):
    return InProcess(monkeypatch)


def play_all(seeds, server, folder, run, unfit=frozenset()) -> collections.Counter:
    counts: collections.Counter = collections.Counter()
    for seed in seeds:
        script = Script.draw(seed)
        script.faults = [fault for fault in script.faults if fault not in unfit]
        work = folder / str(seed)
        work.mkdir()
        counts += play(script, server, work, run)
        shutil.rmtree(work)
    print(dict(sorted(counts.items())))
    return counts


@pytest.mark.slow
def test_some_scripts(in_process, fault_server, tmp_path):
    counts = play_all(range(QUICK_SCRIPTS), fault_server, tmp_path, in_process)
    assert min(counts[f"exit {code}"] for code in (0, 69, 75, None)) > 2, counts
    assert counts["runs as modelled"] > 5


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_scripts(in_process, fault_server, tmp_path):
    counts = play_all(range(SCRIPTS), fault_server, tmp_path, in_process)
    assert min(counts[f"exit {code}"] for code in (0, 69, 75, None)) > 100, counts
    assert counts["runs as modelled"] > 300
    assert not FAULTS.keys() - counts.keys(), "every fault was met"


@pytest.mark.slow
def test_a_script_as_a_user(fault_server, tmp_path):
    """Killed twice, with costs that cannot be right and answers in fences."""
    counts = play_all([5029], fault_server, tmp_path, AsUser(fault_server), AsUser.unfit)
    assert counts["exit None"] == 2 and counts["in fences"] > 0


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_scripts_as_a_user(fault_server, tmp_path):
    seeds = range(6000, 6000 + SCRIPTS_AS_USER)
    counts = play_all(seeds, fault_server, tmp_path, AsUser(fault_server), AsUser.unfit)
    assert min(counts[f"exit {code}"] for code in (0, 69, 75, None)) > 5, counts
