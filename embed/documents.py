"""JSON, read strictly and written in one form. Every JSON text of the project comes through here."""

import hashlib
import json
import math
import pathlib
from typing import Any

import msgspec

from embed import ranges
from embed.errors import DataError

MAX_JSON = 256 << 20  # bytes of a JSON file; the largest, the tokenizer.json of a vocabulary of 262,144, has 33 MB


def json_bytes(value) -> bytes:
    """Returns `value` as indented JSON in UTF-8, keys in their own order."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def digest_json(value) -> str:
    """Returns the hex sha256 of `value` in canonical JSON; values JSON does not know are taken by `repr`."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_json(path, kind: Any = dict, max_bytes: int = MAX_JSON) -> Any:
    """Returns the JSON value in `path`, which must be of type `kind` (a type that msgspec knows, ranges included).

    Every JSON file of the project is read here. A file that is missing, too large, not UTF-8, not JSON, or of another type,
    is a DataError of one line; so are an object with one key twice, and numbers that JSON does not know (NaN, 1e999).
    """
    path = pathlib.Path(path)
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file" if not path.exists() else f"{path}: not a file")
        size = path.stat().st_size
        if size > max_bytes:
            raise DataError(f"{path}: {size:,} bytes, more than the {max_bytes:,} that such a file may have")
        content = path.read_bytes()
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror or e}); check its permissions") from e
    return parse_json(content, str(path), kind)


def parse_json(
    content: bytes | str, location: str, kind: Any = dict, advice: str = "restore it from its source"
) -> Any:
    """Returns the value of a JSON text of type `kind`, as `read_json` does; `location` and `advice` go into the error."""
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=unique_keys, parse_constant=_refuse_constant, parse_float=_finite)
        if "\\ud" in text or "\\uD" in text:  # may be half of a surrogate pair, which UTF-8 cannot hold
            _refuse_surrogates(value)
    except RecursionError as e:
        raise DataError(f"{location}: not valid JSON (nested too deeply); {advice}") from e
    except ValueError as e:  # UnicodeDecodeError and JSONDecodeError among them
        raise DataError(f"{location}: not valid JSON ({first_line(e)}); {advice}") from e
    check(value, kind, location, advice)
    return value


def check(value: Any, kind: Any, location: str, advice: str = "restore it from its source") -> None:
    """Raises DataError, with the path inside the value, unless it is of type `kind`. A TypedDict may have more keys."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as e:
        raise DataError(f"{location}: {ranges.plain(str(e))}; {advice}") from e


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the dict of a JSON object; a key that stands twice is a ValueError, as readers disagree which one counts."""
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in an object")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _refuse_surrogates(value: Any, path: str = "") -> None:
    if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(f"{path or 'the text'} holds a lone surrogate, which UTF-8 cannot")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_surrogates(key, f"a name in {path}" if path else "a name")
            _refuse_surrogates(item, f"{path}.{key}".removeprefix("."))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _refuse_surrogates(item, f"{path}[{number}]")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def first_line(error: Exception) -> str:
    """Returns the first line of what a library says went wrong, for a message of one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
