"""The documents of a corpus: texts and images of a jsonl file, each with its id and where it stands."""

import dataclasses
import math
import pathlib
from collections.abc import Iterator
from typing import Any

from embed.buckets import copies
from embed.errors import DataError, did_you_mean
from embed.sources.fields import checked_text, checked_unicode, identity
from embed.sources.lines import read_json_lines
from embed.types import Item


@dataclasses.dataclass(frozen=True)
class Document:
    """A text, an image or both. `row` is the line of the corpus, with a text or None and a title or ""; `location` is for errors.

    `id` is the row's `id` or `_id`, else "file:line" of what the row was harvested from, else where the row stands: it `has_id`
    in all cases but the last.
    """

    id: str
    row: dict[str, Any]
    image: pathlib.Path | None
    location: str
    has_id: bool

    @property
    def item(self) -> Item:
        """What is embedded."""
        images = () if self.image is None else (self.image,)
        return Item(self.row["text"], (self.row["title"] or None) if images else self.row["title"], images)


def read_corpus(path) -> Iterator[Document]:
    """Yields the documents of a jsonl or jsonl.gz file, whose rows have `text`, `image` (a path from the file's folder) or both.

    Rows may have `id` or `_id`, `title`, `file` and `line`, and others, which are kept. What is neither text nor image, an image
    that is not there, and a value that no JSON can hold, is a DataError that names the row.
    """
    path = pathlib.Path(path)
    for location, row in read_json_lines(path):
        row = _checked(row, location)
        image = row.get("image")
        if image is not None:
            image = copies.folder_of(path) / checked_text(image, "image", location)
            if not image.is_file():
                raise DataError(f"{location}: the image {image} is not there; correct the path, or remove the line")
        own_id = _id(row, location)
        yield Document(own_id or pathlib.PurePath(location).name, row, image, location, own_id is not None)


def _checked(row: dict, location: str) -> dict:
    """Returns a row with a text or an image, and a title or ""; what is neither is a DataError."""
    if "text" not in row and "image" not in row:
        raise DataError(f"{location}: no field 'text'{did_you_mean('text', row)}")
    for name, value in row.items():
        _check_value(value, name, location)
    title, has_image = row.get("title"), row.get("image") is not None
    is_titled = title is not None and not (isinstance(title, str) and not title.strip())
    text = None if has_image and row.get("text") is None else checked_text(row.get("text"), "text", location)
    return {**row, "text": text, "title": checked_text(title, "title", location) if is_titled else ""}


def _check_value(value: Any, name: str, location: str) -> None:
    """Raises DataError for what is read here and could not be read again: NaN, infinity, and half of a surrogate pair."""
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{location}: field {name!r} holds {value}, which is no JSON number; write null, or a text")
    for text in (name, value):
        if isinstance(text, str) and not text.isascii():
            checked_unicode(text, name, location)
    for key, inside in value.items() if isinstance(value, dict) else ():
        _check_value(inside, key, location)
    for inside in value if isinstance(value, list) else ():
        _check_value(inside, name, location)


def _id(row: dict, location: str) -> str | None:
    """Returns the id that a row has, or None."""
    field = "id" if row.get("id") is not None else "_id"
    if row.get(field) is not None:
        return identity(row[field], field, location)
    return f"{row['file']}:{row['line']}" if "file" in row and "line" in row else None
