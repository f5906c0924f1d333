"""`embed curate` against servers that fail at random: budgets, exit codes, secrecy and rows hold in every run."""

import collections
import os
import shutil

import pytest
from fault_scripts import InProcess, Script, all_faults, fault_server, play  # noqa: F401

SCRIPTS = 1000
QUICK = 60


def play_all(seeds, server, folder, run) -> collections.Counter:
    counts: collections.Counter = collections.Counter()
    for seed in seeds:
        work = folder / str(seed)
        work.mkdir()
        counts += play(Script.draw(seed), server, work, run)
        shutil.rmtree(work)
    return counts


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # nothing is killed for real
    return InProcess(monkeypatch)


def test_faults_by_random_scripts(in_process, fault_server, tmp_path):  # noqa: F811
    counts = play_all(range(QUICK), fault_server, tmp_path, in_process)
    assert min(counts[f"exit {code}"] for code in (0, 69, 75, None)) > 5, counts
    assert counts["runs as modelled"] > 10


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_scripts(in_process, fault_server, tmp_path):  # noqa: F811
    counts = play_all(range(SCRIPTS), fault_server, tmp_path, in_process)
    print(dict(sorted(counts.items())))
    assert min(counts[f"exit {code}"] for code in (0, 69, 75, None)) > 100, counts
    assert not all_faults() - counts.keys(), "every fault was met"
