"""The nearest texts of every query, part by part, resumable and verified; neither vectors nor scores of all are held."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import TypedDict

import numpy as np

from embed import arrays, digests, files, ranges
from embed.errors import DataError
from embed.types import SearchFn

PART = 4096  # queries whose neighbours are searched together, with one pass over the corpus
_AGAIN = "run the command again to search it anew"


class _Record(TypedDict):
    """What the record of a part holds."""

    job: str
    part: ranges.Natural
    files: dict[str, digests.Entry]
    digest: ranges.Text


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """A folder with a file for each part of the queries: their neighbours' numbers and scores, best first.

    `job` says what was searched for what; a part of another job is not taken.
    """

    folder: pathlib.Path
    queries: int
    k: int
    job: str = ""

    def _path(self, part: int, suffix: str = ".npz") -> pathlib.Path:
        return self.folder / f"part-{part:05d}{suffix}"

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
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Searches the parts of this host that are not there. `queries` and `corpus` are arrays, or can be cut as arrays.

        `say` is called with a line about a part that is damaged and searched again.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise files.storage_error(self.folder, e) from e
        for part in self._parts:
            if part % hosts != host:
                continue
            start, stop = part * PART, min((part + 1) * PART, self.queries)
            if self._is_done(part, say):
                progress(stop - start, True)
                continue
            scores, numbers = search(queries[start:stop], corpus, self.k)
            files.failpoint(f"mine.before_part_{part}")
            path = self._path(part)
            files.write_atomic(path, arrays.npz_bytes(scores=scores, numbers=numbers))
            record = {"job": self.job, "part": part, "files": digests.entries_of(self.folder, [path.name])}
            digests.write_sealed(self._path(part, ".json"), record)
            progress(stop - start, False)

    def _is_done(self, part: int, say: Callable[[str], None]) -> bool:
        if not self._path(part, ".json").exists():
            return False
        try:
            self._verify(part)
        except DataError as e:
            say(f"{str(e).removesuffix(f'; {_AGAIN}')}; its queries are searched again")
            return False
        return True

    def _verify(self, part: int) -> None:
        path = self._path(part, ".json")
        record = digests.read_sealed(path, _Record, _AGAIN)
        if (record["job"], record["part"]) != (self.job, part) or set(record["files"]) != {self._path(part).name}:
            raise DataError(f"{path}: is the record of another part or job; {_AGAIN}")
        digests.check_files(self.folder, record["files"], _AGAIN)

    def __getitem__(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (scores [k], numbers [k]) of one query; its part is verified when it is read."""
        scores, numbers = self._read(query // PART)
        return scores[query % PART], numbers[query % PART]

    @functools.cached_property
    def _read(self):
        @functools.lru_cache(8)
        def read(part: int) -> tuple[np.ndarray, np.ndarray]:
            self._verify(part)
            stored = arrays.read_npz(self._path(part), ("scores", "numbers"))
            return stored["scores"], stored["numbers"]

        return read
