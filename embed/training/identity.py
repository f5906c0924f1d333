"""Whether a run goes on as it began: what decides its result, and what its checkpoints hold."""

import pathlib
from collections.abc import Mapping
from typing import Any

from embed import files
from embed.errors import DataError


def check_trees(step_folder: pathlib.Path, targets: Mapping[str, Any]) -> None:
    """Raises DataError for a checkpoint with trees that the run does not have: without them it would go on from something else."""
    left = sorted(set(files.read_manifest(step_folder)["trees"]) - set(targets))
    if left:
        raise DataError(
            f"{step_folder}: holds {', '.join(left)} too, which the run does not have now; a run that began with averages of its "
            "parameters (Recipe.ema_decay) or a teacher goes on with them: bind them again, or start another --run_dir"
        )


def check(now: Mapping[str, Any], before: Mapping[str, Any], step_folder: pathlib.Path) -> None:
    """Raises DataError where a run began with something else that decides its result, by its identity then and now."""
    for name in dict.fromkeys([*now, *before]):
        if name not in before:
            raise DataError(
                f"{step_folder}: the run began without {name}, or with an older version of embed, which did not write it down; go "
                "on as it began, or start another --run_dir"
            )
        if before[name] != now.get(name):
            raise DataError(
                f"{step_folder}: the run began with {name} {_short(before[name])}, now it is {_short(now.get(name))}; "
                "give the same, or start another --run_dir"
            )


def _short(value) -> str:
    return repr(value) if len(repr(value)) <= 40 else repr(value)[:36] + "..."
