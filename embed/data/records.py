"""One encoded example as bytes: named arrays one after the other, names and types in the cache's manifest."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

from embed.errors import DataError


@dataclasses.dataclass(frozen=True)
class Field:
    """One array of a record: its name, dtype and rank."""

    name: str
    dtype: str
    rank: int


def pack(example: dict[str, np.ndarray], fields: Sequence[Field]) -> bytes:
    """Returns the arrays of `example` in the order of `fields`: all sizes as int32, then the raw little-endian values."""
    arrays = [np.asarray(example[f.name], _stored(f.dtype)) for f in fields]
    sizes = np.array([size for a in arrays for size in a.shape], "<i4")
    return sizes.tobytes() + b"".join(a.tobytes() for a in arrays)


def unpack(data: bytes, fields: Sequence[Field]) -> dict[str, np.ndarray]:
    """Returns the arrays that `pack` wrote, as read-only views of `data`. Bytes that it has not written are a DataError."""
    count = sum(f.rank for f in fields)
    sizes = np.frombuffer(data, "<i4", count).tolist() if len(data) >= 4 * count else [-1]
    if min(sizes, default=0) < 0 or _length(sizes, fields) != len(data):
        raise DataError(f"a record of {len(data)} bytes is damaged; prepare the cache again")
    offset, start, example = 4 * count, 0, {}
    for field in fields:
        shape, start = sizes[start : start + field.rank], start + field.rank
        items, dtype = math.prod(shape), _stored(field.dtype)
        values = np.frombuffer(data, dtype, items, offset)
        example[field.name] = values if field.rank == 1 else values.reshape(shape)
        offset += items * dtype.itemsize
    return example


def _length(sizes: Sequence[int], fields: Sequence[Field]) -> int:
    """Returns how many bytes a record with arrays of these sizes has."""
    length, start = 4 * len(sizes), 0
    for field in fields:
        length += math.prod(sizes[start : start + field.rank]) * _stored(field.dtype).itemsize
        start += field.rank
    return length


@functools.cache
def _stored(dtype: str) -> np.dtype:
    return np.dtype(dtype).newbyteorder("<")
