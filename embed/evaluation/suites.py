"""Suites: which local files to score, as what. A suite is JSON; its paths are relative to it.

{"name": ..., "tasks": [{"name", "type", "path", "languages"?, "prompt"?, "main"?, "train_path"?, "corpus_path"?,
"samples_per_label"?, "fraction"?, "mteb_task"?}]}

`mteb_task` says which task of MTEB the data are, so that published scores of it can stand beside ours.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from embed import files
from embed.errors import DataError, did_you_mean
from embed.evaluation import readers
from embed.evaluation.tasks import Task

_FIELDS = {
    "name", "type", "path", "languages", "prompt", "main", "train_path", "corpus_path", "samples_per_label", "fraction",
    "mteb_task",
}  # fmt: skip

_TEXTS = {"name", "type", "path", "prompt", "main", "train_path", "corpus_path", "mteb_task"}


@dataclasses.dataclass(frozen=True)
class Suite:
    """A suite's name and its tasks with their data.

    `groups` is how each task is counted in the mean over types, `mteb_tasks` the name in MTEB of those that are there too.
    """

    name: str
    tasks: list[Task]
    groups: dict[str, str]
    digest: str
    mteb_tasks: dict[str, str] = dataclasses.field(default_factory=dict)


def group(entry: dict) -> str:
    """Returns the type a task is counted as: retrieval with the prompt for code is code search."""
    return "code search" if entry.get("prompt") == "code retrieval" and entry["type"] == "retrieval" else entry["type"]


def read_suite(path, only: Sequence[str] | None = None) -> Suite:
    """Returns a suite. `only` picks tasks by name.

    A missing file, an unknown type and an unknown field are DataErrors, found before anything is embedded.
    """
    path = pathlib.Path(path)
    suite = files.read_json(path)
    entries = suite.get("tasks", [])
    if not isinstance(entries, list):
        raise DataError(f"{path}: 'tasks' is {type(entries).__name__}, expected a list of tasks")
    if not entries:
        raise DataError(f"{path}: a suite without tasks; list at least one under 'tasks'")
    for entry in entries:
        _check(entry, path)
    names = [e["name"] for e in entries]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path}: two tasks are called {name!r}; give each its own name")
    for name in only or ():
        if name not in names:
            raise DataError(f"{path}: no task {name!r}{did_you_mean(name, names)}")
    chosen = [_located(e, path) for e in entries if only is None or e["name"] in only]
    tasks = [readers.read(entry, entry["path"]) for entry in chosen]
    return Suite(
        suite.get("name", path.stem),
        tasks,
        {e["name"]: group(e) for e in chosen},
        _digest(chosen),
        {e["name"]: e["mteb_task"] for e in chosen if "mteb_task" in e},
    )


def _check(entry, path: pathlib.Path) -> None:
    lacking = {"name", "type", "path"} - (entry.keys() if isinstance(entry, dict) else set())
    if lacking:
        raise DataError(f"{path}: a task lacks {', '.join(sorted(lacking))}: {str(entry)[:80]}; complete it")
    for field in entry:
        if field not in _FIELDS:
            raise DataError(f"{path}: task {entry['name']!r} has a field {field!r}{did_you_mean(field, _FIELDS)}")
    for field in _TEXTS & entry.keys():
        if not isinstance(entry[field], str):
            raise DataError(f"{path}: a task's {field!r} is {entry[field]!r}, expected a text")
    languages = entry.get("languages", [])
    if not isinstance(languages, list) or not all(isinstance(x, str) for x in languages):
        raise DataError(f"{path}: task {entry['name']!r}: 'languages' is {languages!r}, expected a list of texts")


def _located(entry: dict, path: pathlib.Path) -> dict:
    """Returns the entry with its paths resolved. An unknown type and a file that is not there are DataErrors."""
    if entry["type"] not in readers.TYPES:
        raise DataError(
            f"{path}: task {entry['name']!r} has type {entry['type']!r}{did_you_mean(entry['type'], readers.TYPES)}; "
            "pick the tasks to run with --tasks"
        )
    found = dict(entry)
    for field in ("path", "train_path", "corpus_path"):
        if field in entry:
            found[field] = path.parent / entry[field]
            if not found[field].exists():
                raise DataError(f"{path}: task {entry['name']!r} needs {found[field]}, which is not there")
    return found


def _digest(entries: Sequence[dict]) -> str:
    """Returns one digest of the entries and of every file they name."""
    content = []
    for entry in entries:
        plain = {k: v for k, v in entry.items() if not isinstance(v, pathlib.Path)}
        for field in ("path", "train_path", "corpus_path"):
            where = entry.get(field)
            if where is not None:
                inside = [where] if where.is_file() else sorted(p for p in where.rglob("*") if p.is_file())
                content.append([field, *[[p.name, files.sha256_file(p)] for p in inside]])
        content.append(json.dumps(plain, sort_keys=True))
    return files.digest_json(content)
