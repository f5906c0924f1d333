"""Being asked to stop, in this process: SIGTERM is a flag within `with`, and what was before holds again after it."""

import os
import signal

import jax
import pytest
from jax.experimental import multihost_utils

from embed import console
from embed.training.preemption import Preemption


@pytest.fixture
def before():
    """What handles SIGTERM around the test: it notes that it came."""
    came = []
    kept = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    yield came
    signal.signal(signal.SIGTERM, kept)


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_is_remembered_and_the_next_would_end_the_process(before):
    with Preemption() as preemption:
        assert not preemption.reached(0) and not preemption.reached(1)
        ask()
        assert preemption.reached(2) and preemption.reached(3)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert before == []


@pytest.mark.parametrize("ends", ["well", "with an error"])
def test_afterwards_signals_go_where_they_went(before, ends):
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with Preemption() as preemption:
            assert signal.getsignal(signal.SIGTERM) is not handler
            ask()
            if ends != "well":
                raise KeyError
    except KeyError:
        pass
    assert signal.getsignal(signal.SIGTERM) is handler and before == []
    ask()
    assert before == [signal.SIGTERM] and preemption.reached(9)


def test_one_that_came_before_and_was_swallowed_counts_once(before):
    console.stop_on_sigterm()
    with pytest.raises(console.Terminated):
        ask()
    with Preemption() as preemption:
        assert preemption.reached(0)
    with Preemption() as preemption:
        assert not preemption.reached(0)


@pytest.fixture
def two_processes(monkeypatch):
    """Two processes, as far as JAX tells; step 3 is the one on which they agree."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda step: step == 3)


def test_several_processes_stop_where_the_service_says_and_leave_the_signal_to_it(before, two_processes):
    handler = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        assert signal.getsignal(signal.SIGTERM) is handler
        ask()
        assert [preemption.reached(step) for step in range(5)] == [False, False, False, True, False]
    assert before == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is handler


def test_of_several_processes_one_that_was_asked_before_ends_at_once(before, two_processes):
    console.stop_on_sigterm()
    with pytest.raises(console.Terminated):
        ask()
    with pytest.raises(console.Terminated), Preemption():
        pytest.fail("the others would wait for it")
    assert not console.take_termination()
