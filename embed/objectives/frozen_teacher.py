"""A trained image tower with its heads that teaches a smaller one and does not change.

Source: arXiv:2410.16512, arXiv:2304.07193 s5.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from embed import bundles, checkpoints, files
from embed.errors import ConfigError, DataError
from embed.models import api
from embed.types import Model, Params

IMAGE, HEADS, TOWER = "image", "heads", "model"
_MOVING, _TEACHER = "moving", "teacher"  # where a run of `image_text` saves its own teacher


@dataclasses.dataclass(frozen=True)
class FrozenTeacher:
    """The teacher of `run`, a run folder or one of its checkpoint steps, which learned `image_text.ImageText`.

    `tower` is the run's image tower, a `dual_encoder.ImageEmbedder`. Its heads have the sizes of the student's. Where the run
    averaged its tower, the average is read, which its heads belong to. A bundle holds no heads and is refused.
    """

    run: str
    tower: Any

    @functools.cached_property
    def model(self) -> Model:
        """The tower, built."""
        return api.build(self.tower)

    @property
    def width(self) -> int:
        """The size of its tokens."""
        return self.model.description["encoder"]["width"]

    @property
    def patch_size(self) -> int:
        """The side of its patches in pixels."""
        return self.model.description["encoder"]["patch_size"]

    def init(self, heads: Params) -> dict[str, Params]:
        """Returns the tower and `heads` with zeros for what `read` gives."""
        shapes = jax.eval_shape(self.model.init, jax.random.key(0))
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), {TOWER: shapes, HEADS: heads})

    def axes(self, heads: Params) -> dict[str, Any]:
        """Returns the logical axes of `init`, from those of the heads."""
        return {TOWER: self.model.axes, HEADS: heads}

    def folder(self) -> pathlib.Path:
        """Returns the checkpoint step that is read; one without heads is a DataError."""
        folder = bundles.resolve(self.run)
        if not any(path.startswith(f"{_TEACHER}/{HEADS}/") for path in _paths(folder)):
            raise DataError(
                f"{folder}: holds no heads of self-distillation, with which a teacher teaches; give FrozenTeacher.run the folder "
                "of a run of image_text.ImageText with a teacher of its own"
            )
        return folder

    def digest(self) -> str:
        """Returns what identifies the teacher."""
        return files.folder_digest(self.folder())

    def read(self, target: Params) -> dict[str, Params]:
        """Returns the tower and the heads, laid out as `target` (a tree of ShapeDtypeStruct with shardings)."""
        folder = self.folder()
        paths = _paths(folder)
        is_averaged = any(path.startswith(f"{_TEACHER}/{TOWER}/") for path in paths)
        others = tuple({path.partition("/")[0] for path in paths} - {_TEACHER})
        parts = {_TEACHER: target if is_averaged else {HEADS: target[HEADS]}}
        try:
            teacher = checkpoints.restore(folder, _MOVING, parts, without=others)[_TEACHER]
            if not is_averaged:
                images = checkpoints.restore(folder, "params", {IMAGE: target[TOWER]}, without=("text",))
                teacher = {**teacher, TOWER: images[IMAGE]}
        except DataError as e:
            raise ConfigError(f"FrozenTeacher.tower and the heads must be those of the run: {e}") from e
        return teacher


def _paths(folder: pathlib.Path) -> set[str]:
    """Returns the paths of the arrays that a run moves by a rule."""
    return set(files.read_manifest(folder).get("trees", {}).get(_MOVING, {}))
