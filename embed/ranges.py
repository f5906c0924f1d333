"""Types with ranges, for the fields of gin files, JSON files and command-line options, and the check of a value against one.

A range is stated once, in the annotation of the field that it belongs to: `steps: Count`. `embed.config` checks what gin
files bind, `check_fields` what Python builds, `documents.read_json` what a file holds, and `embed.commands.options` what a
command is given.
"""

import collections.abc
import dataclasses
import functools
import math
import operator
import re
import types
import typing
from typing import Annotated, Any

import msgspec
import msgspec.inspect
from msgspec import Meta

from embed.errors import ConfigError

MAX_INT = (1 << 53) - 1  # the largest integer that every JSON reader keeps exact
Count = Annotated[int, Meta(ge=1, le=MAX_INT)]
Natural = Annotated[int, Meta(ge=0, le=MAX_INT)]
Size = Annotated[int, Meta(ge=1, le=1 << 24)]  # of one dimension of an array of a model
Layers = Annotated[int, Meta(ge=1, le=4096)]
_MAX_INT32 = (1 << 31) - 1
MAX_FLOAT = 3.4e38  # the largest that float32 holds, about: numbers of recipes and models become float32
Positive = Annotated[float, Meta(gt=0, le=MAX_FLOAT)]
NonNegative = Annotated[float, Meta(ge=0, le=MAX_FLOAT)]
Share = Annotated[float, Meta(ge=0, le=1)]
OpenShare = Annotated[float, Meta(gt=0, lt=1)]
Text = Annotated[str, Meta(min_length=1)]
_OF_FLAX = ("parent", "name")  # fields that every flax module has
_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a text",
    "bool": "a truth value",
    "array": "a list",
    "null": "nothing",
}
_CLASSES = (msgspec.inspect.CustomType, msgspec.inspect.DataclassType)
_PLAIN = (str, int, float, bool, list, tuple, dict, type(None))  # what gin, JSON and options can hold


def problem(value: Any, hint: Any) -> str | None:
    """Returns why `value` is not of type `hint`, e.g. 'expected an integer >= 1', or None when it is.

    Numbers must be finite. Of a union, the parts that msgspec does not know, such as a class of our own, never hold plain
    data. A hint without any part that it knows passes: its type is checked elsewhere.
    """
    path = _not_finite(value)
    if path is not None:
        return "expected a finite number" + (f" at {path}" if path else "")
    if isinstance(value, dict) and typing.get_origin(hint) is collections.abc.Mapping:
        kind = typing.get_args(hint)[1]
        reasons = ((key, problem(item, kind)) for key, item in value.items())
        return next((f"{reason} at {key!r}" for key, reason in reasons if reason), None)
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if len(options) > 1 and isinstance(value, dict):
        options = [option for option in options if typing.get_origin(option) is collections.abc.Mapping] or options
        return problem(value, options[0])
    known = [option for option in options if _is_known(option)]
    if not known or not isinstance(value, _PLAIN):
        return None
    try:
        converted = msgspec.convert(value, functools.reduce(operator.or_, known))
    except msgspec.ValidationError as e:
        return plain(str(e))
    if type(value) is int and type(converted) is float and abs(value) > _MAX_INT32:
        return f"is an integer, which JAX takes as int32; write the float {value:g}"
    return None


def plain(message: str) -> str:
    """Returns an error message of msgspec in the words of our own: 'Expected `int` >= 1 - at `$.steps[...]`' becomes
    'expected an integer >= 1 at steps[]'."""
    text, _, path = message.replace("`", "").partition(" - at ")
    text = re.sub(r"\b(int|float|str|bool|array|null)\b", lambda word: _WORDS[word[0]], text).replace(".0", "")
    path = path.removeprefix("$").removeprefix(".").replace("[...]", "[]")
    return text[:1].lower() + text[1:] + (f" at {path}" if path else "")


@functools.lru_cache(maxsize=1024)
def _is_known_cached(hint: Any) -> bool:
    try:
        return not isinstance(msgspec.inspect.type_info(hint), _CLASSES)
    except (TypeError, NotImplementedError):
        return False


def _is_known(hint: Any) -> bool:
    try:
        return _is_known_cached(hint)
    except TypeError:  # a hint that cannot be hashed
        return False


def _not_finite(value: Any, path: str = "") -> str | None:
    """Returns the path of the first number in `value` that is not finite, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        inner = _not_finite(item, f"{path}.{key}" if isinstance(value, dict) else f"{path}[{key}]")
        if inner is not None:
            return inner.removeprefix(".")
    return None


@functools.lru_cache(maxsize=256)
def hints(target: Any) -> dict[str, Any]:
    """Returns {name: annotation} of a class's fields or a function's parameters; those that cannot be read are left out."""
    try:
        return typing.get_type_hints(target, include_extras=True)
    except Exception:  # a foreign annotation that does not evaluate only means that its type goes unchecked
        return {}


def check_fields(instance: Any) -> None:
    """Raises ConfigError, naming the field, for the first field of a dataclass whose value is not of its annotated type."""
    kind = type(instance)
    for field in dataclasses.fields(instance):
        if field.name in _OF_FLAX:
            continue
        reason = problem(getattr(instance, field.name), hints(kind).get(field.name, Any))
        if reason is not None:
            raise ConfigError(f"{kind.__name__}.{field.name} = {getattr(instance, field.name)!r}: {reason}")
