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
    def identities(self) -> list[Mapping[str, Any]]:
        """What the vectors are of, as the only one of a list."""
        return [self.identity]

    @property
    def dim(self) -> int:
        """The number of values of a vector."""
        return self._vectors.shape[1]

    def __len__(self) -> int:
        return len(self._ids)

    def rows(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (bool [n], int [n]): which of the ids have a vector, and where it is."""
        rows = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return self._ids[rows] == ids, rows

    def of(self, ids: np.ndarray, name: str) -> np.ndarray:
        """Returns float32 [n, dim] for content ids int64 [n] of the feature `name`. An id without a vector is a DataError."""
        is_there, rows = self.rows(ids)
        _check(is_there, ids, name, str(self.folder))
        return self._vectors[rows].astype(np.float32)

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Returns the vectors float32 [n, dim] at some rows."""
        return self._vectors[rows].astype(np.float32)


def _check(is_there: np.ndarray, ids: np.ndarray, name: str, location: str) -> None:
    """Raises DataError with the number of ids that have no vector."""
    if not is_there.all():
        raise DataError(
            f"{location}: has no vector for {len(np.unique(ids[~is_there])):,} of {len(np.unique(ids)):,} different items of "
            f"{name!r}; write theirs too (embed encode MODEL --gin_file=... --output=...)"
        )


@dataclasses.dataclass(frozen=True)
class Union:
    """Several folders of vectors as one, such as those of the specialists of several domains.

    Shorter vectors are filled up with zeros, which changes neither cosines nor distances. An id that several folders have is
    looked up in the first of them.
    """

    stores: tuple[VectorStore, ...]

    @property
    def dim(self) -> int:
        """The number of values of the longest vectors."""
        return max(store.dim for store in self.stores)

    @property
    def identities(self) -> list[Mapping[str, Any]]:
        """What the vectors of each folder are of."""
        return [store.identity for store in self.stores]

    @property
    def digest(self) -> str:
        """The digest of all folders in their order."""
        return documents.digest_json([store.digest for store in self.stores])

    def of(self, ids: np.ndarray, name: str) -> np.ndarray:
        """Returns float32 [n, dim] as `VectorStore.of` does."""
        vectors, left = np.zeros((len(ids), self.dim), np.float32), np.ones(len(ids), bool)
        for store in self.stores:
            is_there, rows = store.rows(ids)
            taken = left & is_there
            vectors[taken, : store.dim] = store.at(rows[taken])
            left &= ~taken
        _check(~left, ids, name, ", ".join(str(store.folder) for store in self.stores))
        return vectors


def read_all(folders) -> VectorStore | Union:
    """Returns the vectors of a folder, or of several as one, verified."""
    if isinstance(folders, str):
        return read(folders)
    return Union(tuple(read(folder) for folder in folders))


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
