"""Records whose images are URLs: `embed prepare` fetches them, and the URLs become the bytes of the files."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from embed import files, ranges
from embed.errors import DataError
from embed.sources.derived import Derived
from embed.sources.fetcher import Fetching, fetch
from embed.sources.fields import Record
from embed.sources.image_shards import ImageShards


@dataclasses.dataclass(frozen=True)
class WebImages(Derived):
    """The records of `source`, with the bytes of images in place of their URLs in the role `role`, or in several of them.

    A role may hold one URL or a list. `embed prepare` downloads missing images into `folder`: tar shards, which `sources.TarShards`
    reads too, and fetched.jsonl with the result for each URL. A killed run resumes, and URLs that failed with a temporary error are
    requested again by the next run. A record without its image is a bad record, which `source.on_bad_record` skips and counts, or
    makes an error. `fetching` is not part of what a token cache is named by, as the images are.
    """

    folder: str
    fetching: Fetching = dataclasses.field(metadata={"is_described": False})
    role: str | Sequence[str] = "image"

    def __post_init__(self):
        ranges.check_fields(self)

    @property
    def _roles(self) -> list[str]:
        return [self.role] if isinstance(self.role, str) else list(self.role)

    def fetch(self, say: Callable[[str], None] = print) -> None:
        """Fetches the images that are not in `folder` yet."""
        folder = pathlib.Path(self.folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        wait = lambda holder: say(f"fetched    waiting for {holder}, which fetches into {folder}")  # noqa: E731
        with files.Lock(folder.with_name(f".{folder.name}.fetching"), folder, wait):
            fetch(self._wanted(), ImageShards(folder), self.fetching, say)

    def _wanted(self) -> Iterator[str]:
        """Yields the URLs of all records. `examples` counts the records that have none where they should."""
        for location, record in self.source.examples():
            try:
                urls = [url for role in self._roles for url in self._urls(record, role, location)]
            except DataError:
                if self.bad_records is None or not self.bad_records.skips:
                    raise
                continue
            yield from urls

    def examples(self) -> Iterator[tuple[str, Record]]:
        """Yields (location, record) of the records whose images are there."""
        shards = ImageShards(pathlib.Path(self.folder))
        for location, record in self.source.examples():
            try:
                contents = {role: self._contents(shards, record, role, location) for role in self._roles}
            except DataError as e:
                if self.bad_records is None:
                    raise
                self.bad_records.refuse(e, was_read=True)
                continue
            yield location, {**record, **contents}
        self._check()

    def _urls(self, record: Mapping[str, Any], role: str, location: str) -> list[str]:
        value = record.get(role)
        if value is None and role in getattr(self.source, "optional", ()):
            return []
        listed = list(value) if isinstance(value, list | tuple) else [value]
        for url in listed:
            if not url or not isinstance(url, str):
                raise DataError(f"{location}: {role} is {type(url).__name__}, expected a URL; map it in the source")
        return listed

    def _contents(
        self, shards: ImageShards, record: Mapping[str, Any], role: str, location: str
    ) -> bytes | list[bytes]:
        contents = []
        for url in self._urls(record, role, location):
            entry = shards.entries.get(url)
            if entry is None:
                raise DataError(f"{location}: {url[:120]} was not fetched; run `embed prepare`")
            if not entry.is_there:
                raise DataError(f"{location}: {url[:120]}: {entry.reason}; correct the URL, or remove the record")
            contents.append(shards.read(url))
        return contents[0] if isinstance(record.get(role), str) else contents

    def fingerprint(self) -> dict[str, str]:
        """Returns that of the source, and a digest of the images that are there."""
        return self.source.fingerprint() | {"images": ImageShards(pathlib.Path(self.folder)).digest}
