"""One encoded example as bytes: named arrays one after the other, names and types in the cache's manifest."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Field:
    """One array of a record: its name, dtype and rank."""

    name: str
    dtype: str
    rank: int


def pack(example: dict[str, np.ndarray], fields: Sequence[Field]) -> bytes:
    """Returns the arrays of `example` in the order of `fields`: all sizes as int32, then the raw little-endian values."""
    arrays = [np.asarray(example[f.name], np.dtype(f.dtype).newbyteorder("<")) for f in fields]
    sizes = np.array([size for a in arrays for size in a.shape], "<i4")
    return sizes.tobytes() + b"".join(a.tobytes() for a in arrays)


def unpack(data: bytes, fields: Sequence[Field]) -> dict[str, np.ndarray]:
    """Returns the arrays that `pack` wrote, as read-only views of `data`."""
    count = sum(f.rank for f in fields)
    sizes = np.frombuffer(data, "<i4", count).tolist()
    offset, example = 4 * count, {}
    for field in fields:
        shape, sizes = sizes[: field.rank], sizes[field.rank :]
        items = int(np.prod(shape, dtype=np.int64))
        dtype = np.dtype(field.dtype).newbyteorder("<")
        example[field.name] = np.frombuffer(data, dtype, items, offset).reshape(shape)
        offset += items * dtype.itemsize
    return example
