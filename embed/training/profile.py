"""Some steps of a run traced by JAX's profiler, for TensorBoard and xprof."""

import pathlib
from typing import Any

import jax


class Profile:
    """Traces `count` steps from step `first` on into a folder; every host traces its own devices. With a count of 0, nothing."""

    def __init__(self, folder: pathlib.Path, first: int, count: int):
        self._folder, self._first, self._last = folder, first, first + count
        self._is_on = False

    def at(self, step: int, state: Any) -> None:
        """Begins or ends the trace before the step after `step`; `state` is what the steps so far give."""
        if step == self._first < self._last:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder))
            self._is_on = True
        elif step == self._last:
            self.end(state)

    def end(self, state: Any) -> None:
        """Ends the trace, if there is one."""
        if self._is_on:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._is_on = False
