"""Short texts joined into longer ones: what language modelling learns from where the data are sentences or pairs."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from embed import ranges
from embed.errors import ConfigError, DataError
from embed.sources.derived import Derived
from embed.sources.fields import MISSING, Record, text_of, value_at
from embed.text import content_id


@dataclasses.dataclass(frozen=True)
class Joined(Derived):
    """Records {'text': ...} of at least `characters` characters: texts of the raw rows of `source`, one after the other.

    `texts` are the fields of a row that hold texts, or lists of texts, in the order in which they are joined; one that a row
    lacks adds nothing. With `unique` a text that came before is left out; their ids are held in memory. What is left at the end
    is added to the last record. Fewer characters in all than one record needs are a DataError.
    """

    texts: Sequence[str] = ("text",)
    characters: ranges.Count = 2000
    separator: str = "\n"
    unique: bool = True

    def __post_init__(self):
        ranges.check_fields(self)
        if not self.texts:
            raise ConfigError("Joined.texts is empty; name the fields that hold texts")

    def examples(self) -> Iterator[tuple[str, Record]]:
        """Yields (location of the first row, record)."""
        parts: list[str] = []
        ids: set[int] = set()
        missing, size, first, complete = set(self.texts), 0, "", None
        for location, record in super().examples():
            missing -= record.keys()
            for text in (text for texts in record.values() for text in texts):
                if self.unique:
                    if (number := int(content_id(text))) in ids:
                        continue
                    ids.add(number)
                first = first if parts else location
                parts.append(text)
                size += len(text)
            if size >= self.characters:
                if complete is not None:
                    yield complete
                complete, parts, size = (first, {"text": self.separator.join(parts)}), [], 0
        if missing:
            raise DataError(
                f"Joined.texts: no row has the field {sorted(missing)[0]!r}; correct the name, or take it out"
            )
        if complete is None:
            raise DataError(
                f"Joined.characters = {self.characters}, and all texts of {', '.join(self.texts)} have {size} together; lower it"
            )
        yield complete[0], {"text": self.separator.join([complete[1]["text"], *parts])}

    def record(self, raw: Mapping[str, Any], location: str) -> Record:
        """Returns {field: its texts} of the fields that the row has."""
        values = {field: value_at(raw, field) for field in self.texts}
        return {
            field: [
                text_of(text, field, location)
                for text in (value if isinstance(value, list | tuple) else [value])
                if text is not None and not (isinstance(text, str) and not text.strip())
            ]
            for field, value in values.items()
            if value is not MISSING
        }
