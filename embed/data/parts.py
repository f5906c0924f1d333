"""Preparation by several processes: each encodes some parts of a task's records, and one process puts them together in order.

A part is a run of records of the source. Parts lie beside the cache that they are for, in a folder that goes with its name, which
says what the task, its source, the tokenizer and the features are. A part that is there and whole is not made again, so a
preparation that was stopped goes on. The cache is written from the parts by the code that writes it from one process's
examples, so it is the same to the byte.
"""

import mmap
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict

import numpy as np

from embed import digests, files, ranges, sources
from embed.buckets import copies
from embed.data import cache, seqio_tasks
from embed.data.features import Feature
from embed.data.tasks import AnyTask, Mixture, Task
from embed.data.tokenizers import Tokenizer
from embed.errors import DataError, NotHere
from embed.sources import paths

RECORDS = 4096  # of a part
_WAIT = 0.1  # seconds between looks for the next part
_TAKE = 3.0  # seconds between looks into a bucket
_LENGTH = np.dtype("<u8")
_AGAIN = "run `embed prepare` again to make it anew"


class _Part(TypedDict):
    """What the sealed file of a part holds."""

    number: ranges.Natural
    records: ranges.Count
    files: dict[str, digests.Entry]
    digest: ranges.Text


def folder_of(cache_folder: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the parts of a cache."""
    return cache_folder.with_name(f".{cache_folder.name}.parts")


def is_shared(task: AnyTask) -> bool:
    """Returns whether several processes are worth their start for a task: its records are of more than one part.

    A source that leaves out bad records is read by one process, which counts them.
    """
    source = getattr(task, "source", None)
    if source is None or isinstance(source, sources.Tfds):
        return True
    bad = getattr(source, "bad_records", None)
    if not isinstance(task, Task) or (bad is not None and bad.skips):
        return False
    try:
        return any(number == RECORDS for number, _ in enumerate(source.examples()))
    except DataError:
        return False  # one process says what is wrong


def begin(cache_dir) -> None:
    """Makes the folders of parts ready for processes that are about to start: none of them has ended.

    Call it before the first of them starts. They encode one task after the other, and may be tasks ahead of the process that
    puts the parts together.
    """
    for marker in pathlib.Path(cache_dir).glob(".*.parts/done-*"):
        marker.unlink(missing_ok=True)


def encode(
    mixture: Mixture, tokenizer: Tokenizer, features: Sequence[Feature], cache_dir, index: int, count: int
) -> None:
    """Encodes the parts of one of `count` processes, of every task of the mixture that they share and that has no cache."""
    for task in mixture.tasks:
        source = _Watched(task)
        if cache.find(task, tokenizer, features, cache_dir) is None and is_shared(task):
            folder = folder_of(cache.folder_of(task, tokenizer, features, cache_dir))
            folder.mkdir(parents=True, exist_ok=True)
            _encode(task, tokenizer, features, folder, index, count, source)
            files.write_atomic(_marker(folder, index, count), "")


class _Watched:
    """The states of a source's files, taken before the source's fingerprint: a part is written only where they are unchanged.

    A file that was replaced or written to has another inode number, size or time.
    """

    def __init__(self, task: AnyTask):
        self._name = task.name
        try:
            named = getattr(task, "source", task).fingerprint()
        except NotHere:
            named = {}
        self._files = {path: now for path in named if (now := paths.state(path)) is not None}

    def check(self) -> None:
        """Raises DataError for a file that has changed."""
        for path, before in self._files.items():
            if paths.state(path) != before:
                raise DataError(f"task {self._name!r}: {path} changed while it was read; run the command again")


def _marker(folder: pathlib.Path, index: int, count: int) -> pathlib.Path:
    """Returns the path of the file that says that a process has written all of its parts."""
    return folder / f"done-{index}-of-{count}"


def _encode(
    task: AnyTask,
    tokenizer: Tokenizer,
    features: Sequence[Feature],
    folder: pathlib.Path,
    index: int,
    count: int,
    source: _Watched,
) -> None:
    """Encodes the parts of one process of one task that are not there."""
    missing: list[int] = []  # of the parts that were met, in order; tensorflow asks in a thread of its own
    last = [-1, False]

    def is_chosen(number: int) -> bool:
        part = number // RECORDS
        if part % count != index:
            return False
        if part != last[0]:
            last[:] = part, not _is_whole(folder, part)
            missing.extend([part] if last[1] else [])
        return bool(last[1])

    rows = seqio_tasks.examples(task, tokenizer, features, is_chosen)
    first, written = next(rows, None), 0
    while first is not None:
        first = _write(folder, missing[written], first, rows, source)
        written += 1


def _write(
    folder: pathlib.Path, number: int, first: bytes, examples: Iterator[bytes], source: _Watched
) -> bytes | None:
    """Writes a part, and returns the first example of the next one or None."""
    path, count = _path(folder, number), 0
    example: bytes | None = first
    with files.new_file(path, overwrite=True) as temporary, open(temporary, "wb") as f:
        while example is not None and count < RECORDS:
            f.write(np.array(len(example), _LENGTH).tobytes())
            f.write(example)
            count += 1
            example = next(examples, None)
    files.failpoint(f"prepare.before_part_{number}")
    source.check()
    digests.write_sealed(
        path.with_suffix(".json"),
        {"number": number, "records": count, "files": digests.entries_of(folder, [path.name])},
    )
    return example


def _path(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / f"part-{number:06d}.records"


def _is_whole(folder: pathlib.Path, number: int) -> bool:
    try:
        _verified(folder, number)
    except DataError:
        return False
    return True


def _verified(folder: pathlib.Path, number: int) -> dict[str, Any]:
    """Returns what the sealed file of a part holds; a part that is not there or damaged is a DataError."""
    path = _path(folder, number)
    part = digests.read_sealed(path.with_suffix(".json"), _Part, _AGAIN)
    if part["number"] != number or set(part["files"]) != {path.name}:
        raise DataError(f"{path}: is another part; {_AGAIN}")
    digests.check_files(folder, part["files"], _AGAIN)
    return part


def examples(folder: pathlib.Path, count: int, check: Callable[[int], bool]) -> Iterator[bytes]:
    """Yields the packed examples of all parts in order, each as soon as one of `count` processes has written it.

    `check(index)` returns whether a process has ended, and raises its error where it ended by one.
    """
    number = 0
    while True:
        marker = _marker(folder, number % count, count)
        has_ended = check(number % count)
        is_done = marker.is_file()  # looked for before the part is: it is written after the last one
        try:
            part = _verified(folder, number)
        except DataError:
            if is_done:
                break  # there is no such part, or it is damaged
            if has_ended:
                copies.pull(folder)  # what it has written on another machine
                if marker.is_file():
                    continue
                raise DataError(f"{marker}: its process has ended without writing it; {_AGAIN}") from None
            copies.pull(folder, _TAKE)
            time.sleep(_WAIT)
            continue
        yield from _read(folder, part)
        number += 1
    left = [p.name for p in folder.glob("part-*.json") if int(p.stem.partition("-")[2]) >= number]
    if left:
        raise DataError(f"{_path(folder, number)}: is missing or damaged, and {min(left)} is there; {_AGAIN}")


def _read(folder: pathlib.Path, part: dict[str, Any]) -> Iterator[bytes]:
    count, path = part["records"], _path(folder, part["number"])
    with open(path, "rb") as f:
        content = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    start = 0
    for _ in range(count):
        length = int(np.frombuffer(content, _LENGTH, 1, start)[0])
        start += _LENGTH.itemsize
        yield content[start : start + length]
        start += length
    if start != os.stat(path).st_size:
        raise DataError(f"{path}: holds more than its {count} records; {_AGAIN}")
