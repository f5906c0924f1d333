"""The metrics of a run at Weights & Biases, beside metrics.jsonl and TensorBoard: one run there, however often it is resumed."""

import pathlib
import secrets
from collections.abc import Mapping
from typing import TypedDict

from embed import documents, files, ranges
from embed.errors import DataError, UsageError

_NAME = "wandb.json"


class _Kept(TypedDict):
    """What wandb.json of a run folder holds."""

    id: ranges.Text
    project: ranges.Text


def check(run_dir: pathlib.Path, project: str) -> str | None:
    """Returns the id that a run has at a project, None before its first start. Raises an error where it cannot be written there."""
    try:
        import wandb  # noqa: F401
    except ImportError as e:
        raise UsageError("--wandb needs the package wandb; run: pip install 'embed[wandb]'") from e
    path = run_dir / _NAME
    if not path.is_file():
        return None
    kept = documents.read_json(path, _Kept)
    if kept["project"] != project:
        raise DataError(
            f"{path}: the run is written to the project {kept['project']!r}, not {project!r}; give --wandb={kept['project']}"
        )
    return kept["id"]


class WeightsAndBiases:
    """A run there. wandb itself reads its key from the environment or its own files; without a network set WANDB_MODE=offline."""

    def __init__(self, run_dir: pathlib.Path, project: str):
        import wandb

        run_id = check(run_dir, project) or secrets.token_hex(8)
        files.write_json(run_dir / _NAME, {"id": run_id, "project": project})
        settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
        given = {"id": run_id, "resume": "allow", "name": run_dir.resolve().name, "dir": str(run_dir)}
        self._run = wandb.init(project=project, settings=settings, **given)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Writes the values of a step. Steps that a killed run has written already are left as they are: they are the same."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()
