"""Suites: which local files to score, as what. A suite is JSON; its paths are relative to it.

{"name": ..., "tasks": [{"name", "type", "path", ...}, ...]}

Fields of every task: `name`, `type` (a key of `readers.TYPES`), `path`; and, where they are needed, `languages`, `prompt` (name
or template), `main` (the score that stands for the task), `mteb_task`. Some types have `train_path` (classification and
regression) or `corpus_path` (xor_retrieve and xtreme_up).

`mteb_task` says which task of MTEB the data are, with a subset's name after a slash. Published scores stand beside ours, and
the task is scored by the rules that MTEB has for it. The rules can also be set without it, by MTEB's names:

* `ignore_identical_ids`: the document with the query's own id does not count (retrieval, reranking)
* `skip_first_result`: the first document of every ranking does not count (retrieval, reranking)
* `k_values`: the ranks that scores are cut at (retrieval, reranking)
* `samples_per_label`, `n_experiments`: how classifiers are trained (classification, multilabel_classification)
* `is_cross_validation`: the texts of one file are split five times (classification)
* `fraction` (MTEB's max_fraction_of_documents_to_embed) or `max_document_to_embed`, `max_documents_per_cluster`, `max_depth`
  (clustering)
* `sets`: each line is a set of sentences of its own, MTEB's older protocol (clustering); known by the file when left out
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from embed import documents, files
from embed.buckets import copies
from embed.errors import DataError, did_you_mean
from embed.evaluation import mteb_rules, readers
from embed.evaluation.tasks import Task
from embed.types import Item

_RANKED = ("retrieval", "reranking", "instruction_reranking", *readers.IMAGE_RANKED)
_LEARNED = ("classification", "multilabel_classification", "image_classification")


@dataclasses.dataclass(frozen=True)
class _Field:
    """A field of a task: its JSON type, its range, and the types of tasks that it has an effect on (none: all)."""

    kind: type
    low: float = 0
    high: float = 0
    tasks: tuple[str, ...] = ()

    def expected(self, value: Any) -> str | None:
        """Returns what was expected instead of `value`; None when it is right."""
        if self.kind is str:
            return None if isinstance(value, str) and value.strip() and _is_unicode(value) else "a text"
        if self.kind is bool:
            return None if isinstance(value, bool) else "true or false"
        if self.kind is int:
            right = isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high
            return None if right else f"a whole number from {self.low:,} to {self.high:,}"
        right = isinstance(value, int | float) and not isinstance(value, bool) and self.low < value <= self.high
        return None if right else f"a number above {self.low:g} and at most {self.high:g}"


_FIELDS = {
    **{name: _Field(str) for name in ("name", "type", "path", "prompt", "main", "mteb_task")},
    "train_path": _Field(str, tasks=(*_LEARNED, "regression")),
    "corpus_path": _Field(str, tasks=("xor_retrieve", "xtreme_up")),
    "languages": _Field(list),
    "ignore_identical_ids": _Field(bool, tasks=_RANKED),
    "skip_first_result": _Field(bool, tasks=_RANKED),
    "k_values": _Field(list, tasks=_RANKED),
    "samples_per_label": _Field(int, 1, 1_000_000, _LEARNED),
    "n_experiments": _Field(int, 1, 1000, _LEARNED),
    "is_cross_validation": _Field(bool, tasks=("classification",)),
    "fraction": _Field(float, 0, 1, ("clustering",)),
    "max_document_to_embed": _Field(int, 1, 1_000_000_000, ("clustering",)),
    "max_documents_per_cluster": _Field(int, 1, 1_000_000, ("clustering",)),
    "max_depth": _Field(int, 1, 1000, ("clustering",)),
    "sets": _Field(bool, tasks=("clustering",)),
}
_PATHS = ("path", "train_path", "corpus_path")
_MAX_K = 1000  # rankings are as long as the largest of the k_values


@dataclasses.dataclass(frozen=True)
class Suite:
    """A suite's name and its tasks with their data.

    `groups` is how each task is counted in the mean over types, `mteb_tasks` the name in MTEB of those that are there too,
    `task_digests` what decides each task's scores, beside the model.
    """

    name: str
    tasks: list[Task]
    groups: dict[str, str]
    digest: str
    mteb_tasks: dict[str, str] = dataclasses.field(default_factory=dict)
    task_digests: dict[str, str] = dataclasses.field(default_factory=dict)


def group(entry: dict) -> str:
    """Returns the type a task is counted as: retrieval with the prompt for code is code search."""
    return "code search" if entry.get("prompt") == "code retrieval" and entry["type"] == "retrieval" else entry["type"]


def read_suite(path, only: Sequence[str] | None = None) -> Suite:
    """Returns a suite. `only` picks tasks by name.

    A missing file, an unknown type and an unknown field are DataErrors, found before anything is embedded.
    """
    path = pathlib.Path(path)
    suite = documents.read_json(path)
    entries = suite.get("tasks", [])
    if not isinstance(entries, list):
        raise DataError(f"{path}: 'tasks' is {type(entries).__name__}, expected a list of tasks")
    if not entries:
        raise DataError(f"{path}: a suite without tasks; list at least one under 'tasks'")
    for field in suite:
        if field not in ("name", "tasks", "description"):
            raise DataError(
                f"{path}: a suite has no field {field!r}{did_you_mean(field, ('name', 'tasks', 'description'))}"
            )
    if _Field(str).expected(suite.get("name", path.stem)):
        raise DataError(f"{path}: 'name' is {suite['name']!r}, expected a text")
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
    ruled = [mteb_rules.apply(entry, f"{path}: task {entry['name']!r}") for entry in chosen]
    tasks = [_read(entry, remarks) for entry, remarks in ruled]
    contents = {task.name: _content(entry, task) for (entry, _), task in zip(ruled, tasks)}
    return Suite(
        suite.get("name", path.stem),
        tasks,
        {e["name"]: group(e) for e in chosen},
        documents.digest_json([part for content in contents.values() for part in content]),
        {e["name"]: e["mteb_task"] for e in chosen if "mteb_task" in e},
        {name: documents.digest_json(content) for name, content in contents.items()},
    )


def _read(entry: dict, remarks: Sequence[str]) -> Task:
    task = readers.read(entry, entry["path"])
    return dataclasses.replace(task, remarks=(*remarks, *task.remarks))


def _check(entry, path: pathlib.Path) -> None:
    lacking = {"name", "type", "path"} - (entry.keys() if isinstance(entry, dict) else set())
    if lacking:
        raise DataError(f"{path}: a task lacks {', '.join(sorted(lacking))}: {str(entry)[:80]}; complete it")
    for field, value in entry.items():
        if field not in _FIELDS:
            raise DataError(f"{path}: task {entry['name']!r} has a field {field!r}{did_you_mean(field, _FIELDS)}")
        _check_value(field, value, f"{path}: task {str(entry['name'])[:80]!r}")
    if "fraction" in entry and "max_document_to_embed" in entry:
        raise DataError(f"{path}: task {entry['name']!r} has fraction and max_document_to_embed; give one of them")


def _check_value(field: str, value: Any, task: str) -> None:
    expected = _FIELDS[field].expected(value) if _FIELDS[field].kind is not list else _expected_list(field, value)
    if expected:
        raise DataError(f"{task}: {field!r} is {str(value)[:80]!r}, expected {expected}")


def _expected_list(field: str, value: Any) -> str | None:
    items = value if isinstance(value, list) else [None]
    if field == "languages":
        return "a list of texts" if any(_Field(str).expected(x) for x in items) else None
    right = bool(items) and not any(_Field(int, 1, _MAX_K).expected(x) for x in items)
    return None if right and items == sorted(set(items)) else f"a list of rising whole numbers from 1 to {_MAX_K:,}"


def _is_unicode(text: str) -> bool:
    """Returns whether a text can be written: it holds no lone surrogate and no NUL, which ends names in files."""
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def _located(entry: dict, path: pathlib.Path) -> dict:
    """Returns the entry with its paths resolved. An unknown type and a file that is not there are DataErrors."""
    if entry["type"] not in readers.TYPES:
        raise DataError(
            f"{path}: task {entry['name']!r} has type {entry['type']!r}{did_you_mean(entry['type'], readers.TYPES)}; "
            "pick the tasks to run with --tasks"
        )
    for field in entry:
        kinds = _FIELDS[field].tasks
        if kinds and entry["type"] not in kinds:
            raise DataError(
                f"{path}: task {entry['name']!r}: {field} has no effect on {entry['type']}, only on {', '.join(kinds)}; "
                "leave it out"
            )
    located = dict(entry)
    for field in _PATHS:
        if field in entry:
            located[field] = copies.present(path.parent / entry[field])
            if not located[field].exists():
                raise DataError(f"{path}: task {entry['name']!r} needs {located[field]}, which is not there")
    return located


def _content(entry: dict, task: Task) -> list[Any]:
    """Returns what decides a task's scores: its entry, with the rules that it is scored by, and the digest of every file that it
    or its rows name."""
    content: list[Any] = []
    plain = {k: v for k, v in entry.items() if not isinstance(v, pathlib.Path)}
    for field in _PATHS:
        location = entry.get(field)
        if location is not None:
            inside = [location] if location.is_file() else sorted(p for p in location.rglob("*") if p.is_file())
            content.append([field, *[[p.name, files.sha256_file(p)] for p in inside]])
    content.append(json.dumps(plain, sort_keys=True))
    elsewhere = _images_elsewhere(task, entry["path"])
    if elsewhere:
        content.append(["images", *[[p.name, files.sha256_file(p)] for p in elsewhere]])
    return content


def _images_elsewhere(task: Task, folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files of a task's images that are not below its own folder, each once."""
    items = (item for part in task.items() for item in part.items if isinstance(item, Item))
    images = {image.resolve() for item in items for image in item.images if isinstance(image, pathlib.Path)}
    return sorted(image for image in images if not image.is_relative_to(folder.resolve()))
