"""The harness of the fault table: every row survives some tries, and the table adds up what was tried."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
FEW = {
    "kills": 4, "saves": 2, "terms": 3, "disk": 2, "hosts": 2, "writers": 1, "corruptions": 120, "words": 40, "cuts": 200,
    "utf8": 100, "malicious": 40, "fuzz": 100_000, "http": 500,
}  # fmt: skip


def run(*words: str, **environment) -> subprocess.CompletedProcess:
    command = [sys.executable, str(HERE / "run.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_every_row_is_listed():
    done = run("--list")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(FEW)
    assert run("--rows=nothing").returncode == 2


LONG = ("saves", "terms", "disk", "hosts", "writers", "words", "malicious", "http")


@pytest.mark.slow
@pytest.mark.parametrize("row", [pytest.param(row, marks=[pytest.mark.long] if row in LONG else []) for row in FEW])
def test_a_row_survives_some_tries(row):
    done = run(f"--rows={row}", f"--tries={FEW[row]}", "--keep", "--seed=1000")
    entry = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0 and entry["survived"] == entry["tried"] >= FEW[row], entry["failures"]


def test_the_table_adds_up(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import run as harness
    from reports import Report, Row

    rows = [Row("a", "x", "y", 10, Report), Row("b", "x", "y", 10, Report)]
    tried = [
        {
            "row": "a",
            "seed": s,
            "tried": 4,
            "survived": 4 - s,
            "outcomes": {"fine": 4 - s},
            "failures": s * ["wrong"],
            "seconds": 6,
        }
        for s in (0, 1)
    ]
    text = harness.table(tried, rows)
    assert "| `a` | x | y | 7 / 8 | 10 | 0, 1 | 0.2 | fine 7 |" in text
    assert "| `b` | x | y | not tried | 10 | - | 0.0 |" in text and "- `a`, seed 1: wrong" in text
