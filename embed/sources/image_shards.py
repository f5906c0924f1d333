"""Fetched images in tar shards, each distinct content once, and fetched.jsonl.

fetched.jsonl has a line for each URL with the location of its image or the error. An image is synced to disk before its line is
written. After a kill, what follows the last recorded image is truncated. So every line with an image names a whole one, and a URL
with a line is requested again only if its error was temporary.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import tarfile
from typing import Any, BinaryIO

from embed import documents, files
from embed.errors import DataError

_INDEX = "fetched.jsonl"
_BLOCK = tarfile.BLOCKSIZE


@dataclasses.dataclass(frozen=True)
class Entry:
    """The result for a URL: the location of its image, or the error. `retriable` marks a temporary error."""

    url: str
    sha256: str = ""
    shard: str = ""
    offset: int = 0
    size: int = 0
    reason: str = ""
    retriable: bool = False

    @property
    def is_there(self) -> bool:
        return not self.reason


class ImageShards:
    """A folder of shards of about `shard_bytes` each, open for one writer (`files.Lock` beside it). Reading writes nothing."""

    def __init__(self, folder: pathlib.Path, shard_bytes: int = 256 << 20):
        self._folder, self._shard_bytes = folder, shard_bytes
        self._file: BinaryIO | None = None
        self._index: BinaryIO | None = None
        self.entries: dict[str, Entry] = {}
        self._contents: dict[str, Entry] = {}
        self._ends: dict[str, int] = {}
        self._whole = 0  # bytes of the index in whole lines
        self._read()

    @property
    def digest(self) -> str:
        """What is there, as a sha256: which image each URL has."""
        return documents.digest_json(sorted([e.url, e.sha256] for e in self.entries.values() if e.is_there))

    def read(self, url: str) -> bytes:
        """Returns the image of a URL; one that is damaged is a DataError."""
        entry = self.entries[url]
        path = self._folder / entry.shard
        try:
            with path.open("rb") as file:
                file.seek(entry.offset)
                content = file.read(entry.size)
        except OSError as e:
            raise DataError(f"{path}: {e.strerror or e}; remove {self._folder} and fetch the images again") from e
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise DataError(
                f"{path}: the image of {url[:120]} is damaged; remove {self._folder} and fetch the images again"
            )
        return content

    def add(self, url: str, content: bytes, extension: str) -> None:
        """Keeps the image of a URL. Content that is there already is not kept twice."""
        digest = hashlib.sha256(content).hexdigest()
        known = self._contents.get(digest)
        if known is not None:
            self._write(dataclasses.replace(known, url=url))
            return
        shard = self._shard()
        file = self._opened(shard)
        member = tarfile.TarInfo(f"{digest[:32]}.{extension}")
        member.size = len(content)
        header = member.tobuf(tarfile.USTAR_FORMAT)
        start = self._ends.get(shard, 0)
        padding = -len(content) % _BLOCK
        file.seek(start)
        file.write(header + content + b"\0" * padding)
        file.flush()
        os.fsync(file.fileno())
        files.failpoint("fetch.after_image")
        self._write(Entry(url, digest, shard, start + len(header), len(content)))

    def refuse(self, url: str, reason: str, retriable: bool) -> None:
        """Keeps why a URL has no image."""
        self._write(Entry(url, reason=reason, retriable=retriable))

    def close(self) -> None:
        """Ends the last shard as a tar file ends."""
        if self._file is not None:
            shard = pathlib.Path(self._file.name).name
            self._file.seek(self._ends.get(shard, 0))
            self._file.write(b"\0" * 2 * _BLOCK)
            self._file.close()
        if self._index is not None:
            self._index.close()
        self._file = self._index = None

    def _shard(self) -> str:
        """Returns the shard that takes the next image."""
        number = max(0, len(self._ends) - 1)
        if self._ends.get(_name(number), 0) >= self._shard_bytes:
            number += 1
        return _name(number)

    def _opened(self, shard: str) -> BinaryIO:
        path = self._folder / shard
        if self._file is None or pathlib.Path(self._file.name) != path:
            self.close()
            self._folder.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._file = path.open("r+b")
            self._file.truncate(self._ends.get(shard, 0))  # what a kill left without a line, and the end of a tar file
        return self._file

    def _write(self, entry: Entry) -> None:
        """Adds a line to the index."""
        if self._index is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._index = (self._folder / _INDEX).open("ab")
            self._index.truncate(self._whole)  # a last line that a kill cut short
        line = json.dumps(dataclasses.asdict(entry), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        self._index.write(line)
        self._index.flush()
        self._whole += len(line)
        self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        self.entries[entry.url] = entry
        if entry.is_there:
            self._contents.setdefault(entry.sha256, entry)
            end = entry.offset + entry.size + -entry.size % _BLOCK
            self._ends[entry.shard] = max(self._ends.get(entry.shard, 0), end)

    def _read(self) -> None:
        """Reads the whole lines of the index."""
        path = self._folder / _INDEX
        with contextlib.suppress(FileNotFoundError):
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            for number, line in enumerate(io.BytesIO(whole), 1):
                value: dict[str, Any] = documents.parse_json(line.decode("utf-8", "replace"), f"{path}:{number}", dict)
                try:
                    entry = Entry(**value)
                except TypeError as e:
                    raise DataError(f"{path}:{number}: is no line of fetched images; restore the file") from e
                if entry.is_there and pathlib.PurePath(entry.shard).name != entry.shard:
                    raise DataError(f"{path}:{number}: names a shard outside of the folder; restore the file")
                self._keep(entry)
            self._whole = len(whole)


def _name(number: int) -> str:
    return f"images-{number:05d}.tar"
