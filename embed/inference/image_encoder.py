"""Images to unit vectors: opened and resized by threads while the device computes, and run in batches of few shapes."""

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from embed import sharding
from embed.data import image_values, images
from embed.errors import DataError
from embed.inference.plan import batches_of_one_size
from embed.inference.program import Function, Program, check_finite, shared
from embed.models import api
from embed.types import Model, Params

_AHEAD = 3  # batches that are opened before the device asks for them


def _images(apply: Callable[..., jax.Array], method: str) -> Function:
    return lambda params, arrays: apply(params, arrays, method=method)


def _patches(apply: Callable[..., jax.Array]) -> Function:
    return lambda params, arrays: apply(params, arrays, method="image_tokens")[1]


@dataclasses.dataclass(frozen=True)
class ImageEncoder:
    """Encodes images, resized to squares of `size` pixels, with any parameters of one model.

    `tokens_per_batch` counts patches, per shard of the batch; None is 2,048 on CPU and 32,768 elsewhere.
    """

    model: Model
    size: int
    patch_size: int
    mesh: Mesh
    tokens_per_batch: int | None = None

    @functools.cached_property
    def _program(self) -> Program:
        return Program(shared(_images, self.model.apply, "image"), self.mesh, "images")

    @functools.cached_property
    def _inserted_program(self) -> Program:
        return Program(shared(_images, self.model.apply, "inserted"), self.mesh, "images")

    @functools.cached_property
    def _patch_program(self) -> Program:
        return Program(shared(_patches, self.model.apply), self.mesh, "patches")

    @functools.cached_property
    def _value_program(self) -> Program:
        """That of the same tower whose last block attends to values alone; it has the same parameters."""
        changed = lambda tower: {**tower, "encoder": {**tower["encoder"], "attend_values": True}}  # noqa: E731
        described = self.model.description
        described = {**described, "image": changed(described["image"])} if "image" in described else changed(described)
        return Program(shared(_patches, api.build(api.from_description(described)).apply), self.mesh, "patches")

    @property
    def batch_size(self) -> int:
        """Images of a batch on all devices."""
        default = 2048 if self.mesh.devices.flat[0].platform == "cpu" else 32_768
        side = -(-self.size // self.patch_size)
        return max(1, (self.tokens_per_batch or default) // side**2) * sharding.batch_shards(self.mesh)

    def __call__(
        self,
        params: Params,
        values: Sequence[Any],
        locations: Sequence[str],
        progress: Callable[[int], None] = lambda images: None,
    ) -> np.ndarray:
        """Returns float32 unit vectors [n, E] of images in the forms of `image_values.opened`.

        What cannot be opened is a DataError that begins with its location. A vector that is not finite is a NumericError.
        """
        if not len(values):
            return np.empty((0, self.model.embedding_dim), np.float32)
        vectors = self._run(self._program, params, values, locations, progress)
        check_finite(vectors, "image")
        return vectors

    def inserted(self, params: Params, values: Sequence[Any], locations: Sequence[str]) -> np.ndarray:
        """Returns the text-tower input vectors of images, float32 [n, K, T, D].

        Entry k of axis K is for an image that its text names `[MASK_k]`; K is 1 if the number makes no difference.
        """
        return self._run(self._inserted_program, params, values, locations)

    def _run(
        self,
        program: Program,
        params: Params,
        values: Sequence[Any],
        locations: Sequence[str],
        progress: Callable[[int], None] = lambda images: None,
    ) -> np.ndarray:
        """Returns what a program gives for at least one image, in their order."""
        batches = batches_of_one_size(len(values), self.batch_size, sharding.batch_shards(self.mesh))
        parts: list[np.ndarray] = []

        def done(number: int, result: np.ndarray) -> None:
            parts.append(result[: len(batches[number][0])])

        arrays = self._arrays(values, locations, batches)
        program.run(params, arrays, done, lambda number: progress(len(batches[number][0])))
        return np.concatenate(parts)

    def patches(
        self, params: Params, values: Sequence[Any], locations: Sequence[str], *, attend_values: bool = False
    ) -> tuple[np.ndarray, int, int]:
        """Returns (float32 vectors of patches [n, P, D], rows, columns) of images, after the encoder's last norm.

        `attend_values` is that of `vit.VisionTransformer`.
        """
        program = self._value_program if attend_values else self._patch_program
        side, vectors = -(-self.size // self.patch_size), self._run(program, params, values, locations)
        if vectors.shape[1] != side * side:
            raise DataError(
                f"the encoder gives {vectors.shape[1]} patches of an image, and {side} x {side} were expected; give it patch_size"
            )
        return vectors, side, side

    def lowered(self, params: Params, height: int):
        """Returns the program for batches of so many images, lowered and not compiled."""
        return self._program.lowered(params, {"pixels": jax.ShapeDtypeStruct(self._shape(height), np.uint8)})

    def _shape(self, height: int) -> tuple[int, int, int, int]:
        return height, self.size, self.size, 3

    def _arrays(self, values, locations, batches) -> Iterator[Mapping[str, np.ndarray]]:
        """Yields the pixels of each batch, filled up with black images; those of the next ones are being opened."""

        def pixels(row: int) -> np.ndarray:
            return images.resized(image_values.opened(values[row], locations[row]), self.size)

        # Pillow holds no lock while it decodes and resizes.
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            opened: list[list[concurrent.futures.Future]] = []
            try:
                for number, (_, height) in enumerate(batches):
                    for rows, _ in batches[number + len(opened) : number + _AHEAD]:
                        opened.append([pool.submit(pixels, row) for row in rows])
                    batch = np.zeros(self._shape(height), np.uint8)
                    for row, future in enumerate(opened.pop(0)):
                        batch[row] = future.result()
                    yield {"pixels": batch}
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
