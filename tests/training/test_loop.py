"""The small decisions of the loop, without a run around them."""

import json
import pathlib
import types

import pytest

from embed.training import loop


def run_with(folder: pathlib.Path, steps, patience=2):
    for step in steps:
        (folder / "evaluation" / str(step)).mkdir(parents=True, exist_ok=True)
        (folder / "evaluation" / str(step) / "scores.json").write_text(json.dumps({}))
    schedule = loop.Schedule(100, evaluate_every=2, patience=patience)
    return types.SimpleNamespace(run_dir=folder, schedule=schedule)


@pytest.mark.parametrize(
    ("best", "done", "stale"),
    [(2, 6, True), (2, 4, False), (4, 6, False), (4, 8, True), (2, 5, False), (None, 8, False)],
)
def test_patience_counts_the_evaluations_up_to_now(tmp_path, best, done, stale):
    """A run that fell back to an earlier step has evaluations of later steps lying about: they are not of its future."""
    run = run_with(tmp_path, [2, 4, 6, 8])
    assert loop._is_stale(run, None if best is None else {"step": best}, done) == stale


def test_without_patience_nothing_is_stale(tmp_path):
    assert not loop._is_stale(run_with(tmp_path, [2, 4, 6, 8], None), {"step": 2}, 8)
