"""Tar shards of images with their captions, as WebDataset and img2dataset write them."""

import contextlib
import dataclasses
import gzip
import pathlib
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from embed.documents import first_line, parse_json
from embed.errors import DataError
from embed.sources.record_files import Files

IMAGES = ("avif", "bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp")
_TEXTS = ("txt", "text", "transcript", "cls", "label")
_BLOCK = 512  # bytes; a tar file ends with blocks of zeros


@dataclasses.dataclass(frozen=True)
class TarShards(Files):
    """Tar files, also .tar.gz, whose members are grouped by their names: `000017.jpg`, `000017.txt` and `000017.json` are a record.

    Up to the first dot a member's name is the key of its record, and what follows is the field: `txt` a text, `json` an object,
    into which fields may reach (`json.caption`), anything else bytes. The field `image` is the image, whichever extension it has,
    and `__key__` the key. The members of a record lie together, as the writers of such files do it. Nothing is unpacked to disk.

    A shard that is cut short is an error at its last record; with `on_bad_record` 'skip' its whole records are kept, and what is
    cut counts as one bad record.
    """

    def rows(self, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields ("shard:key", {field: value}) in the order of the shard."""
        keys: set[str] = set()
        members: dict[str, Any] = {}
        key = None
        try:
            for name, content in _members(path):
                next_key, field = _split(name, path)
                if next_key != key:
                    if key is not None:
                        yield from self._row(path, key, members)
                    if next_key in keys:
                        raise _Apart(
                            f"{path}:{next_key}: members of one record lie apart; write the shard again, sorted by name"
                        )
                    keys.add(next_key)
                    key, members = next_key, {}
                if field in members:
                    raise _Apart(f"{path}:{next_key}: has two members .{field}; write the shard again")
                members[field] = content
        except _CutShort as e:
            # The record that was being read may lack members.
            self.bad_records.refuse(DataError(f"{path}{'' if key is None else f':{key}'}: {e}; fetch it again"))
            return
        except _Apart as e:
            raise DataError(str(e)) from e
        if key is not None:
            yield from self._row(path, key, members)

    def _row(self, path: str, key: str, members: Mapping[str, bytes]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields the record of the members of one key; a bad one is refused."""
        location = f"{path}:{key}"
        try:
            yield location, {"__key__": key, **_image(members, location), **_values(members, location)}
        except DataError as e:
            self.bad_records.refuse(e)


class _CutShort(Exception):
    """A shard ends within a member, or without the blocks that end a tar file."""


class _Apart(Exception):
    """The members of a shard are not in the order of records."""


def _split(name: str, path: str) -> tuple[str, str]:
    """Returns the key and the field of a member."""
    folder, _, base = name.rpartition("/")
    stem, dot, field = base.partition(".")
    if not stem or not dot:
        raise _Apart(f"{path}: the member {name!r} has no extension; its name must be KEY.EXTENSION")
    return f"{folder}/{stem}" if folder else stem, field.lower()


def _image(members: Mapping[str, bytes], location: str) -> dict[str, bytes]:
    """Returns {"image": bytes} where a record has an image; several are a DataError."""
    fields = [field for field in members if field in IMAGES]
    if len(fields) > 1:
        raise DataError(
            f"{location}: has several images ({', '.join(fields)}); map the field of one of them in another shard"
        )
    return {"image": members[fields[0]]} if fields and "image" not in members else {}


def _values(members: Mapping[str, bytes], location: str) -> dict[str, Any]:
    """Returns the values of a record's members."""
    values: dict[str, Any] = {}
    for field, content in members.items():
        last = field.rpartition(".")[2]
        if last == "json":
            values[field] = parse_json(content, f"{location}.{field}", advice="write the shard again")
        elif last in _TEXTS:
            try:
                values[field] = content.decode("utf-8")
            except UnicodeDecodeError as e:
                raise DataError(f"{location}.{field}: not valid UTF-8 at byte {e.start}; convert it to UTF-8") from e
        else:
            values[field] = content
    return values


def _members(path: str) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of a tar's files; one that is cut short is a _CutShort, and links and devices a DataError."""
    try:
        with contextlib.ExitStack() as opened:
            file = _Counted(opened.enter_context(_stream(path)))
            archive = opened.enter_context(tarfile.open(fileobj=file, mode="r|"))
            for member in archive:
                if member.isdir():
                    continue
                if not member.isfile():
                    raise DataError(f"{path}: the member {member.name!r} is a link or a device; write the shard again")
                content = archive.extractfile(member).read()
                if len(content) != member.size:
                    raise _CutShort(f"cut short in the member {member.name!r}")
                yield member.name, content
            # The package also reads a tar whose last members are missing.
            if file.size() < archive.offset + _BLOCK:
                raise _CutShort("cut short: the blocks that end a tar file are missing")
    except (tarfile.ReadError, EOFError) as e:
        if "not a" in str(e) or "invalid header" in str(e) or "bad checksum" in str(e):
            raise DataError(f"{path}: not a readable tar file ({first_line(e)}); fetch it again") from e
        raise _CutShort(f"cut short ({first_line(e) or 'end of file'})") from e
    except (OSError, tarfile.TarError, gzip.BadGzipFile) as e:
        raise DataError(f"{path}: not a readable tar file ({first_line(e)}); fetch it again") from e


def _stream(path: str) -> BinaryIO:
    with pathlib.Path(path).open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if is_gzip else pathlib.Path(path).open("rb")  # noqa: SIM115


class _Counted:
    """A file that counts what was read of it."""

    def __init__(self, file: BinaryIO):
        self._file, self._count = file, 0

    def read(self, size: int = -1) -> bytes:
        """Returns the next bytes."""
        content = self._file.read(size)
        self._count += len(content)
        return content

    def size(self) -> int:
        """Returns the size of the whole file, after reading its rest."""
        while self.read(1 << 20):
            pass
        return self._count
