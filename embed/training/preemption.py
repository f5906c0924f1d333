"""Being asked to stop: SIGTERM sets a flag, all processes agree on the step, a second SIGTERM ends at once."""

import signal

import jax

from embed import console


class Preemption:
    """Active inside `with`. With several processes JAX's own preemption service decides, so that all stop at one step."""

    def __init__(self):
        self._asked = False
        self._previous = None

    def __enter__(self):
        came_before = console.take_termination()
        if jax.process_count() == 1:
            self._asked = came_before
            self._previous = signal.signal(signal.SIGTERM, self._on_signal)
        elif came_before:
            raise console.Terminated
        return self

    def __exit__(self, *_):
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None

    def _on_signal(self, number, frame):
        self._asked = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def reached(self, step: int) -> bool:
        """Returns whether to save and stop after `step`; the same answer on every process."""
        if jax.process_count() == 1:
            return self._asked
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(step)
