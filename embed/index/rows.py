"""The documents of one segment of an index: a line of JSON each, found by its number without reading the others."""

import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from embed import arrays, documents, files
from embed.errors import DataError
from embed.text import content_id

ROWS, OFFSETS, IDS = "documents.jsonl", "documents.npy", "ids.npy"
NAMES = (ROWS, OFFSETS, IDS)


def write(folder: pathlib.Path, rows: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Writes the (id, row) of the documents of a segment in the order of their vectors."""
    offsets, ids = [0], []
    with files.new_file(folder / ROWS, overwrite=True) as path, open(path, "wb") as f:
        for identity, row in rows:
            line = (json.dumps({**row, "id": identity}, ensure_ascii=False) + "\n").encode()
            f.write(line)
            offsets.append(offsets[-1] + len(line))
            ids.append(content_id(identity))
    files.write_atomic(folder / OFFSETS, arrays.npy_bytes(np.array(offsets, np.int64)))
    files.write_atomic(folder / IDS, arrays.npy_bytes(np.array(ids, np.int64)))


class Rows:
    """The documents of a segment, on disk. `ids` are `text.content_id` of their ids."""

    def __init__(self, folder: pathlib.Path):
        self._path = folder / ROWS
        self._offsets = arrays.read_npy(folder / OFFSETS, mmap=True)
        self.ids = arrays.read_npy(folder / IDS, mmap=True)
        if len(self._offsets) != len(self.ids) + 1:
            raise DataError(f"{folder / OFFSETS}: does not have the documents of {IDS}; make the index again")

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields the documents in their order, reading the file once."""
        with open(self._path, "rb") as f:
            for number in range(len(self)):
                yield self._parsed(f.read(int(self._offsets[number + 1] - self._offsets[number])), number)

    def __getitem__(self, number: int) -> dict[str, Any]:
        start, stop = map(int, self._offsets[number : number + 2])
        with open(self._path, "rb") as f:
            f.seek(start)
            return self._parsed(f.read(stop - start), number)

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        return documents.parse_json(line, f"{self._path}:{number + 1}", advice="make the index again")
