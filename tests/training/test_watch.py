"""Which metrics end a run, and which are warned of, once."""

import types

import pytest

from embed.errors import NumericError
from embed.training.watch import STOP_AFTER_SKIPPED, Watch


def watch(lines, **fields):
    return Watch("runs/a", types.SimpleNamespace(stop_on_warning=False, **fields), lines.append)


def test_skipped_steps_are_counted_and_several_in_a_row_end_a_run():
    lines = []
    one = watch(lines)
    for step, skipped in enumerate((0, 1, 0, 1, 2, 0, 1, STOP_AFTER_SKIPPED - 1), 1):
        one.step(step, {"skipped": skipped, "loss": float("nan")})
    assert one.skipped == 5
    assert lines == ["warning    step 2 is skipped: its loss or gradient is not finite; `skipped_steps` counts them"]
    with pytest.raises(NumericError, match=r"in the last 3 steps up to step 9 \(loss nan\).*look at batches 6\.\.8"):
        one.step(9, {"skipped": STOP_AFTER_SKIPPED, "loss": float("nan")})


def test_a_warning_is_printed_once_until_it_is_over():
    lines = []
    one = watch(lines, watch=lambda values, step: "it is low; raise it" if values["level"] < 1 else None)
    for step, level in ((10, 2), (20, 0), (30, 0), (40, 3), (50, 0)):
        one.check({"skipped": 0, "loss": 1.0, "level": level}, step)
    assert lines == ["warning    step 20: it is low; raise it", "warning    step 50: it is low; raise it"]


def test_a_warning_may_end_a_run():
    one = watch([], watch=lambda values, step: "it is low; raise it")
    one._objective.stop_on_warning = True
    with pytest.raises(
        NumericError, match="^runs/a: at step 20 it is low; raise it; the last checkpoint is before it$"
    ):
        one.check({"skipped": 0, "loss": 1.0}, 20)
