"""What is known of the entries of a foreign folder's JSON files: honoured, without effect on vectors, or refused.

A table maps every entry that a file may have to one of these. `check` holds a file against its table, so that no entry is
ignored in silence: a value that cannot be computed with is a DataError, an entry that no table has is a printed note.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from embed.errors import DataError

_SHOWN = 8  # unknown entries that a note names; the rest are counted


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry of a JSON file.

    `honoured` entries are read by the code. Of the others, `values` are those that can be computed with, and None means
    that any value is without effect on embeddings. `advice` ends the error about other values.
    """

    honoured: bool = False
    values: tuple | None = None
    advice: str = "get a checkpoint without it"


HONOURED = Entry(honoured=True)
NO_EFFECT = Entry()


def only(*values, advice: str = Entry.advice) -> Entry:
    """Returns the entry that is refused unless it has one of `values`."""
    return Entry(values=values, advice=advice)


def table(
    honoured: Iterable[str] = (), no_effect: Iterable[str] = (), refused: Mapping[str, Entry] | None = None
) -> dict[str, Entry]:
    """Returns a table of entries by name."""
    return dict.fromkeys(honoured, HONOURED) | dict.fromkeys(no_effect, NO_EFFECT) | dict(refused or {})


def _equal(value: Any, other: Any) -> bool:
    """Returns whether two JSON values are equal; True is not 1 here."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def check(location, values: Mapping[str, Any], known: Mapping[str, Entry], prefix: str = "") -> list[str]:
    """Returns notes about the entries of `values` that are not in the table `known`.

    `location` names the file and `prefix` the object in it. A value that the table refuses is a DataError.
    """
    for name, value in values.items():
        entry = known.get(name, NO_EFFECT)
        if entry.values is not None and not any(_equal(value, v) for v in entry.values):
            shown = repr(value)
            shown = shown if len(shown) <= 120 else shown[:117] + "..."
            raise DataError(
                f"{location}: {prefix}{name} = {shown} is not supported, only {', '.join(map(repr, entry.values))}; "
                f"{entry.advice}"
            )
    unknown = [prefix + name for name in values if name not in known]
    if not unknown:
        return []
    rest = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    return [
        f"{location}: this version does not know {', '.join(unknown[:_SHOWN])}{rest}; taken to be without effect on vectors"
    ]


def whole_number(
    location, values: Mapping[str, Any], name: str, low: int, high: int, default: int | None = None
) -> int:
    """Returns the integer entry `name`; another type or a value outside `low` to `high` is a DataError.

    Raises KeyError for a missing entry without a default.
    """
    value = values[name] if default is None else values.get(name, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise DataError(
            f"{location}: {name} = {values.get(name)!r} cannot be: a whole number from {low:,} to {high:,} is needed; "
            "restore the file from its source"
        )
    return value


def real_number(
    location, values: Mapping[str, Any], name: str, low: float, high: float, default: float | None = None
) -> float:
    """Returns the entry `name` as a float above `low` and at most `high`; see `whole_number`."""
    value = values[name] if default is None else values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
        raise DataError(
            f"{location}: {name} = {values.get(name)!r} cannot be: a number above {low:g} and up to {high:g} is needed; "
            "restore the file from its source"
        )
    return float(value)


def flag(location, values: Mapping[str, Any], name: str, default: bool) -> bool:
    """Returns the entry `name`, true or false; anything else is a DataError."""
    value = values.get(name, default)
    if not isinstance(value, bool):
        raise DataError(f"{location}: {name} = {value!r} is neither true nor false; restore the file from its source")
    return value
