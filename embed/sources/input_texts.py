"""Texts and images to encode, from files: one record after the other, with its id and where it stands."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator

from embed.buckets import copies
from embed.errors import DataError, did_you_mean
from embed.sources.fields import checked_text, identity, text_of
from embed.sources.lines import read_json_lines, read_lines
from embed.sources.record_files import Parquet
from embed.sources.tables import read_table

KINDS = (".jsonl", ".json", ".tsv", ".csv", ".txt", ".parquet")


@dataclasses.dataclass(frozen=True)
class Text:
    """One text to encode; `location` is "file:record", for errors. `images`, paths or files' bytes, are encoded with it.

    `image_digests` are the sha256 of the images' files. A text that is None is of images alone.
    """

    id: str
    text: str | None
    title: str
    location: str
    images: tuple[pathlib.Path | bytes, ...] = ()
    image_digests: tuple[str, ...] = ()


def read_texts(
    path,
    text_field: str = "text",
    id_field: str | None = None,
    title_field: str | None = None,
    titles_may_lack: bool = False,
    as_they_are: bool = False,
) -> Iterator[Text]:
    """Yields the texts of a jsonl, json, tsv, csv, txt (one a line) or parquet file; all but parquet may be .gz.

    Without `id_field` the field `id` is taken where there is one, else the number of the record from 0. Numbers as ids become
    texts. Bad records are DataErrors that name them. `titles_may_lack` lets records be without the title's field.
    Texts are cleaned, or with `as_they_are` left to the model, which normalises them as it was made to.
    """
    read = checked_text if as_they_are else text_of
    for number, (location, row) in enumerate(_rows(path)):
        for field in (text_field, id_field, None if titles_may_lack else title_field):
            if field is not None and field not in row:
                raise DataError(f"{location}: no field {field!r}{did_you_mean(field, row)}")
        title = row.get(title_field) if title_field else None
        yield Text(
            id=_identity(row, id_field, number, location),
            text=read(row[text_field], text_field, location),
            title=""
            if title is None or (isinstance(title, str) and not title.strip())
            else read(title, title_field, location),
            location=location,
        )


def read_images(path, image_field: str, text_field: str | None = None, id_field: str | None = None) -> Iterator[Text]:
    """Yields the images that the records of a file name by a path from its folder, with their text where `text_field` is given.

    A record names one image or a list of them; with a text the list may be empty. Every image is read once for its digest. One
    that is not there is a DataError that names the record.
    """
    folder = copies.folder_of(path)
    for number, (location, row) in enumerate(_rows(path)):
        for field in (image_field, text_field, id_field):
            if field is not None and field not in row:
                raise DataError(f"{location}: no field {field!r}{did_you_mean(field, row)}")
        named = row[image_field] if isinstance(row[image_field], list) else [row[image_field]]
        if not named and text_field is None:
            raise DataError(f"{location}: field {image_field!r} names no image; add one, or remove the record")
        images = tuple(folder / checked_text(name, image_field, location) for name in named)
        digests = tuple(image_digest(image, location) for image in images)
        text = None if text_field is None else checked_text(row[text_field], text_field, location)
        yield Text(_identity(row, id_field, number, location), text, "", location, images, digests)


def image_digest(image: pathlib.Path, location: str) -> str:
    """Returns the sha256 of a file."""
    try:
        with image.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise DataError(f"{location}: the image {image}: {e.strerror}; correct the path, or remove the record") from e


def _identity(row, id_field: str | None, number: int, location: str) -> str:
    """Returns the id of a record, and its number where the file has no ids."""
    if id_field is None and "id" not in row:
        return str(number)
    field = id_field or "id"
    return identity(row.get(field), field, location)


def _rows(path) -> Iterator[tuple[str, dict]]:
    path = str(path)
    kind = pathlib.PurePath(path.removesuffix(".gz")).suffix
    if kind in (".jsonl", ".json"):
        return read_json_lines(path)
    if kind in (".tsv", ".csv"):
        return read_table(path)
    if kind == ".txt":
        return ((location, {"text": line}) for location, line in read_lines(path))
    if kind == ".parquet":
        if not pathlib.Path(path).is_file():
            raise DataError(f"{path}: no such file")
        return Parquet(path).rows(path)
    raise DataError(f"{path}: not a kind of file that can be read; known: {', '.join(KINDS)}")
