"""Distinct texts on disk: read once, found again by number and by content. Memory is 40 bytes a text, however long they are."""

import dataclasses
import functools
import io
import json
import os
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from embed import files
from embed.data.text import target_id
from embed.data.texts import Text
from embed.errors import DataError

_LINES, _PLACES, _IDS, _BARE = "texts.jsonl", "places.npy", "ids.npy", "bare.npy"


@dataclasses.dataclass(frozen=True)
class Collection:
    """A folder of distinct texts in the order in which they first came."""

    folder: pathlib.Path

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """int64 [n]: the content id of each text."""
        return np.load(self.folder / _IDS, allow_pickle=False)

    @functools.cached_property
    def bare(self) -> np.ndarray:
        """int64 [n, 2]: the content ids of each text without its title, and with the title in front as one text."""
        return np.load(self.folder / _BARE, allow_pickle=False)

    @functools.cached_property
    def _places(self) -> np.ndarray:
        return np.load(self.folder / _PLACES, allow_pickle=False, mmap_mode="r")

    @functools.cached_property
    def _by_id(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.ids, kind="stable").astype(np.int32 if len(self.ids) < 1 << 31 else np.int64)
        return self.ids[order], order

    def find(self, ids: np.ndarray) -> np.ndarray:
        """Returns the numbers of texts with these content ids; one that is not there is a DataError."""
        found, order = self._by_id
        places = np.minimum(np.searchsorted(found, ids), len(found) - 1)
        if not np.array_equal(found[places], ids):
            raise DataError(f"{self.folder}: the texts changed while they were read; run the command again")
        return order[places]

    def read(self, numbers) -> list[Text]:
        """Returns some texts by their numbers."""
        texts = []
        with open(self.folder / _LINES, "rb") as f:
            for number in numbers:
                f.seek(int(self._places[number]))
                texts.append(_text(f.readline(), int(number)))
        return texts

    def __iter__(self) -> Iterator[Text]:
        with open(self.folder / _LINES, "rb") as f:
            for number, line in enumerate(f):
                yield _text(line, number)


def _text(line: bytes, number: int) -> Text:
    row = json.loads(line)
    return Text(str(number), row["text"], row["title"], row["where"])


def collect(folder: pathlib.Path, read: Callable[[], Iterator[Text]]) -> Collection:
    """Returns the distinct texts that `read()` yields, written to `folder`; it is called twice, and must yield the same."""

    def all_ids():
        for t in read():
            joined = f"{t.title} {t.text}" if t.title else t.text
            yield target_id(t.text, t.title), target_id(t.text), target_id(joined)

    all_three = np.fromiter(all_ids(), np.dtype((np.int64, 3)))
    ids = all_three[:, 0]
    first = np.unique(ids, return_index=True)[1]
    wanted = np.zeros(len(ids), bool)
    wanted[first] = True
    places = np.zeros(len(first), np.int64)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{_LINES}.tmp-{os.getpid()}"
    try:
        with open(temporary, "wb") as f:
            number = 0
            for t, is_wanted in zip(read(), wanted, strict=True):
                if is_wanted:
                    places[number] = f.tell()
                    number += 1
                    row = {"text": t.text, "title": t.title, "where": t.where}
                    f.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, folder / _LINES)
    except OSError as e:
        raise files.storage_error(folder, e) from e
    finally:
        temporary.unlink(missing_ok=True)
    for name, values in ((_PLACES, places), (_BARE, all_three[wanted, 1:]), (_IDS, ids[wanted])):
        files.write_atomic(folder / name, npy_bytes(values))
    return Collection(folder)


def npy_bytes(values: np.ndarray) -> bytes:
    """Returns an array as the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()
