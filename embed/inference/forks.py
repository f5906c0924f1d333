"""Forked processes. A fork copies JAX's memory and none of its threads, so that whatever it runs would wait for ever."""

import os

from jax._src import xla_bridge  # whether backends were started has no public name

from embed.errors import UsageError

_was_forked = False


def _after_fork() -> None:
    global _was_forked
    _was_forked = _was_forked or xla_bridge.backends_are_initialized()


os.register_at_fork(after_in_child=_after_fork)


def check() -> None:
    """Raises UsageError in a process that was forked after JAX had started in its parent; call it before anything runs."""
    if _was_forked:
        raise UsageError(
            "this process was forked from one in which JAX had started, and a fork does not copy its threads; load the model "
            "in the new process and not before the fork, or start processes with multiprocessing's 'spawn'"
        )
