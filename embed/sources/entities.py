"""Queries of a text and images of what it names, from a text that names them: MMIR (arXiv:2506.02291)."""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from embed import ranges
from embed.errors import DataError
from embed.sources.derived import Derived
from embed.sources.fields import MISSING, Record, text_of, value_at


@dataclasses.dataclass(frozen=True)
class EntityQueries(Derived):
    """Records {query, query_images, target, unmasked}: a text with `[MASK_k]` in the places of its entities, and their images.

    A raw row of `source` has the text in the field `text`, the image that it describes in `target`, and the names of its entities
    in `entities`, a list or its text in JSON. Their images are in the field `images` in the same order; or, where that is None, in
    the table `known`, whose rows have `name` and `image`. Every entity has to stand in the text, letter by letter but for case, and
    is replaced there each time. Images are what the source has of them, such as URLs for `WebImages`. Without `entities` the
    text has its masks already. With `target_in_text` the target is a text of nothing but its image, {target: '[MASK_0]',
    target_images: [image]}, for models that read images in texts alone.
    """

    text: str = "text"
    target: str = "image_url"
    entities: str | None = "entities"
    images: str | None = None
    known: Any = None
    name: str = "name"
    image: str = "image_url"
    target_in_text: bool = False

    def __post_init__(self):
        ranges.check_fields(self)
        if (self.images is None) == (self.known is None):
            raise DataError(
                "EntityQueries needs images, a field of the rows, or known, a table of entities; give one of them"
            )
        if self.entities is None and self.images is None:
            raise DataError(
                "EntityQueries.known has no effect without entities, which are looked up there; give images"
            )

    def examples(self) -> Iterator[tuple[str, Record]]:
        """Yields (location, record)."""
        self.__dict__["_images_of"] = self._table()
        return super().examples()

    def _table(self) -> dict[str, str]:
        """Returns the image of each entity of `known`; a name of two images is a DataError."""
        table: dict[str, str] = {}
        for location, raw in self.known.raw() if self.known is not None else ():
            name, image = (text_of(_field(raw, field, location), field, location) for field in (self.name, self.image))
            if table.setdefault(name, image) != image:
                raise DataError(f"{location}: the entity {name!r} has two images; leave one out")
        return table

    def record(self, raw: Mapping[str, Any], location: str) -> Record:
        """Returns the record of a raw row."""
        text = text_of(_field(raw, self.text, location), self.text, location)
        target = _field(raw, self.target, location)
        if self.entities is None:
            return {"query": text, "query_images": _listed(raw, self.images, location), **self._target(target)}
        names = _listed(raw, self.entities, location)
        images = (
            [self._image_of(n, location) for n in names] if self.images is None else _listed(raw, self.images, location)
        )
        if len(images) != len(names):
            raise DataError(f"{location}: {len(names)} entities and {len(images)} images; give each entity one")
        query = {"query": masked(text, names, location), "query_images": images, "unmasked": text}
        return {**query, **self._target(target)}

    def _target(self, image: str) -> Record:
        return {"target": "[MASK_0]", "target_images": [image]} if self.target_in_text else {"target": image}

    def _image_of(self, name: str, location: str) -> str:
        images = self.__dict__["_images_of"]
        if name not in images:
            raise DataError(
                f"{location}: the entity {name!r} is not in the table of entities; add it, or remove the row"
            )
        return images[name]

    def fingerprint(self) -> dict[str, str]:
        """Returns that of the source and of the table."""
        return self.source.fingerprint() | ({} if self.known is None else self.known.fingerprint())


def masked(text: str, names: list[str], location: str) -> str:
    """Returns a text with [MASK_k] in place of the k-th name, wherever it stands as a whole word. The longest name is replaced
    first; one that the text does not have is a DataError."""
    for number in sorted(range(len(names)), key=lambda i: -len(names[i])):
        pattern = rf"(?<!\w){re.escape(names[number])}(?!\w)"
        replaced, count = re.subn(pattern, f"[MASK_{number}]", text, flags=re.IGNORECASE)
        if not names[number] or not count:
            raise DataError(
                f"{location}: the text does not name the entity {names[number]!r}; correct it, or remove the row"
            )
        text = replaced
    return text


def _field(raw: Mapping[str, Any], field: str, location: str) -> Any:
    value = value_at(raw, field)
    if value is MISSING:
        raise DataError(f"{location}: no field {field!r}; it has {', '.join(map(str, raw))}")
    return value


def _listed(raw: Mapping[str, Any], field: str, location: str) -> list[str]:
    """Returns the texts of a field: a list, its text in JSON, or one text."""
    value = _field(raw, field, location)
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as e:
            raise DataError(f"{location}: field {field!r} holds {value[:40]!r}, which is no list in JSON ({e})") from e
    return [text_of(one, field, location) for one in (value if isinstance(value, list | tuple) else [value])]
