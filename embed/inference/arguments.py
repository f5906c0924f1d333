"""The arguments of the Python API, checked: texts and titles as one list each, and what is not one said with its position."""

import inspect
import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from embed.data.text import clean
from embed.errors import DataError, UsageError, did_you_mean


def texts_of(texts: Any, name: str = "text", none: str | None = None) -> list[str]:
    """Returns texts as a list: those of a list, tuple, array or series of one dimension, or of a generator; one text alone
    as a list of one. A DataError names the position, from 0, and the type of what is no text; `none` is what None means,
    where it is allowed."""
    if isinstance(texts, str):
        return [texts]
    ndim = getattr(texts, "ndim", 1)
    if isinstance(texts, Mapping | set | frozenset | bytes | bytearray | memoryview) or not isinstance(texts, Iterable):
        raise UsageError(f"{name}s is {_kind(texts)}, expected a list of texts, or one text")
    if ndim != 1:
        raise UsageError(f"{name}s has {ndim} dimensions, expected a list of texts; give one column of it")
    items = [none if item is None else item for item in texts]
    for position, item in enumerate(items):
        if not isinstance(item, str):
            raise DataError(
                f"{name} {position} of {len(items)} is {_kind(item)}, expected a text; remove or convert it"
            )
        try:
            item.encode()
        except UnicodeEncodeError as e:
            raise DataError(
                f"{name} {position} of {len(items)} holds a lone surrogate, which no UTF-8 text can; remove it"
            ) from e
    return [str(item) for item in items]  # numpy.str_ becomes str


def titles_of(titles: Any, texts: Any, count: int) -> list[str]:
    """Returns one title for each of `count` texts, "" where there is none: None for all, or None in a place, means none."""
    if titles is None:
        return [""] * count
    if isinstance(titles, str) and not isinstance(texts, str):
        raise UsageError(
            f"titles is one text, and there are {count} texts in a list; give a list with one title per text"
        )
    titles = texts_of(titles, "title", none="")
    if len(titles) != count:
        raise DataError(f"{count} texts came with {len(titles)} titles; give one title per text, or none")
    return titles


def check_filled(texts: Sequence[str]) -> None:
    """Raises DataError, with the position, for the first text that is empty or white space alone."""
    for position, content in enumerate(texts):
        if not clean(content):
            raise DataError(f"text {position} of {len(texts)} is empty; remove it or fill it")


def integer(value: Any, name: str, minimum: int | None = None) -> int:
    """Returns an integer argument, a numpy one as Python's. UsageError for another type, or one below `minimum`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise UsageError(f"{name} = {value!r} is {_kind(value)}, expected an integer")
    if minimum is not None and value < minimum:
        raise UsageError(f"{name} = {value}: at least {minimum}")
    return int(value)


def text(value: Any, name: str) -> str:
    """Returns an argument that must be a text."""
    if not isinstance(value, str):
        raise UsageError(f"{name} = {value!r} is {_kind(value)}, expected a text")
    return value


def truth(value: Any, name: str) -> bool:
    """Returns an argument that must be True or False."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} = {value!r} is {_kind(value)}, expected True or False")
    return value


def path(value: Any, name: str) -> str:
    """Returns an argument that must be a path, as a text."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise UsageError(f"{name} = {value!r} is {_kind(value)}, expected a path")
    value = os.fspath(value)
    if not value or "\0" in value:
        raise UsageError(f"{name} = {value!r}: a path is not empty and holds no NUL")
    return value


def check_names(name: str, function: Callable, options: Mapping[str, Any]) -> None:
    """Raises UsageError for an option that `function`, known to users as `name`, has no keyword argument for."""
    known = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise UsageError(f"{name} has no option {option!r}{did_you_mean(option, known)}")


def _kind(value: Any) -> str:
    return type(value).__name__
