"""Packed arrays in a folder (`quantized_arrays`), read lazily as if they were float32.

An item of a bundle may have some of its arrays packed. MANIFEST.json lists each of them under `trees` as the float32 array that
it is read as, and under `packed` with its scheme.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embed import documents, quantized_arrays
from embed.errors import DataError
from embed.quantized_arrays import CODES, SCALES, Scheme


def schemes(manifest: Mapping[str, Any], item: str, location: Any) -> dict[str, Scheme]:
    """Returns {path: scheme} of the packed arrays of an item. A scheme that does not fit its array is a DataError."""
    packed = manifest.get("packed", {}).get(item, {})
    name = f"{location}: packed"
    documents.check(packed, dict[str, Scheme], name)
    read = {path: Scheme(s["bits"], s["block_size"], tuple(s["inputs"])) for path, s in packed.items()}
    for path, scheme in read.items():
        shape = manifest["trees"].get(item, {}).get(path, {}).get("shape", [])
        if not _fits(scheme, shape):
            raise DataError(f"{name}: {path} of the shape {shape} cannot be {packed[path]}; restore it from its source")
    return read


def _fits(scheme: Scheme, shape: Sequence[int]) -> bool:
    inputs = scheme.inputs
    is_run = bool(inputs) and list(inputs) == list(range(inputs[0], inputs[0] + len(inputs)))
    if not is_run or inputs[-1] >= len(shape) or len(inputs) == len(shape) or 0 in shape:
        return False
    return scheme.num_inputs(shape) % (scheme.block_size or 1) == 0


def describe(scheme: Scheme) -> dict[str, Any]:
    """Returns what `schemes` reads."""
    return {**dataclasses.asdict(scheme), "inputs": list(scheme.inputs)}


@dataclasses.dataclass(frozen=True)
class Packed:
    """A packed array, or one block of it (slices by axis); `codes` and `scales` are lazily read arrays.

    It is indexed and read as those are: `packed[block].read().result()`. A block is read whole along all axes but the first
    output's, and cut after it is unpacked.
    """

    codes: Any
    scales: Any
    scheme: Scheme
    shape: tuple[int, ...]
    block: tuple[slice, ...] = ()

    def __getitem__(self, block: tuple[slice, ...]) -> "Packed":
        return dataclasses.replace(self, block=block)

    @property
    def piece(self) -> tuple[int, ...]:
        """The shape of what is best read at once."""
        axis = self.scheme.first_output()
        first = quantized_arrays.pieces(self.shape, axis)[0]
        return (*self.shape[:axis], first.stop, *self.shape[axis + 1 :])

    def read(self) -> "_Reading":
        """Begins to read the block."""
        axis = self.scheme.first_output()
        part = self.block[axis] if axis < len(self.block) else slice(None)
        length = len(range(self.shape[axis])[part])
        shape = (*self.shape[:axis], length, *self.shape[axis + 1 :])
        rest = tuple(slice(None) if i == axis else s for i, s in enumerate(self.block))
        return _Reading(self.codes[part].read(), self.scales[part].read(), self.scheme, shape, rest)


@dataclasses.dataclass(frozen=True)
class _Reading:
    """A block that is being read: `codes` and `scales` are futures."""

    codes: Any
    scales: Any
    scheme: Scheme
    shape: tuple[int, ...]
    rest: tuple[slice, ...]

    def result(self) -> np.ndarray:
        """Returns the block in float32, once it has been read."""
        stored = {CODES: np.asarray(self.codes.result()), SCALES: np.asarray(self.scales.result())}
        return quantized_arrays.unpack(stored, self.scheme, self.shape)[self.rest]


def opened(stored: Mapping[str, Any], path: str, scheme: Scheme, shape: Sequence[int], location: str) -> Packed:
    """Returns the packed array `path` of lazily read arrays. DataError where those are of another shape or type."""
    parts = {name: stored[f"{path}/{name}"] for name in (CODES, SCALES)}
    for name, (size, dtype) in scheme.stored(shape).items():
        actual, kind = tuple(parts[name].shape), parts[name].dtype.numpy_dtype
        if (actual, kind) != (size, dtype):
            raise DataError(
                f"{location}: the {name} of {path} are {kind}{list(actual)}, but should be {dtype}{list(size)}; restore the folder "
                "from its source"
            )
    return Packed(parts[CODES], parts[SCALES], scheme, tuple(shape))
