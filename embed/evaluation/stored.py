"""Results of earlier evaluations, read back: every value checked, and an error names the path of a wrong one inside the file.

A score that is not defined is null in the file and not a number here.
"""

import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from embed import digests, documents
from embed.errors import DataError

FORMAT = 3
_LARGEST = 1e15  # of a number: sizes, bytes and scores are below it

Check = Callable[[Any, str], Any]  # (value, its path in the file) -> the value, or _Wrong


class _Wrong(Exception):
    """A value that cannot be; the message has its path."""


def read_results(path: pathlib.Path) -> dict[str, Any]:
    """Returns the content of a results.json. Anything that `embed evaluate` does not write is a DataError of one line."""
    try:
        results = documents.read_json(path)
        if results.get("format") != FORMAT or not {"tasks", "models", "suite"} <= results.keys():
            raise DataError(f"{path}: not results that `embed evaluate` of this version wrote; run it again")
        digests.check_sealed(results, path, "restore the file, or run the evaluation again")
        results = _results(results, "")
        if not results["models"] or not results["tasks"]:
            raise _Wrong(f"{'tasks' if results['models'] else 'models'} is empty, expected at least one")
        for name, model in results["models"].items():
            _fits(name, model, results["tasks"])
    except _Wrong as e:
        raise DataError(f"{path}: {e}; restore the file, or run the evaluation again") from e
    except RecursionError as e:
        raise DataError(f"{path}: nested too deep; restore the file, or run the evaluation again") from e
    return results


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str) or any("\ud800" <= c <= "\udfff" for c in value):
        raise _Wrong(f"{at} is {_shown(value)}, expected a text")
    return value


def _name(value: Any, at: str) -> str:
    if value == "":
        raise _Wrong(f"{at} is empty, expected a name")
    return _text(value, at)


def _score(value: Any, at: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise _Wrong(f"{at} is {_shown(value)}, expected a finite number or null")
    return float(value)


def _count(value: Any, at: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
        raise _Wrong(f"{at} is {_shown(value)}, expected a whole number")
    return value


def _count_or_null(value: Any, at: str) -> int | None:
    return None if value is None else _count(value, at)


def _shown(value: Any) -> str:
    return repr(value)[:60]


def _list(item: Check, length: int | None = None) -> Check:
    def check(value: Any, at: str) -> list:
        if not isinstance(value, list) or length not in (None, len(value)):
            raise _Wrong(f"{at} is {_shown(value)}, expected a list{'' if length is None else f' of {length}'}")
        return [item(x, f"{at}[{i}]") for i, x in enumerate(value)]

    return check


def _by_name(item: Check, some: bool = False) -> Check:
    def check(value: Any, at: str) -> dict:
        if not isinstance(value, dict) or (some and not value):
            raise _Wrong(f"{at} is {_shown(value)}, expected an object{' with an entry' if some else ''}")
        return {_name(k, f"a name in {at}"): item(x, _join(at, k)) for k, x in value.items()}

    return check


def _join(at: str, name: str) -> str:
    return f"{at}.{name[:40]}" if at else name


def _plain(value: Any, at: str) -> Any:
    """A fact that no table shows: a text, a number, true, false or null."""
    if isinstance(value, list | dict) or (isinstance(value, float) and not math.isfinite(value)):
        raise _Wrong(f"{at} is {_shown(value)}, expected a text or a number")
    return _text(value, at) if isinstance(value, str) else value


def _object(
    needed: Mapping[str, Check], optional: Mapping[str, Check] | None = None, other: Check | None = None
) -> Check:
    """Returns a check of an object with the `needed` and `optional` fields; any other field goes through `other`."""
    known = {**needed, **(optional or {})}

    def check(value: Any, at: str) -> dict:
        if not isinstance(value, dict):
            raise _Wrong(f"{at or 'the file'} is {_shown(value)}, expected an object")
        for name in needed:
            if name not in value:
                raise _Wrong(f"{_join(at, name)} is missing")
        for name in value:
            if name not in known and other is None:
                raise _Wrong(f"{_join(at, name)} is not a field that results have")
        return {_text(name, f"a name in {at}"): known.get(name, other)(x, _join(at, name)) for name, x in value.items()}

    return check


def _text_or_null(value: Any, at: str) -> str | None:
    return None if value is None else _text(value, at)


_ENVIRONMENT = _object(
    {
        "embed": _text,
        "python": _text,
        "platform": _text,
        "packages": _by_name(_text_or_null),
        "devices": _object({"kind": _text, "count": _count}, other=_plain),
    },
    other=_plain,
)
_TASK = _object(
    {"type": _name, "group": _name, "main": _name, "languages": _list(_text), "notes": _list(_text)},
    {"references": _by_name(_score), "mteb_task": _name, "ceilings": _by_name(_score)},
)
_VIEW = _object({"name": _name, "dim": _count, "precision": _name, "bytes": _count})
_SCORES = _by_name(_by_name(_by_name(_score), some=True))  # task -> view -> score
_MODEL = _object(
    {"model": _text, "results": _SCORES, "means": _by_name(_by_name(_score))},
    {
        "views": _list(_VIEW),
        "intervals": _by_name(_by_name(_list(_score, 2))),
        "folder": _text,
        "digest": _text,
        "dtype": _text,
        "weights": _text,
        "weight_bytes": _count,
        "max_length": _count,
        "embedding_dim": _count,
        "texts": _object({"all": _count, "embedded_now": _count, "cut_at_max_length": _count_or_null}),
        "prompts": _by_name(_by_name(_text)),
        "data": _by_name(_text),
    },
    other=_plain,
)
_DIFFERENCE = _object(
    {"task": _name, "model": _name, "view": _name, "difference": _score, "interval": _list(_score, 2)}
)
_results = _object(
    {
        "format": _count,
        "suite": _name,
        "suite_digest": _text,
        "command": _list(_text),
        "environment": _ENVIRONMENT,
        "tasks": _by_name(_TASK),
        "models": _by_name(_MODEL),
        "samples_digest": _text,
        "digest": _text,
    },
    {
        "differences": _object({"against": _name, "rows": _list(_DIFFERENCE)}),
        "sources": _list(_object({"path": _text, "suite_digest": _text, "command": _list(_text)})),
        "remarks": _list(_text),
    },
)


def _fits(name: str, model: Mapping[str, Any], tasks: Mapping[str, Any]) -> None:
    """Raises _Wrong for a model whose tasks, views and main scores do not belong together."""
    at = _join("models", name)
    views = {view["name"]: view for view in model.get("views", ())}
    for task, by_view in model["results"].items():
        if task not in tasks:
            raise _Wrong(f"{at}.results.{task[:40]} is of a task that 'tasks' does not have")
        for view, scores in by_view.items():
            if tasks[task]["main"] not in scores:
                raise _Wrong(f"{at}.results.{task[:40]}.{view} lacks the main score {tasks[task]['main']!r}")
            if view not in model["means"]:
                raise _Wrong(f"{at}.means lacks the view {view!r}")
    for view, means in model["means"].items():
        if views and view not in views:
            raise _Wrong(f"{at}.views lacks the view {view!r}, which has means")
        if len(views) > 1 and "mean of the types" not in means:
            raise _Wrong(f"{at}.means.{view} lacks the 'mean of the types'")
    for view in views:
        if view not in model["means"]:
            raise _Wrong(f"{at}.means lacks the view {view!r}")
