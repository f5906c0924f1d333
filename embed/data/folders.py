"""Many files of pairs, each a task of its own: what a team that has a folder of files names in one line of gin."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from embed.data.tasks import Task
from embed.errors import ConfigError, did_you_mean
from embed.sources.datasets import HuggingFaceDataset
from embed.sources.image_files import ImageFiles
from embed.sources.paths import expand_paths, is_saved_dataset, is_there
from embed.sources.record_files import JsonLines, Parquet, TabSeparated

_KINDS = {
    ".jsonl": JsonLines,
    ".json": JsonLines,
    ".tsv": TabSeparated,
    ".csv": TabSeparated,
    ".parquet": Parquet,
}
# A name with one of these suffixes, in upper or lower case, is taken for a file of records.
_DATA = {*_KINDS, ".ndjson", ".jsonlines", ".arrow", ".feather", ".xlsx"}


def task_per_file(
    path: str | Sequence[str],
    fields: Mapping[str, str] | None = None,
    query_prompt: str = "query",
    target_prompt: str = "document",
    prompts: Mapping[str, Sequence[str]] | None = None,
    leave_out: Sequence[str] = (),
    only: Sequence[str] = (),
    image_paths: bool | Sequence[str] = False,
) -> list[Task]:
    """Returns one task per file that `path` names, called as the file without its suffixes.

    `path` is a file, a pattern with *, a folder, of which all files of pairs are taken, a folder of `save_to_disk`, which is one
    task, or several of these. A folder with other data in it, such as .ndjson or a folder of files, is a ConfigError.

    `fields` maps our roles to the files' fields. `prompts` gives single tasks other prompts: {task: (query, target)}.
    With `image_paths` = True the role `image` is a file path, relative to the folder of the file that names it. A list of roles
    makes each of these a path or a list of paths. Files in `leave_out` are passed over, and where `only` names some all
    others. A suffix that is no kind of pairs is a ConfigError.
    """
    # The files need not have what only our own map names.
    optional = ("negatives",) if fields is None else ()
    fields = dict(fields or {"query": "query", "target": "positive", "negatives": "negative"})
    tasks_by_file: dict[str, tuple[str, str]] = {}
    for file in _files(path):
        plain = pathlib.PurePath(file.removesuffix(".gz"))
        if plain.stem in tasks_by_file:
            raise ConfigError(f"task_per_file.path: two files are called {plain.stem!r}; rename one")
        tasks_by_file[plain.stem] = (file, plain.suffix)
    for name in (*(prompts or {}), *leave_out, *only):
        if name not in tasks_by_file:
            raise ConfigError(f"task_per_file: no file is called {name!r}{did_you_mean(name, tasks_by_file)}")
    if only and not set(only) - set(leave_out):
        raise ConfigError("task_per_file.leave_out names all that task_per_file.only names; leave some")
    tasks = []
    for name, (file, suffix) in tasks_by_file.items():
        if name in leave_out or (only and name not in only):
            continue
        query, target = (prompts or {}).get(name, (query_prompt, target_prompt))
        source = _source(file, suffix, fields, optional)
        if image_paths:
            source = ImageFiles(source, role="image" if image_paths is True else tuple(image_paths))
        tasks.append(Task(name, source, query, target))
    return tasks


def _files(path: str | Sequence[str]) -> list[str]:
    """Returns the files and saved datasets that `path` names; those of a folder are all that can be files of pairs."""
    files, others = [], []
    for one in [path] if isinstance(path, str) else path:
        folder = pathlib.Path(one)
        if is_saved_dataset(one):
            files.append(one)
        elif folder.is_dir():
            files += _files_of_folder(folder)
        else:
            others.append(one)
    return sorted([*files, *(expand_paths(others, "task_per_file.path") if others else [])])


def _files_of_folder(folder: pathlib.Path) -> list[str]:
    """Returns the files of pairs and the saved datasets of a folder. Data in it that would not be read is a ConfigError."""
    inside = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    saved = [p for p in inside if is_saved_dataset(str(p))]
    files = [p for p in inside if is_there(p)]
    pairs = [p for p in files if _suffix(p.name) in _KINDS]
    for path in files:
        if path not in pairs and not _DATA.isdisjoint(pathlib.PurePath(path.name.lower()).suffixes):
            raise ConfigError(
                f"{path}: no kind of pairs that is read ({', '.join(_KINDS)}, and each with .gz); convert it, or name the "
                f"other files, as in {folder}/*.jsonl"
            )
    for path in inside:
        if path.is_dir() and path not in saved and any(_suffix(p.name) in _KINDS for p in path.iterdir()):
            raise ConfigError(
                f"{path}: a folder of files in {folder}, whose own files alone are read; name both, or the files, as in "
                f"{folder}/*.jsonl"
            )
    if not pairs and not saved:
        raise ConfigError(f"{folder}: holds no file of pairs ({', '.join(_KINDS)}); correct task_per_file.path")
    return [str(p) for p in (*saved, *pairs)]


def _suffix(name: str) -> str:
    return pathlib.PurePath(name.removesuffix(".gz")).suffix


def _source(file: str, suffix: str, fields: Mapping[str, str], optional: Sequence[str]) -> Any:
    if is_saved_dataset(file):
        return HuggingFaceDataset(file, fields, optional=optional)
    if suffix not in _KINDS:
        raise ConfigError(f"{file}: not a kind of pairs; known: {', '.join(_KINDS)}, and each with .gz")
    return _KINDS[suffix](file, fields, optional)
