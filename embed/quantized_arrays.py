"""Arrays whose values are quantised to 4 or 8 bits: the arithmetic, and how they are packed for a file.

The arithmetic takes `xp`, which is numpy or jax.numpy, so that training rounds as files do. Values that are quantised come back to
the bit when they are quantised again: the value of largest magnitude gives its scale, and the codes follow.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from embed import ranges
from embed.errors import NumericError

CODES, SCALES = "codes", "scales"  # the two arrays that a packed one is stored as, below its own path
_PIECE = 1 << 22  # values that are packed at once
_ZERO = 8  # what is added to codes of 4 bits, which are stored without a sign


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How an array is quantised: to `bits`, with one scale for each `block_size` values along its inputs.

    `block_size` None is one scale for all inputs of an output channel. `inputs` are the axes that a linear map sums over, and
    the width of a token table; they are adjacent, and at least one other axis holds outputs. Blocks lie as in the rows of the
    matrix [outputs, inputs] of other tools.
    """

    bits: Literal[4, 8]
    block_size: ranges.Size | None
    inputs: tuple[ranges.Natural, ...]

    def num_inputs(self, shape: Sequence[int]) -> int:
        """Returns how many inputs an array of this shape has."""
        return math.prod(shape[axis] for axis in self.inputs)

    def first_output(self) -> int:
        """Returns the first axis that is no input: the first one of the stored arrays."""
        return 0 if self.inputs[0] > 0 else self.inputs[-1] + 1

    def blocked(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape with (blocks, values of a block) in the place of the inputs."""
        count = self.num_inputs(shape)
        size = self.block_size or count
        return (*shape[: self.inputs[0]], count // size, size, *shape[self.inputs[-1] + 1 :])

    def stored(self, shape: Sequence[int]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns {"codes", "scales"}: the shapes and dtypes that an array of this shape is packed into."""
        count = self.num_inputs(shape)
        outputs = tuple(size for axis, size in enumerate(shape) if axis not in self.inputs)
        codes = (-(-count // 2), np.uint8) if self.bits == 4 else (count, np.int8)
        scales = (count // (self.block_size or count), np.float16)
        return {name: ((*outputs, size), np.dtype(dtype)) for name, (size, dtype) in ((CODES, codes), (SCALES, scales))}

    def stored_bytes(self, shape: Sequence[int]) -> int:
        """Returns the bytes of an array of this shape when it is packed."""
        return sum(math.prod(size) * dtype.itemsize for size, dtype in self.stored(shape).values())


def quantize(x, scheme: Scheme, xp: Any = np) -> tuple[Any, Any, Any]:
    """Returns (codes in int8, scales in float16, which values are inside of the range) of a float array, in its blocked shape.

    4 bits in blocks are GGUF's Q4_0: the scale is the value of largest magnitude / -8, and codes go from -8 to 7; of the
    other sign, magnitudes above 7.5 scales are outside of the range. All else is symmetric: the scale is the largest
    magnitude / (2^(bits - 1) - 1), which for 8 bits in blocks of 32 is GGUF's Q8_0. Codes are found with the scale as it is
    before it is rounded to float16. Source: arXiv:2509.20354 s2.3 for the kinds; the rounding is that of ggml's reference.
    """
    blocks = x.reshape(scheme.blocked(x.shape))
    axis = scheme.inputs[0] + 1
    if scheme.bits == 4 and scheme.block_size is not None:
        largest = xp.take_along_axis(blocks, xp.argmax(xp.abs(blocks), axis, keepdims=True), axis)
        scales, reciprocals = _scales(largest / -8, xp)
        codes = xp.floor(blocks * reciprocals + 8.5) - 8
        return _integers(xp.minimum(codes, 7)), scales, codes <= 7
    steps = 2 ** (scheme.bits - 1) - 1
    largest = xp.max(xp.abs(blocks), axis, keepdims=True)
    # A divisor for each block: by a single number XLA would multiply with its reciprocal, which rounds twice.
    scales, reciprocals = _scales(largest / xp.where(largest >= 0, xp.float32(steps), largest), xp)
    scaled = blocks * reciprocals
    whole = xp.floor(xp.abs(scaled))
    codes = xp.sign(scaled) * (whole + (xp.abs(scaled) - whole >= 0.5))  # halves go away from zero
    return _integers(codes), scales, xp.ones(blocks.shape, bool)


def _integers(codes):
    """Returns codes as integers, so that no zero has a sign. What is not a number is so by its scale."""
    with np.errstate(invalid="ignore"):
        return codes.astype(np.int8)


def _scales(exact, xp) -> tuple[Any, Any]:
    """Returns scales in float16, and reciprocals of the exact ones; both are 0 where float16 has no number that small."""
    with np.errstate(over="ignore"):  # a scale that is too large is infinite, and so are its values
        scales = exact.astype(np.float16)
    is_zero = scales == 0
    return scales, xp.where(is_zero, 0, 1 / xp.where(is_zero, 1, exact))


def dequantize(codes, scales, shape: Sequence[int]):
    """Returns the float32 values of blocked codes and scales, in the array's own shape."""
    return (codes.astype(np.float32) * scales.astype(np.float32)).reshape(shape)


def rounded(x: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Returns a float32 array with its values quantised."""
    codes, scales, _ = quantize(x, scheme)
    return dequantize(codes, scales, x.shape)


def pack(x: np.ndarray, scheme: Scheme, location: str) -> dict[str, np.ndarray]:
    """Returns {"codes", "scales"} of a float32 array as they are stored, outputs first; `unpack` gives `rounded(x)` to the bit.

    Codes are int8, or two of 4 bits in a byte, each plus 8 and the first in the lower half. Values that are not finite or too
    large for scales in float16 are a NumericError that names `location`.
    """
    # By pieces: what is made on the way would else be several times as large as the array.
    axis = scheme.first_output()
    packed = [_pack_piece(x[(slice(None),) * axis + (piece,)], scheme, location) for piece in pieces(x.shape, axis)]
    return {name: np.concatenate([piece[name] for piece in packed]) for name in (CODES, SCALES)}


def pieces(shape: Sequence[int], axis: int) -> list[slice]:
    """Returns the slices of an axis that hold about four million values each."""
    size = max(1, _PIECE * shape[axis] // math.prod(shape))
    return [slice(i, min(i + size, shape[axis])) for i in range(0, shape[axis], size)]


def _pack_piece(x: np.ndarray, scheme: Scheme, location: str) -> dict[str, np.ndarray]:
    codes, scales, _ = quantize(x, scheme)
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(scales))):
        raise NumericError(
            f"{location}: holds values that are not finite, or too large for scales in float16, which ends at 65504; it cannot "
            "be quantised"
        )
    axis = scheme.inputs[0]
    codes, scales = (np.moveaxis(a, (axis, axis + 1), (-2, -1)) for a in (codes, scales))
    codes = np.ascontiguousarray(codes.reshape(*codes.shape[:-2], -1))
    return {CODES: _in_nibbles(codes) if scheme.bits == 4 else codes, SCALES: np.ascontiguousarray(scales[..., 0])}


def _in_nibbles(codes: np.ndarray) -> np.ndarray:
    """Returns codes of 4 bits two in a byte; an odd last one is alone in its byte."""
    padded = np.pad((codes + _ZERO).astype(np.uint8), [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)])
    return padded[..., 0::2] | padded[..., 1::2] << 4


def _of_nibbles(stored: np.ndarray, count: int) -> np.ndarray:
    """Returns the first `count` codes of the last axis."""
    both = np.stack([stored & 15, stored >> 4], -1).reshape(*stored.shape[:-1], 2 * stored.shape[-1])
    return both[..., :count].astype(np.int8) - np.int8(_ZERO)


def unpack(stored: Mapping[str, np.ndarray], scheme: Scheme, shape: Sequence[int]) -> np.ndarray:
    """Returns the float32 array of this shape that `pack` made `stored` of."""
    count = scheme.num_inputs(shape)
    codes = _of_nibbles(stored[CODES], count) if scheme.bits == 4 else stored[CODES]
    outputs = codes.shape[:-1]
    size = scheme.block_size or count
    blocks = codes.reshape(*outputs, count // size, size)
    inputs = tuple(shape[axis] for axis in scheme.inputs)
    values = dequantize(blocks, stored[SCALES][..., None], (*outputs, *inputs))
    behind = range(len(outputs), len(shape))
    return np.ascontiguousarray(np.moveaxis(values, behind, scheme.inputs))
