"""Many files of pairs, each a task of its own: what a team that has a folder of files names in one line of gin."""

import pathlib
from collections.abc import Mapping, Sequence

from embed.data.sources import JsonLines, Parquet, TabSeparated, expand_paths
from embed.data.tasks import Task
from embed.errors import ConfigError, did_you_mean

_KINDS = {
    ".jsonl": JsonLines,
    ".json": JsonLines,
    ".tsv": TabSeparated,
    ".csv": TabSeparated,
    ".parquet": Parquet,
}


def task_per_file(
    path: str | Sequence[str],
    fields: Mapping[str, str] | None = None,
    query_prompt: str = "query",
    target_prompt: str = "document",
    prompts: Mapping[str, Sequence[str]] | None = None,
    leave_out: Sequence[str] = (),
    only: Sequence[str] = (),
) -> list[Task]:
    """Returns one task per file that `path` (a pattern with *, or several) names, called as the file without its suffixes.

    `fields` maps our roles to the files' fields. `prompts` gives single tasks other prompts: {task: (query, target)}.
    Files in `leave_out` are passed over, and where `only` names some all others. A suffix that is no kind of pairs is a
    ConfigError.
    """
    # The files need not have what only our own map names.
    optional = ("negatives",) if fields is None else ()
    fields = dict(fields or {"query": "query", "target": "positive", "negatives": "negative"})
    found = {}
    for file in expand_paths(path, "task_per_file.path"):
        plain = pathlib.PurePath(file.removesuffix(".gz"))
        if plain.stem in found:
            raise ConfigError(f"task_per_file.path: two files are called {plain.stem!r}; rename one")
        found[plain.stem] = (file, plain.suffix)
    for name in (*(prompts or {}), *leave_out, *only):
        if name not in found:
            raise ConfigError(f"task_per_file: no file is called {name!r}{did_you_mean(name, found)}")
    if only and not set(only) - set(leave_out):
        raise ConfigError("task_per_file.leave_out names all that task_per_file.only names; leave some")
    tasks = []
    for name, (file, suffix) in found.items():
        if name in leave_out or (only and name not in only):
            continue
        if suffix not in _KINDS:
            raise ConfigError(f"{file}: not a kind of pairs; known: {', '.join(_KINDS)}, and each with .gz")
        query, target = (prompts or {}).get(name, (query_prompt, target_prompt))
        tasks.append(Task(name, _KINDS[suffix](file, fields, optional), query, target))
    return tasks
