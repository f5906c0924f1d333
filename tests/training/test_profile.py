"""Which steps are traced."""

import jax
import pytest

from embed.training.profile import Profile


@pytest.fixture
def calls(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append(("start", folder)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    return calls


@pytest.mark.parametrize(
    "count, steps, expected",
    [
        (0, 9, []),
        (2, 9, [(5, "start"), (7, "stop")]),
        (9, 8, [(5, "start"), (8, "stop")]),  # the run ends first
        (2, 4, []),
    ],
)
def test_the_steps_asked_for_are_traced_and_no_others(calls, tmp_path, count, steps, expected):
    profile, seen = Profile(tmp_path, 5, count), []
    for step in range(steps):
        profile.at(step, 0)
        seen += [(step, call[0] if isinstance(call, tuple) else call) for call in calls[len(seen) :]]
    profile.end(0)
    seen += [(steps, call) for call in calls[len(seen) :]]
    assert seen == expected
