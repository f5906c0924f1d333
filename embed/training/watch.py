"""What the metrics of a step say of a run: skipped steps that end it, and what its objective warns of."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from embed.errors import NumericError
from embed.types import Objective

STOP_AFTER_SKIPPED = 3  # steps in a row that are not finite


class Watch:
    """Looks at the metrics that are reported. `say` prints a line.

    An objective may have `watch(values, step)`, which returns a warning with advice, or None, and `stop_on_warning`, which makes
    the warning a NumericError. The same warning is printed once.
    """

    def __init__(self, run_dir: pathlib.Path, objective: Objective, say: Callable[[str], None]):
        self._run_dir, self._objective, self._say = run_dir, objective, say
        self._warned = False
        self.skipped = 0  # steps since the run began or was resumed

    def step(self, number: int, metrics: Mapping[str, Any]) -> None:
        """Counts a step that is done, and says when it is the first that was skipped.

        Raises NumericError after several in a row.
        """
        skipped = int(jax.device_get(metrics["skipped"]))
        if not skipped:
            return
        if not self.skipped:
            self._say(
                f"warning    step {number} is skipped: its loss or gradient is not finite; `skipped_steps` counts them"
            )
        self.skipped += 1
        if skipped >= STOP_AFTER_SKIPPED:
            raise NumericError(
                f"loss or gradient was not finite in the last {skipped} steps up to step {number} (loss "
                f"{float(metrics['loss'])}); nothing of them was applied or saved; lower the learning rate or look at batches "
                f"{number - skipped}..{number - 1}"
            )

    def check(self, values: Mapping[str, Any], step: int) -> None:
        """Raises NumericError where the run is to end at `step`, whose metrics `values` are."""
        watch = getattr(self._objective, "watch", None)
        warning = watch({name: float(value) for name, value in values.items()}, step) if watch is not None else None
        if warning is None:
            self._warned = False
        elif self._objective.stop_on_warning:
            raise NumericError(f"{self._run_dir}: at step {step} {warning}; the last checkpoint is before it")
        elif not self._warned:
            self._warned = True
            self._say(f"warning    step {step}: {warning}")
