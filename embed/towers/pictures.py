"""Pictures made by rule, with the vectors that our own model gives them: the part of parity.json on images.

Most have the size that the model takes, so that nothing is resized and vectors must agree to the last digits. The others are
resized, where readers round colours differently.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embed import image_bytes
from embed.errors import DataError, NumericError

FOLDER = "parity"
# The largest cosine distance of a picture that a reader resizes: one level of 255 in every colour is below it.
RESIZED_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Check:
    """A picture as it was encoded."""

    path: pathlib.Path
    is_resized: bool
    vector: np.ndarray


def drawn(size: int) -> dict[str, np.ndarray]:
    """Returns {name: uint8 [height, width, 3]}; those whose names begin with 'resized' are not squares of `size` pixels."""

    def grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        y, x = np.mgrid[0:height, 0:width]
        return y / height, x / width

    def waves(height: int, width: int, cycles: float) -> np.ndarray:
        y, x = grid(height, width)
        angles = np.stack([cycles * x, cycles * (x + y), 2 * cycles * y], -1)
        return np.uint8(127.5 + 127.5 * np.sin(2 * np.pi * angles))

    y, x = grid(size, size)
    checks = (np.floor(4 * x) + np.floor(6 * y)) % 2
    disc = ((x - 0.6) ** 2 + (y - 0.4) ** 2 < 0.08) * 1.0
    return {
        "waves": waves(size, size, 3),
        "ramps": np.uint8(255 * np.stack([x, y, 1 - x], -1)),
        "checks": np.uint8(255 * np.stack([checks, 1 - checks, checks], -1)),
        "disc": np.uint8(255 * np.stack([disc, 0.5 * disc, 0.2 + 0 * disc], -1)),
        "white": np.full((size, size, 3), 255, np.uint8),
        "resized wide": waves(size + size // 3, 2 * size, 2),
        "resized small": waves(max(2, size // 2), max(2, size // 2), 1),
    }


def write(folder: pathlib.Path, size: int, encode: Callable[[Sequence[Any]], np.ndarray]) -> list[dict[str, Any]]:
    """Writes the pictures as PNG into `folder`/parity and returns their entries; `encode(images)` is our own model's."""
    pictures = drawn(size)
    vectors = encode(list(pictures.values()))
    if not np.all(np.isfinite(vectors)):
        raise NumericError("images: the model gives vectors that are not finite; it cannot be exported")
    (folder / FOLDER).mkdir()
    entries = []
    for (name, pixels), vector in zip(pictures.items(), vectors, strict=True):
        file = f"{FOLDER}/{name.replace(' ', '_')}.png"
        (folder / file).write_bytes(image_bytes.png(pixels))
        entries.append({"file": file, "resized": name.startswith("resized"), "vector": [float(v) for v in vector]})
    return entries


def read(folder: pathlib.Path, content: Mapping[str, Any]) -> list[Check]:
    """Returns the pictures of an export; none of a model of texts alone."""
    path = folder / "parity.json"
    checks = []
    for entry in content.get("images", ()):
        name = pathlib.PurePosixPath(entry["file"])
        if name.parent != pathlib.PurePosixPath(FOLDER) or not (folder / name).is_file():
            raise DataError(f"{path}: {entry['file']!r} is no picture of the export; export the model again")
        checks.append(Check(folder / name, entry["resized"], np.array(entry["vector"], np.float32)))
    if len({check.vector.shape for check in checks}) > 1 or (checks and all(check.is_resized for check in checks)):
        raise DataError(f"{path}: images is not of this version; export the model again")
    return checks


def compare(checks: Sequence[Check], vectors: np.ndarray, tolerance: float, what: str) -> float:
    """Returns the largest difference of any number of the pictures that are not resized.

    A difference above `tolerance`, or a cosine distance above RESIZED_TOLERANCE of the others, is a NumericError that names the
    picture.
    """
    expected = np.stack([check.vector for check in checks])
    if vectors.shape != expected.shape:
        raise NumericError(
            f"{what}: images have vectors of {vectors.shape[-1]} values, expected {expected.shape[-1]}; a linear map is missing"
        )
    errors = np.abs(np.float64(vectors) - np.float64(expected)).max(-1)
    distances = 1 - np.sum(np.float64(vectors) * np.float64(expected), -1)
    for check, error, distance in zip(checks, errors, distances):
        value, allowed = (distance, RESIZED_TOLERANCE) if check.is_resized else (error, tolerance)
        if not value <= allowed:
            kind = "cosine distance" if check.is_resized else "error"
            raise NumericError(
                f"{what}: {kind} {value:.3g} above {allowed:.3g} at {check.path.name}; its vectors are not the trained model's"
            )
    return float(max(error for check, error in zip(checks, errors) if not check.is_resized))
