"""Records whose images are files beside them: paths become the bytes of the files."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from embed import image_bytes, ranges
from embed.documents import digest_json
from embed.errors import DataError
from embed.sources.derived import Derived
from embed.sources.fields import Record


@dataclasses.dataclass(frozen=True)
class ImageFiles(Derived):
    """The records of `source`, with the bytes of a file in place of its path in the role `role`.

    A relative path starts at `folder`, or else at the folder of the file that holds the record. `source` maps its own fields. A
    file that is not there is a bad record, which `source.on_bad_record` leaves out or makes an error. Where bad records are left
    out every image is decoded too, and one that is damaged or larger than `image_bytes.MAX_PIXELS` is left out. Otherwise the
    feature that reads the image names it.
    """

    role: str = "image"
    folder: str | None = None

    def __post_init__(self):
        ranges.check_fields(self)

    def examples(self) -> Iterator[tuple[str, Record]]:
        """Yields (location, record) of the images that can be read."""
        for location, record in self.source.examples():
            try:
                yield location, {**record, self.role: self._content(record, location)}
            except DataError as e:
                if self.bad_records is None:
                    raise
                self.bad_records.refuse(e, was_read=True)
        self._check()

    def _path(self, record: Mapping[str, Any], location: str) -> pathlib.Path:
        """Returns the path of a record's image."""
        path = record.get(self.role)
        if not path or not isinstance(path, str):
            kind = type(path).__name__
            raise DataError(f"{location}: {self.role} is {kind}, expected the path of a file; map it in the source")
        return (pathlib.Path(self.folder) if self.folder is not None else _folder_of(location)) / path

    def _content(self, record: Mapping[str, Any], location: str) -> bytes:
        path = self._path(record, location)
        try:
            content = path.read_bytes()
        except OSError as e:
            reason = "no such file" if isinstance(e, FileNotFoundError) else e.strerror or type(e).__name__
            advice = "correct the path, or set ImageFiles.folder to where the images are"
            raise DataError(f"{location}: {self.role} {str(path)!r}: {reason}; {advice}") from e
        if self.bad_records is not None and self.bad_records.skips:
            image_bytes.open_image(content, f"{location}: {self.role} {str(path)!r}")
        return content

    def fingerprint(self) -> dict[str, str]:
        """Returns that of the source, and a digest of the names, sizes and times of the images that its records name."""
        stats = {}
        for location, record in self.source.examples():
            path = self._path(record, location)
            if path.is_file():
                stat = path.stat()
                stats[str(path)] = [stat.st_size, stat.st_mtime_ns]
        return self.source.fingerprint() | {"images": digest_json(sorted(stats.items()))}


def _folder_of(location: str) -> pathlib.Path:
    """Returns the folder of the file that a location 'file:line' or 'file[index]' names."""
    return pathlib.Path(re.sub(r"(:\d+|\[\d+\])$", "", location)).parent
