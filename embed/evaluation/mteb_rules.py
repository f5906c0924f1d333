"""The rules by which MTEB scores each of its tasks, where they differ from those of the task's type.

mteb_rules.json is written from the installed mteb by `python launch/mteb_rules.py`; a parity test compares the two. It holds
`tasks`: our type -> MTEB's type -> names; `types`: our type -> rules of all its tasks that ours do not have by themselves;
`differ`: name -> rules by the names of a suite's fields, beside `subsets` (how many sets of texts MTEB's score is the mean of)
and `unsupported` (attributes that a suite cannot state).
"""

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from embed.errors import DataError, did_you_mean

_NO_RULES = ("subsets", "unsupported")
# The draws of these types go on from one subset of a task to the next, so that only those of the first can be known.
_DRAWN_ON = ("clustering", "multilabel_classification")
_PROMPTS = {"InstructionRetrieval": "code retrieval"}  # where MTEB's type asks for another prompt than ours does


@functools.cache
def load() -> dict[str, Any]:
    """Returns the content of mteb_rules.json."""
    return json.loads(pathlib.Path(__file__).with_name("mteb_rules.json").read_text(encoding="utf-8"))


@functools.cache
def _types() -> dict[str, tuple[str, str]]:
    """Returns {name: (our type, MTEB's type)} of every text task of MTEB."""
    return {
        name: (ours, theirs)
        for ours, kinds in load()["tasks"].items()
        for theirs, names in kinds.items()
        for name in names
    }


def apply(entry: Mapping[str, Any], task: str) -> tuple[dict[str, Any], list[str]]:
    """Returns (the entry with MTEB's rules where it has none of its own, remarks). `task` begins the messages.

    A name that MTEB does not have, a type that is not the task's, and a task with rules that a suite cannot state are
    DataErrors. A rule of the entry wins over MTEB's, and a remark says so.
    """
    if "mteb_task" not in entry:
        return dict(entry), []
    name = entry["mteb_task"].partition("/")[0]
    if name not in _types():
        raise DataError(
            f"{task}: mteb_task {name!r} is no text task of mteb {load()['mteb']}{did_you_mean(name, _types())}"
        )
    ours, theirs = _types()[name]
    rules = {**load()["types"].get(ours, {}), **load()["differ"].get(name, {})}
    for attribute, value in rules.get("unsupported", {}).items():
        raise DataError(
            f"{task}: MTEB scores {name} by its own {attribute} ({value}), which is not supported; leave out 'mteb_task' to "
            "score the files by the plain protocol"
        )
    if entry["type"] != ours:
        raise DataError(
            f"{task}: {name} is a task of type {ours!r}, not {entry['type']!r}; correct 'type' or 'mteb_task'"
        )
    filled, remarks = {"prompt": _PROMPTS[theirs], **entry} if theirs in _PROMPTS else dict(entry), []
    for field, value in rules.items():
        if field in _NO_RULES:
            continue
        if field in entry and entry[field] != value and field != "main":
            remarks.append(f"MTEB's {name} has {field} = {json.dumps(value)}, the suite {json.dumps(entry[field])}")
        elif value is not None:
            filled.setdefault(field, value)
    return _without_conflicts(filled, entry), remarks + _of_subsets(entry, name, ours, rules.get("subsets", 1))


def _without_conflicts(filled: dict[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entry without a rule of MTEB's that another rule of the suite replaces."""
    replaced = {"fraction": "max_document_to_embed", "max_document_to_embed": "fraction"}
    for field, other in replaced.items():
        if other in entry and field not in entry:
            filled.pop(field, None)
    return filled


def _of_subsets(entry: Mapping[str, Any], name: str, ours: str, subsets: int) -> list[str]:
    if subsets == 1:
        return []
    is_subset = "/" in entry["mteb_task"]
    remarks = (
        [] if is_subset else [f"MTEB's score of {name} is the mean over {subsets:,} sets of texts; this is one set"]
    )
    if ours in _DRAWN_ON:
        remarks.append(f"MTEB draws from all sets of {name} in turn; the draws here are those of its first set")
    return remarks
