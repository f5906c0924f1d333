"""Weights & Biases by a stand-in: one run of one id, however often it is resumed; a project that is another; no package."""

import sys
import types

import pytest

from embed.errors import DataError, UsageError
from embed.training import reports, weights_and_biases


@pytest.fixture
def wandb(monkeypatch):
    """The calls that the package got."""
    calls = []

    class Run:
        def log(self, values, step):
            calls.append(("log", step, values))

        def finish(self):
            calls.append("finish")

    def init(**given):
        calls.append(("init", given["project"], given["id"], given["resume"], given["name"]))
        return Run()

    ids = iter(["first", "second"])
    monkeypatch.setattr(weights_and_biases.secrets, "token_hex", lambda size: next(ids))
    package = types.SimpleNamespace(init=init, Settings=lambda **given: given)
    monkeypatch.setitem(sys.modules, "wandb", package)
    return calls


def test_a_resumed_run_keeps_its_id(tmp_path, wandb, capsys):
    for first in (0, 4):
        reporter = reports.Reporter(tmp_path / "run" if first else _made(tmp_path / "run"), first, 8, "mine")
        row = {"loss": 1.5, "examples_per_second": 1, "tokens_per_second": 1, "model_tflops": 1, "seconds_per_step": 1}
        reporter.log(first + 4, row)
        reporter.log(first + 4, {"mean": 0.5}, kind="evaluation")
        reporter.close()
    started = ("init", "mine", "first", "allow", "run")
    assert [call for call in wandb if call[0] == "init"] == [started, started]
    assert [(c[1], *c[2].items()) for c in wandb if c[0] == "log" and "evaluation/mean" in c[2]] == [
        (4, ("evaluation/mean", 0.5)),
        (8, ("evaluation/mean", 0.5)),
    ]
    assert wandb.count("finish") == 2
    with pytest.raises(DataError, match="is written to the project 'mine', not 'other'; give --wandb=mine"):
        weights_and_biases.check(tmp_path / "run", "other")


def _made(folder):
    folder.mkdir()
    return folder


def test_without_a_project_nothing_is_sent(tmp_path, wandb):
    reports.Reporter(tmp_path, 0, 8).close()
    assert not wandb


def test_without_the_package_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"pip install 'embed\[wandb\]'"):
        weights_and_biases.check(tmp_path, "mine")
