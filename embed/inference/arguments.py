"""The arguments of the Python API, checked: integers, texts, paths and names of options."""

import inspect
import numbers
import os
from collections.abc import Callable, Mapping
from typing import Any

from embed.errors import UsageError, did_you_mean


def integer(value: Any, name: str, minimum: int | None = None) -> int:
    """Returns an integer argument, a numpy one as Python's. UsageError for another type, or one below `minimum`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise UsageError(f"{name} = {value!r} is {kind_of(value)}, expected an integer")
    if minimum is not None and value < minimum:
        raise UsageError(f"{name} = {value}: at least {minimum}")
    return int(value)


def text(value: Any, name: str) -> str:
    """Returns an argument that must be a text."""
    if not isinstance(value, str):
        raise UsageError(f"{name} = {value!r} is {kind_of(value)}, expected a text")
    return value


def truth(value: Any, name: str) -> bool:
    """Returns an argument that must be True or False."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} = {value!r} is {kind_of(value)}, expected True or False")
    return value


def path(value: Any, name: str) -> str:
    """Returns an argument that must be a path, as a text."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise UsageError(f"{name} = {value!r} is {kind_of(value)}, expected a path")
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


def kind_of(value: Any) -> str:
    """Returns the name of a value's type, for messages."""
    return type(value).__name__
