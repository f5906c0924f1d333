"""What the metrics of a step say of a run: skipped steps that end it, and what its objective warns of."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

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

    def check(self, values: Mapping[str, Any], step: int) -> None:
        """Raises NumericError where the run is to end at `step`, whose metrics `values` are."""
        _check_skipped(values, step)
        watch = getattr(self._objective, "watch", None)
        warning = watch({name: float(value) for name, value in values.items()}, step) if watch is not None else None
        if warning is None:
            self._warned = False
        elif self._objective.stop_on_warning:
            raise NumericError(f"{self._run_dir}: at step {step} {warning}; the last checkpoint is before it")
        elif not self._warned:
            self._warned = True
            self._say(f"warning    step {step}: {warning}")


def _check_skipped(values: Mapping[str, Any], step: int) -> None:
    skipped = int(values["skipped"])
    if skipped >= STOP_AFTER_SKIPPED:
        raise NumericError(
            f"loss or gradient was not finite in the last {skipped} steps up to step {step} (loss {float(values['loss'])}); "
            f"nothing of them was applied or saved; lower the learning rate or look at batches {step - skipped}..{step - 1}"
        )
