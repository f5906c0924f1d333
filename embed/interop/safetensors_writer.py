"""Writes safetensors one tensor at a time, so that a model is never held in memory twice. Read back with the library."""

import json
import math
import pathlib
from collections.abc import Iterable, Mapping

import ml_dtypes
import numpy as np

DTYPES = {"float32": ("F32", np.dtype(np.float32)), "bfloat16": ("BF16", np.dtype(ml_dtypes.bfloat16))}


def write(path, shapes: Mapping[str, tuple[int, ...]], tensors: Iterable[tuple[str, np.ndarray]], dtype: str) -> None:
    """Writes `tensors`, which come in the order of `shapes`, as one file of type `dtype` ('float32' or 'bfloat16')."""
    label, kind = DTYPES[dtype]
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        size = math.prod(shape) * kind.itemsize
        header[name] = {"dtype": label, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(pathlib.Path(path), "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for (name, array), (expected, shape) in zip(tensors, shapes.items(), strict=True):
            if name != expected or array.shape != tuple(shape):
                raise ValueError(f"{name} {array.shape} came where {expected} {shape} was announced")
            f.write(np.ascontiguousarray(array, kind).tobytes())
