"""What the readers of all types of tasks share: parts of a folder, texts that may be empty, numbers."""

import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from embed.errors import DataError, did_you_mean
from embed.sources.fields import checked_text
from embed.text import clean

Entry = Mapping[str, Any]  # a task of a suite


def part(folder: pathlib.Path, what: str, *names: str) -> str:
    """Returns the path of the first of `names` in a folder, plain or with .gz. `what` says what the folder must hold."""
    for name in names:
        for suffix in ("", ".gz"):
            if (folder / (name + suffix)).is_file():
                return str(folder / (name + suffix))
    raise DataError(f"{folder}: has no {' or '.join(names)} (.gz); {what}")


def text_or_empty(value: Any, field: str, location: str) -> str:
    """Returns the cleaned text of a field, which may be empty: MTEB embeds empty texts. Anything but a text is a DataError."""
    return "" if isinstance(value, str) and not clean(value) else checked_text(value, field, location)


def column(row: Mapping[str, Any], name: str, location: str) -> Any:
    """Returns the cell of a column; a column that the table does not have is a DataError."""
    if name not in row:
        raise DataError(f"{location}: no column {name!r}{did_you_mean(name, row)}")
    return row[name]


def label_of(value: Any, location: str) -> str:
    """Returns a label as a text. Equal numbers are one label however they are written, as in scikit-learn: 1, 1.0 and true."""
    if isinstance(value, bool | int):
        return str(int(value))
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else str(value)
    if not isinstance(value, str):
        raise DataError(f"{location}: a label is {value!r}, expected a text or a number; correct the line")
    return value


def remark_of_empty(what: str, texts: Iterable[str]) -> list[str]:
    """Returns the remark that some texts are empty; none when none is."""
    number = sum(not text for text in texts)
    return [f"{number} {what} are empty; they are embedded as empty texts, as in MTEB"] if number else []


def some(rows: list, path) -> list:
    """Returns the rows; none at all is a DataError."""
    if not rows:
        raise DataError(f"{path}: nothing in it; correct the suite")
    return rows


def finite(text: str) -> float:
    """Returns a number; raises ValueError for any that is not finite, and for the underscores of Python's own notation."""
    if isinstance(text, str) and "_" in text:
        raise ValueError(f"it is {text}")
    if not math.isfinite(float(text)):
        raise ValueError(f"it is {text}")
    return float(text)
