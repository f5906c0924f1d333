"""The small decisions of the loop, without a run around them."""

import contextlib
import json
import pathlib
import types

import numpy as np
import pytest

from embed.training import loop
from embed.training.best import Best


def run_with(folder: pathlib.Path, steps, patience=2):
    for step in steps:
        (folder / "evaluation" / str(step)).mkdir(parents=True, exist_ok=True)
        (folder / "evaluation" / str(step) / "scores.json").write_text(json.dumps({}))
    schedule = loop.Schedule(100, evaluate_every=2, patience=patience)
    return types.SimpleNamespace(run_dir=folder, schedule=schedule, best=Best(folder, "score"))


@pytest.mark.parametrize(
    ("best", "done", "stale"),
    [(2, 6, True), (2, 4, False), (4, 6, False), (4, 8, True), (2, 5, False), (None, 8, False)],
)
def test_patience_counts_the_evaluations_up_to_now(tmp_path, best, done, stale):
    """A run that fell back to an earlier step has evaluations of later steps lying about: they are not of its future."""
    run = run_with(tmp_path, [2, 4, 6, 8])
    assert loop._is_stale(run, None if best is None else {"step": best}, done) == stale


def test_what_is_scored_lies_as_the_model_runs(tmp_path, monkeypatch):
    """Training spreads parameters over replicas, and every batch that is encoded would gather them."""
    scored = []
    monkeypatch.setattr(loop, "gathered", lambda params, model, mesh: ("gathered", params, model, mesh))
    run = types.SimpleNamespace(
        evaluate=lambda params: scored.append(params) or {"score": 1.0}, validation=None, best=Best(tmp_path, None),
        run_dir=tmp_path, model="model", mesh="mesh",
    )  # fmt: skip
    items, state = types.SimpleNamespace(export=lambda variables: variables), types.SimpleNamespace(variables="spread")
    reporter = types.SimpleNamespace(paused=contextlib.nullcontext, log=lambda *_, **__: None, line=print)
    loop._evaluate(run, items, state, None, reporter, None, 3)
    assert scored == [("gathered", "spread", "model", "mesh")]
    assert json.loads((tmp_path / "evaluation" / "3" / "scores.json").read_text()) == {"score": 1.0}


def test_without_patience_nothing_is_stale(tmp_path):
    assert not loop._is_stale(run_with(tmp_path, [2, 4, 6, 8], None), {"step": 2}, 8)


def test_an_accelerator_is_given_two_steps_ahead_and_no_more(tmp_path, monkeypatch):
    """More in its queue would hide from the watch over the hosts how long a step takes; fewer would leave it waiting."""
    did = []
    segment_ids = np.ones((1, 1, 2, 4), np.int32)
    nothing = types.SimpleNamespace(
        protect=lambda *_: None, advance=lambda *_: None, log=lambda *_: None, rates=lambda *_: {}, line=print
    )
    run = types.SimpleNamespace(
        run_dir=tmp_path,
        best=Best(tmp_path, None),
        mesh=None,
        objective=None,
        evaluate=None,
        validation=None,
        profile_steps=0,
        batches=types.SimpleNamespace(
            max_segments=None,
            examples=types.SimpleNamespace(batch_size=2, features=()),
            shards=1,
            iterate=lambda *_: iter([{"segment_ids": segment_ids}] * 6),
        ),
        schedule=loop.Schedule(6, log_every=100, checkpoint_every=100),
    )

    def program(state, batch):
        did.append("run")
        return state, {"skipped": did.count("run")}

    monkeypatch.setattr(loop.jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr(loop.Watch, "step", lambda self, number, metrics: did.append(metrics["skipped"]))
    monkeypatch.setattr(loop.sharding, "process_rows", lambda *_: (0, 1))
    monkeypatch.setattr(loop.sharding, "to_global", lambda batch, *_: batch)
    for name, given in (("example_flops", 1.0), ("_save", None)):
        monkeypatch.setattr(loop, name, lambda *_, given=given: given)
    monkeypatch.setattr(loop.Watch, "check", lambda *_: None)
    preemption = types.SimpleNamespace(reached=lambda step: False)
    loop._loop(run, nothing, types.SimpleNamespace(step=0), program, nothing, nothing, preemption, loop.Clock())
    # Waited for: the first once the third is in the queue, and so on.
    assert did == ["run", "run", "run", 1, "run", 2, "run", 3, "run", 4, 5, 6]


def test_hosts_look_at_the_step_that_a_run_goes_on_from(tmp_path, monkeypatch):
    """Before anything of it is read."""

    class Seen(Exception):
        pass

    def look(folder, step):
        raise Seen(str(step))

    monkeypatch.setattr(loop.checkpoints, "newest_intact_step", lambda folder: (4, {}))
    monkeypatch.setattr(loop.documents, "read_json", lambda path, kind: {"identity": {}})
    monkeypatch.setattr(loop.checkpoints, "agree_with_main", look)
    run = types.SimpleNamespace(run_dir=tmp_path, identity={}, schedule=loop.Schedule(steps=9))
    with pytest.raises(Seen, match="4"):
        loop._restore(run, None, None)
