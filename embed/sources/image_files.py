"""Records whose images are files beside them: paths become the bytes of the files."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from embed import ranges
from embed.buckets import addresses, copies
from embed.documents import digest_json
from embed.errors import DataError
from embed.sources.derived import Derived
from embed.sources.fields import Record


@dataclasses.dataclass(frozen=True)
class ImageFiles(Derived):
    """The records of `source`, with the bytes of files in place of their paths in the role `role`, or in several of them.

    A role may hold one path or a list of them, and then it becomes one file's bytes or a list. One that is `optional` in the source
    may hold none.

    A relative path starts at `folder`, or else at the folder of the file that holds the record. `source` maps its own fields. A
    file that is not there is a bad record, which `source.on_bad_record` leaves out or makes an error. So is a damaged image, which
    the feature that reads it finds (`data.features.Feature.check_record`).
    """

    role: str | Sequence[str] = "image"
    folder: str | None = None

    def __post_init__(self):
        ranges.check_fields(self)

    def examples(self) -> Iterator[tuple[str, Record]]:
        """Yields (location, record) of the images that can be read."""
        for location, record in self.source.examples():
            try:
                contents = {role: self._contents(record, role, location) for role in self._roles}
                yield location, {**record, **contents}
            except DataError as e:
                if self.bad_records is None:
                    raise
                self.bad_records.refuse(e, was_read=True)
        self._check()

    @property
    def _roles(self) -> list[str]:
        return [self.role] if isinstance(self.role, str) else list(self.role)

    def _paths(self, record: Mapping[str, Any], role: str, location: str) -> list[pathlib.Path]:
        """Returns the paths of a record's images of one role."""
        value = record.get(role)
        if value is None and role in getattr(self.source, "optional", ()):
            return []
        listed = list(value) if isinstance(value, list | tuple) else [value]
        for path in listed:
            if not path or not isinstance(path, str):
                kind = type(path).__name__
                raise DataError(f"{location}: {role} is {kind}, expected the path of a file; map it in the source")
        folder = pathlib.Path(self.folder) if self.folder is not None else _folder_of(location)
        return [folder / path for path in listed]

    def _contents(self, record: Mapping[str, Any], role: str, location: str) -> bytes | list[bytes]:
        """Returns the bytes of the file of a role, or of its files where it holds a list."""
        contents = [self._content(path, role, location) for path in self._paths(record, role, location)]
        return contents[0] if isinstance(record.get(role), str) else contents

    def _content(self, path: pathlib.Path, role: str, location: str) -> bytes:
        try:
            return path.read_bytes()
        except OSError as e:
            reason = "no such file" if isinstance(e, FileNotFoundError) else e.strerror or type(e).__name__
            advice = "correct the path, or set ImageFiles.folder to where the images are"
            raise DataError(f"{location}: {role} {str(path)!r}: {reason}; {advice}") from e

    def fingerprint(self) -> dict[str, str]:
        """Returns that of the source, and a digest of the names and states of the images that its records name."""
        stats = {}
        for location, record in self.source.examples():
            try:
                paths = [path for role in self._roles for path in self._paths(record, role, location)]
            except DataError:  # `examples` raises it, or leaves the record out
                continue
            for path in paths:
                if path.is_file():
                    stats[str(path)] = _state(path)
        # Copies of a place in a bucket lie elsewhere on each machine.
        listed = json.loads(addresses.restored(json.dumps(sorted(stats.items()))))
        return self.source.fingerprint() | {"images": digest_json(listed)}


def _state(path: pathlib.Path) -> list:
    """Returns what changes when a file does: its size and time, or the version of its object in a bucket.

    The copies of an object on several machines have times of their own.
    """
    stat = path.stat()
    version = copies.version(path)
    return [stat.st_size, stat.st_mtime_ns if version is None else version]


def _folder_of(location: str) -> pathlib.Path:
    """Returns the folder of the file that a location 'file:line' or 'file[index]' names."""
    return copies.folder_of(re.sub(r"(:\d+|\[\d+\])$", "", location))
