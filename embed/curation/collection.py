"""Distinct texts on disk: read once, found again by number and by content. Memory is 40 bytes a text, however long they are.

A collection is whole when its record is there, which is written last and holds the digests of its files.
"""

import array
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import TypedDict

import numpy as np

from embed import arrays, digests, documents, files, ranges
from embed.curation.positives import text_ids
from embed.errors import DataError
from embed.sources.input_texts import Text
from embed.text import target_id

RECORD = "collection.json"
_LINES, _OFFSETS, _IDS, _BARE = "texts.jsonl", "offsets.npy", "ids.npy", "bare.npy"


class _Record(TypedDict):
    """What the record of a collection holds."""

    job: str
    texts: ranges.Natural
    files: dict[str, digests.Entry]
    digest: ranges.Text


@dataclasses.dataclass(frozen=True)
class Collection:
    """A folder of distinct texts in the order in which they first came."""

    folder: pathlib.Path

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """int64 [n]: the content id of each text."""
        return arrays.read_npy(self.folder / _IDS)

    @functools.cached_property
    def bare(self) -> np.ndarray:
        """int64 [n, 2]: the content ids of each text without its title, and with the title in front as one text."""
        return arrays.read_npy(self.folder / _BARE)

    @functools.cached_property
    def _offsets(self) -> np.ndarray:
        return arrays.read_npy(self.folder / _OFFSETS, mmap=True)

    @functools.cached_property
    def _by_id(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.ids, kind="stable").astype(np.int32 if len(self.ids) < 1 << 31 else np.int64)
        return self.ids[order], order

    def find(self, ids: np.ndarray) -> np.ndarray:
        """Returns the numbers of texts with these content ids; one that is not there is a DataError."""
        sorted_ids, order = self._by_id
        indices = np.minimum(np.searchsorted(sorted_ids, ids), len(sorted_ids) - 1)
        if not np.array_equal(sorted_ids[indices], ids):
            raise DataError(f"{self.folder}: the texts changed while they were read; run the command again")
        return order[indices]

    def read(self, numbers) -> list[Text]:
        """Returns some texts by their numbers."""
        texts = []
        with open(self.folder / _LINES, "rb") as f:
            for number in numbers:
                f.seek(int(self._offsets[number]))
                texts.append(self._text(f.readline(), int(number)))
        return texts

    def __iter__(self) -> Iterator[Text]:
        with open(self.folder / _LINES, "rb") as f:
            for number, line in enumerate(f):
                yield self._text(line, number)

    def _text(self, line: bytes, number: int) -> Text:
        row = documents.parse_json(line, f"{self.folder / _LINES}:{number + 1}", dict[str, str])
        return Text(str(number), row["text"], row["title"], row["location"])


def verify(folder: pathlib.Path, job: str) -> Collection:
    """Returns the collection that `collect` wrote for this job; one that is missing or damaged is a DataError."""
    record = digests.read_sealed(folder / RECORD, _Record, "run the command again to make it anew")
    if record["job"] != job:
        raise DataError(f"{folder / RECORD}: belongs to another job; run the command again to make it anew")
    digests.check_files(folder, record["files"], "run the command again to make it anew")
    return Collection(folder)


def collect(folder: pathlib.Path, read: Callable[[], Iterator[Text]], job: str = "") -> Collection:
    """Returns the distinct texts that `read()` yields, written to `folder`; it is called twice, and must yield the same.

    `job` is kept in the record, for `verify`.
    """
    all_ids = np.fromiter((text_ids(t.text, t.title) for t in read()), np.dtype((np.int64, 3)))
    is_first = np.zeros(len(all_ids), bool)
    is_first[np.unique(all_ids[:, 0], return_index=True)[1]] = True
    (folder / RECORD).unlink(missing_ok=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        offsets = _write_lines(folder, read, all_ids[:, 0], is_first)
    except OSError as e:
        raise files.storage_error(folder, e) from e
    for name, values in ((_OFFSETS, offsets), (_BARE, all_ids[is_first, 1:]), (_IDS, all_ids[is_first, 0])):
        files.write_atomic(folder / name, arrays.npy_bytes(values))
    entries = digests.entries_of(folder, (_LINES, _OFFSETS, _BARE, _IDS))
    digests.write_sealed(folder / RECORD, {"job": job, "texts": int(is_first.sum()), "files": entries})
    return Collection(folder)


def _write_lines(folder: pathlib.Path, read: Callable[[], Iterator[Text]], ids: np.ndarray, is_first: np.ndarray):
    """Writes the texts that come first and returns where in the file each begins, in bytes: int64 [n].

    Texts that are not those of the first pass are a DataError.
    """
    offsets = array.array("q")
    temporary = folder / f".{_LINES}.tmp-{os.getpid()}"
    number = -1
    try:
        with open(temporary, "wb") as f:
            for number, text in enumerate(read()):
                if number >= len(ids) or target_id(text.text, text.title) != ids[number]:
                    raise DataError(f"{text.location}: the texts changed while they were read; run the command again")
                if is_first[number]:
                    offsets.append(f.tell())
                    row = {"text": text.text, "title": text.title, "location": text.location}
                    f.write(json.dumps(row).encode() + b"\n")
            if number + 1 != len(ids):
                raise DataError(f"{folder}: the texts changed while they were read; run the command again")
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, folder / _LINES)
    finally:
        temporary.unlink(missing_ok=True)
    return np.array(offsets, np.int64)
