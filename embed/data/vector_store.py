"""Vectors of a teacher in a folder, found by content id: what a frozen model said of every text or image, computed once.

The folder holds `ids.npy`, int64 [n] in ascending order, `vectors.npy`, float32 or float16 [n, dim], and a digest manifest.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from embed import documents, files
from embed.errors import DataError

_IDS, _VECTORS, _KIND = "ids.npy", "vectors.npy", "vectors"


@dataclasses.dataclass(frozen=True)
class VectorStore:
    """A verified folder of vectors, which stay on disk until they are asked for. `identity` says what they are of."""

    folder: pathlib.Path
    digest: str
    identity: Mapping[str, Any]

    @functools.cached_property
    def _ids(self) -> np.ndarray:
        return np.load(self.folder / _IDS, allow_pickle=False)

    @functools.cached_property
    def _vectors(self) -> np.ndarray:
        return np.load(self.folder / _VECTORS, mmap_mode="r", allow_pickle=False)

    @property
    def dim(self) -> int:
        """The number of values of a vector."""
        return self._vectors.shape[1]

    def of(self, ids: np.ndarray, name: str) -> np.ndarray:
        """Returns float32 [n, dim] for content ids int64 [n] of the feature `name`. An id without a vector is a DataError."""
        rows = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        missing = self._ids[rows] != ids
        if missing.any():
            raise DataError(
                f"{self.folder}: has no vector for {len(np.unique(ids[missing])):,} of {len(np.unique(ids)):,} different texts of "
                f"{name!r}; write theirs too (embed encode MODEL --gin_file=... --output=...)"
            )
        return self._vectors[rows].astype(np.float32)


def write(
    folder, ids: np.ndarray, vectors: np.ndarray, *, identity: Mapping[str, Any] | None = None, overwrite: bool = False
) -> VectorStore:
    """Writes vectors [n, dim] under their content ids int64 [n] (`text.content_id`, `text.target_id`) as a folder.

    `identity` is JSON that says what the vectors are of, such as the teacher's digest. An id that comes twice, a number of vectors
    other than that of ids, and a value that is not finite are DataErrors.
    """
    ids, vectors = np.asarray(ids, np.int64), np.asarray(vectors)
    if vectors.ndim != 2 or ids.shape != vectors.shape[:1] or not len(ids):
        raise DataError(
            f"{folder}: ids of shape {ids.shape} for vectors of shape {vectors.shape}; give one id for each vector"
        )
    if not np.isfinite(vectors).all():
        raise DataError(f"{folder}: vector {int(np.argmin(np.isfinite(vectors).all(axis=1)))} is not finite")
    order = np.argsort(ids, kind="stable")
    if (np.diff(ids[order]) == 0).any():
        raise DataError(f"{folder}: an id comes twice; give every text one vector")
    kind = np.float16 if vectors.dtype == np.float16 else np.float32
    with files.new_folder(folder, overwrite=overwrite) as temporary:
        np.save(temporary / _IDS, ids[order], allow_pickle=False)
        np.save(temporary / _VECTORS, vectors[order].astype(kind), allow_pickle=False)
        files.write_manifest(
            temporary, kind=_KIND, vectors=len(ids), dim=vectors.shape[1], identity=dict(identity or {})
        )
    return read(folder)


def read(folder) -> VectorStore:
    """Returns the vectors of a folder, verified."""
    folder = pathlib.Path(folder)
    if not (folder / files.MANIFEST).is_file():
        raise DataError(f"{folder}: no folder of vectors; correct the path")
    manifest = files.verify_manifest(folder)
    if manifest.get("kind") != _KIND:
        raise DataError(f"{folder}: holds {manifest.get('kind')!r}, not vectors; correct the path")
    return VectorStore(folder, documents.digest_json(manifest["files"]), manifest.get("identity") or {})
