"""Damage done to the outputs of commands, and what must come of it: an error of one line, or the same files made again.

`damage` changes one thing in a folder, drawn from a seed. A `Case` says how an output is read and made again; `trial` damages
it and returns what happened. A changed value that is returned or kept, and an exception that is no EmbedError, fail.
"""

import collections
import dataclasses
import functools
import json
import pathlib
import random
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from embed import files
from embed.errors import EmbedError

REFUSED, REMADE, UNCHANGED = "refused", "made again", "unchanged"


def recommit(folder: pathlib.Path) -> None:
    """Writes a manifest of what the folder holds now, so that what is behind it is tried and not its digests."""
    path = folder / files.MANIFEST
    if path.is_file():
        extra = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("files", "digest", "format")}
        path.unlink()
        files.write_manifest(folder, **extra)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Returns {path within the folder: bytes} of every file but locks."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in _files(folder)}


def _flip(path, choose, other):
    content = bytearray(path.read_bytes())
    content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
    path.write_bytes(content)
    return "a flipped bit"


def _truncate(path, choose, other):
    path.write_bytes(path.read_bytes()[: choose.randrange(path.stat().st_size)])
    return "cut"


def _zero(path, choose, other):
    content = bytearray(path.read_bytes())
    start = choose.randrange(len(content))
    stop = min(len(content), start + choose.choice([1, 16, 512]))
    content[start:stop] = bytes(stop - start)
    path.write_bytes(content)
    return "a block of zeros"


def _delete(path, choose, other):
    path.unlink()
    return "deleted"


def _swap(path, choose, other):
    second = choose.choice(_files(path.parent))
    first_content, second_content = path.read_bytes(), second.read_bytes()
    path.write_bytes(second_content)
    second.write_bytes(first_content)
    return f"swapped with {second.name}"


def _append(path, choose, other):
    path.write_bytes(path.read_bytes() + choose.choice([b"\0", b"{}\n", choose.randbytes(100), path.read_bytes()]))
    return "bytes appended"


def _duplicate(path, choose, other):
    number = "".join(c for c in path.name if c.isdigit())
    name = (
        path.name.replace(number, f"{int(number) + choose.choice([1, 7]):0{len(number)}d}")
        if number in path.name and number
        else f"{path.name}2"
    )
    shutil.copy(path, path.with_name(name))
    return f"copied to {name}"


def _replace(path, choose, other):
    if other is None:
        return None
    source = other / path.name if (other / path.name).is_file() else choose.choice(_files(other))
    path.write_bytes(source.read_bytes())
    return f"replaced by {source.name} of another job"


def _numbers(value: Any, path: tuple = ()) -> list[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [path]
    return [inner for key, item in items for inner in _numbers(item, (*path, key))]


def _edit(path, choose, other):
    """Changes a number of a JSON file, as somebody would who edits it."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        return None
    places = _numbers(value)
    if not places:
        return None
    *parents, last = choose.choice(places)
    inner = value
    for key in parents:
        inner = inner[key]
    inner[last] = choose.choice([inner[last] + 1, -1, 0, 10**6, inner[last] / 3, None, "1", [1]])
    path.write_text(json.dumps(value, indent=2))
    return f"{'.'.join(map(str, (*parents, last)))} edited"


KINDS = (_flip, _truncate, _zero, _delete, _swap, _append, _duplicate, _replace, _edit)


def damage(folder: pathlib.Path, choose: random.Random, other: pathlib.Path | None = None) -> str:
    """Damages one file below a folder and returns which and how; `other` is a folder of another job of the same kind."""
    before = contents(folder)
    while True:
        path = choose.choice([p for p in _files(folder) if p.stat().st_size])
        how = choose.choice(KINDS)(path, choose, other)
        if how is not None and contents(folder) != before:
            return f"{path.relative_to(folder)}: {how}"


@dataclasses.dataclass(frozen=True)
class Case:
    """An output that is damaged. `read(folder)` returns what a user gets from it, `remake(folder)` runs the command again, or
    is None where there is no such command.

    `wanted` is the folder as the command leaves it when nothing is damaged; `volatile` are keys of its JSON files that differ
    from run to run, such as seconds.
    """

    name: str
    folder: pathlib.Path
    wanted: pathlib.Path
    remake: Callable[[pathlib.Path], None] | None
    read: Callable[[pathlib.Path], Any] | None = None
    other: pathlib.Path | None = None
    volatile: tuple[str, ...] = ()


def _comparable(content: bytes, name: str, volatile: tuple[str, ...]) -> Any:
    if not name.endswith(".json"):
        return content
    value = json.loads(content)
    return {k: v for k, v in value.items() if k not in volatile} if isinstance(value, Mapping) else value


def _missing_or_changed(case: Case, folder: pathlib.Path) -> list[str]:
    wanted, now = contents(case.wanted), contents(folder)
    return [
        name
        for name, content in wanted.items()
        if name not in now or _comparable(now[name], name, case.volatile) != _comparable(content, name, case.volatile)
    ]


@functools.lru_cache(maxsize=64)
def _read_whole(case: Case) -> Any:
    return case.read(case.wanted)


def trial(case: Case, work: pathlib.Path, seed: int) -> str:
    """Returns what came of one damage of a copy of the case's folder in `work`: REFUSED, REMADE or UNCHANGED."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(case.folder, work)
    how = f"{case.name}, seed {seed}: {damage(work, random.Random(seed), case.other)}"
    outcomes = []
    if case.read is not None:
        wanted = _read_whole(case)
        outcomes.append(_outcome(lambda: case.read(work) == wanted, how, "a changed value was returned"))
    if case.remake is None:
        return outcomes[0]
    before = contents(work)

    def remake() -> bool:
        case.remake(work)
        return not _missing_or_changed(case, work)

    outcome = _outcome(remake, how, "a changed file was kept")
    outcomes.append(REMADE if outcome == UNCHANGED and contents(work) != before else outcome)
    return REFUSED if REFUSED in outcomes and outcomes[-1] == UNCHANGED else outcomes[-1]


def _outcome(action: Callable[[], bool], how: str, silent: str) -> str:
    try:
        same = action()
    except EmbedError as e:
        assert "\n" not in str(e), f"{how}: the error has several lines: {e}"
        return REFUSED
    except Exception as e:
        raise AssertionError(f"{how}: raw {type(e).__name__}: {e}") from e
    assert same, f"{how}: {silent}"
    return UNCHANGED


def trials(cases: list[Case], work: pathlib.Path, count: int, seed: int = 0) -> collections.Counter:
    """Returns how often each outcome came of `count` damages, spread over the cases."""
    return collections.Counter(trial(cases[i % len(cases)], work, seed + i) for i in range(count))
