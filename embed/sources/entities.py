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

    `text`, `target` and `entities` are fields of the rows of `source`: the text, the image that it describes, and the names of its
    entities, a list or a JSON list. The entities' images are in the field `images`, in the same order, or in the table
    `entity_table` with the fields `entity_name` and `entity_image`. Every name must occur in the text as a whole word, ignoring
    case; all occurrences are replaced. Images are passed on as they are, such as URLs for `WebImages`. If `entities` is None, the
    text has its masks already, and `unmasked` is missing. With `target_in_text` the target is {target: '[MASK_0]',
    target_images: [image]}, for `MixedEmbedder`, which embeds no image outside of a text.
    """

    text: str = "text"
    target: str = "image_url"
    entities: str | None = "entities"
    images: str | None = None
    entity_table: Any = None
    entity_name: str = "name"
    entity_image: str = "image_url"
    target_in_text: bool = False

    def __post_init__(self):
        ranges.check_fields(self)
        if (self.images is None) == (self.entity_table is None):
            raise DataError("EntityQueries needs images, a field of the rows, or entity_table; give one of them")
        if self.entities is None and self.images is None:
            raise DataError(
                "EntityQueries.entity_table is looked up by the names in entities, which is None; give images, or entities"
            )

    def examples(self) -> Iterator[tuple[str, Record]]:
        """Yields (location, record)."""
        self.__dict__["_images_of"] = self._table()
        return super().examples()

    def _table(self) -> dict[str, str]:
        """Returns the image of each entity of `entity_table`; a name of two images is a DataError."""
        table: dict[str, str] = {}
        for location, raw in self.entity_table.raw() if self.entity_table is not None else ():
            name, image = (
                text_of(_field(raw, field, location), field, location)
                for field in (self.entity_name, self.entity_image)
            )
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
            raise DataError(
                f"{location}: {len(names)} entities and {len(images)} images; give one image for each entity"
            )
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
        return self.source.fingerprint() | ({} if self.entity_table is None else self.entity_table.fingerprint())


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
