"""Approximate nearest neighbours by a graph (HNSW, arXiv:1603.09320), through usearch.

The graph gives candidates; their scores are computed from the vectors. It is for a million documents and more: below that exact
search takes a tenth of a second.
"""

import pathlib
from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np

from embed import digests, files, ranges
from embed.errors import DataError, UsageError

_BLOCK = 8192  # documents that are added at once
_FEW = 8192  # documents of a graph that one thread builds
MEASURED = 256  # documents that the recall is measured with


class Graph(TypedDict):
    """What index.json says of the graph. `texts` are the documents in it, removed ones too; `recall` is of the 10 nearest."""

    file: ranges.Text
    entry: digests.Entry
    texts: ranges.Count
    connectivity: ranges.Count
    expansion_add: ranges.Count
    expansion_search: ranges.Count
    recall: ranges.Share
    queries: ranges.Count


def _usearch() -> Any:
    try:
        import usearch.index
    except ImportError as e:
        raise UsageError("approximate search needs usearch; run: pip install 'embed[search]'") from e
    return usearch.index


def check_available() -> None:
    """Raises UsageError where usearch is not installed."""
    _usearch()


def empty(dim: int, connectivity: int, expansion_add: int, expansion_search: int) -> Any:
    """Returns a graph without documents. Vectors in it are float16, which candidates need no more than."""
    return _usearch().Index(
        ndim=dim,
        metric="ip",
        dtype="f16",
        connectivity=connectivity,
        expansion_add=expansion_add,
        expansion_search=expansion_search,
    )


def opened(path: pathlib.Path, graph: Graph, dim: int, *, to_change: bool = False) -> Any:
    """Returns the graph of a file, left on disk unless it is `to_change`. A file that is none is a DataError."""
    index = empty(dim, graph["connectivity"], graph["expansion_add"], graph["expansion_search"])
    try:
        (index.load if to_change else index.view)(str(path))
    except Exception as e:  # usearch raises RuntimeError and others
        raise DataError(
            f"{path}: usearch cannot read it ({str(e).splitlines()[0]}); build it again with --approximate"
        ) from e
    return index


def add(index: Any, vectors: Any, start: int, progress: Callable[[int], None]) -> None:
    """Adds the rows of `vectors` from number `start` on."""
    for offset in range(start, len(vectors), _BLOCK):
        block = np.asarray(vectors[offset : offset + _BLOCK])
        # Threads that add to a graph of few documents at once leave some of them without a link, where no search finds them.
        index.add(np.arange(offset, offset + len(block), dtype=np.uint64), block, threads=1 if len(index) < _FEW else 0)
        progress(len(block))


def write(index: Any, path: pathlib.Path) -> None:
    """Writes a graph; its file is there whole or not at all."""
    with files.new_file(path, overwrite=True) as temporary:
        index.save(str(temporary))


def candidates(index: Any, queries: np.ndarray, k: int) -> np.ndarray:
    """Returns the numbers [Q, k] of near documents, -1 where the graph found fewer."""
    matches = index.search(queries, min(k, len(index)))
    keys = np.atleast_2d(np.asarray(matches.keys)).astype(np.int64)
    counts = np.atleast_1d(np.asarray(getattr(matches, "counts", keys.shape[1])))
    return np.where(np.arange(keys.shape[1]) < counts[:, None], keys, -1)
