"""The nearest texts of every query, part by part and resumable; neither vectors nor scores of all are held."""

import dataclasses
import functools
import io
import pathlib
from collections.abc import Callable

import numpy as np

from embed import files
from embed.types import SearchFn

PART = 4096  # queries whose neighbours are searched together, with one pass over the corpus


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """A folder with a file for each part of the queries: their neighbours' numbers and scores, best first."""

    folder: pathlib.Path
    queries: int
    k: int

    def _path(self, part: int) -> pathlib.Path:
        return self.folder / f"part-{part:05d}.npz"

    @property
    def _parts(self) -> range:
        return range(-(-self.queries // PART))

    def find(
        self,
        queries,
        corpus,
        search: SearchFn,
        host: int = 0,
        hosts: int = 1,
        progress: Callable[[int, bool], None] = lambda queries, done_before: None,
    ) -> None:
        """Searches the parts of this host that are not there. `queries` and `corpus` are arrays, or can be cut as arrays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in self._parts:
            if part % hosts != host:
                continue
            start, stop = part * PART, min((part + 1) * PART, self.queries)
            if self._path(part).is_file():
                progress(stop - start, True)
                continue
            scores, numbers = search(queries[start:stop], corpus, self.k)
            buffer = io.BytesIO()
            np.savez(buffer, scores=scores, numbers=numbers)
            files.failpoint(f"mine.before_part_{part}")
            files.write_atomic(self._path(part), buffer.getvalue())
            progress(stop - start, False)

    def __getitem__(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (scores [k], numbers [k]) of one query."""
        scores, numbers = self._read(query // PART)
        return scores[query % PART], numbers[query % PART]

    @functools.cached_property
    def _read(self):
        @functools.lru_cache(8)
        def read(part: int) -> tuple[np.ndarray, np.ndarray]:
            with np.load(self._path(part), allow_pickle=False) as found:
                return found["scores"], found["numbers"]

        return read
