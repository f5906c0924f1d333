"""Encoding a large file: in shards that are written whole, verified and resumed after a kill, divided over hosts.

A shard is a run of texts in the order of the input. The job's description, `job.json`, holds a digest of all texts, so that
a job goes on only with the input it began with, under whatever name. `read` and `Vectors` verify what they return.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypedDict

import numpy as np

from embed import digests, files, ranges
from embed.errors import DataError, StorageError, UsageError
from embed.inference.shards import AGAIN, FORMATS, PRECISIONS, Shards
from embed.sources.input_texts import Text
from embed.text import content_id

JOB, SUMMARY = "job.json", "summary.json"
_OTHER = "restore it from its source, or encode into another --output"


class _Description(TypedDict):
    """What job.json holds beside the identity that a command adds."""

    format: Literal[FORMATS]
    precision: Literal[PRECISIONS]
    shard_size: ranges.Count
    texts: ranges.Count
    input: ranges.Text
    digest: ranges.Text


class _Summary(TypedDict):
    """What summary.json holds."""

    job: ranges.Text
    texts: ranges.Count
    shards: ranges.Count
    cut: ranges.Natural
    seconds: ranges.NonNegative
    digest: ranges.Text


@dataclasses.dataclass(frozen=True)
class Input:
    """What is encoded: the number of texts, a digest of all of them, and one of each shard."""

    texts: int
    digest: str
    shards: tuple[str, ...]


def scan(
    read: Callable[[], Iterable[Text]],
    shard_size: int,
    *,
    unique: bool = True,
    progress: Callable[[int], None] = lambda texts: None,
) -> Input:
    """Returns what `read()` yields as an `Input`, before anything of it is encoded; memory is 8 bytes a text.

    With `unique` an id that comes twice is a DataError that names both records: vectors could not be joined by it.
    """
    everything, shards, ids, count = hashlib.sha256(), [], [], 0
    for shard in _shards(read(), shard_size):
        lines = [_line(t) for t in shard]
        everything.update(b"".join(lines))
        shards.append(hashlib.sha256(b"".join(lines)).hexdigest())
        if unique:
            ids.append(np.fromiter((content_id(t.id) for t in shard), np.int64, len(shard)))
        count += len(shard)
        progress(len(shard))
    if unique and ids:
        _check_unique(np.concatenate(ids), read)
    return Input(count, everything.hexdigest(), tuple(shards))


def _shards(texts: Iterable[Text], size: int) -> Iterator[list[Text]]:
    iterator = iter(texts)
    while shard := list(itertools.islice(iterator, size)):
        yield shard


def _line(text: Text) -> bytes:
    return json.dumps([text.id, text.text, text.title, *text.image_digests]).encode()


def _check_unique(ids: np.ndarray, read: Callable[[], Iterable[Text]]) -> None:
    ids = np.sort(ids)
    repeated = set(ids[1:][ids[1:] == ids[:-1]].tolist())
    if not repeated:
        return
    locations: dict[str, str] = {}
    for text in read():
        if int(content_id(text.id)) in repeated:
            if text.id in locations:
                raise DataError(
                    f"{text.location}: the id {text.id!r} is that of {locations[text.id]} too, so that its vector could not "
                    "be told from the other; make ids different, or name another field with --id_field"
                )
            locations[text.id] = text.location


@dataclasses.dataclass(frozen=True)
class Job:
    """What decides the output. `identity` is what a resumed run must share with the one that began, beside the input."""

    output: pathlib.Path
    format: str
    precision: str
    shard_size: int
    input: Input
    identity: dict[str, Any]

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """What job.json holds."""
        layout = {"format": self.format, "precision": self.precision, "shard_size": self.shard_size}
        return digests.sealed({**layout, **self.identity, "texts": self.input.texts, "input": self.input.digest})

    @property
    def shards(self) -> Shards:
        """The shards of the job, finished or not."""
        return _shards_of(self.output, self.description)

    def check(self) -> bool:
        """Returns whether the output holds this job; one that holds something else is an error. Nothing is written."""
        path = self.output / JOB
        try:
            if not path.is_file():
                self._check_empty()
                return False
        except OSError as e:
            raise files.storage_error(self.output, e) from e
        before = digests.read_sealed(path, advice=_OTHER)
        files.begin_job(path, {name: value for name, value in self.description.items() if name != "digest"})
        if before["digest"] != self.description["digest"]:
            raise DataError(f"{path}: says more than this job does; {_OTHER}")
        self.shards.check_names()
        return True

    def _check_empty(self) -> None:
        if self.output.exists() and not self.output.is_dir():
            raise StorageError(f"{self.output}: is not a folder; choose another --output")
        # A lock, and what a killed run left of a file that it wrote, begin with a dot.
        if self.output.is_dir() and any(not p.name.startswith(".") for p in self.output.iterdir()):
            raise StorageError(f"{self.output}: is not empty and holds no encoding job; choose another --output")

    def begin(self) -> None:
        """Makes the output folder, or checks that the job in it is this one. Call it only while holding the folder's lock."""
        if self.check():
            for unfinished in self.output.glob(".part-*.tmp-*"):  # of a killed run
                unfinished.unlink(missing_ok=True)
            return
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise files.storage_error(self.output, e) from e
        digests.write_sealed(self.output / JOB, self.description)

    def finished(self) -> dict[str, Any] | None:
        """Returns the summary when every file of the job is there and verified, else None. Nothing is written."""
        if not self.check():
            return None
        numbers = range(len(self.shards))
        if not all(self.shards.path(number, ".json").exists() for number in numbers):
            return None  # before anything is hashed
        try:
            records = [self.shards.verify(number) for number in numbers]
            return _read_summary(self.output, _totals(self.description, records))
        except DataError:
            return None


def run(
    job: Job,
    texts: Iterable[Text],
    encode: Callable[[Sequence[Text]], tuple[np.ndarray, int]],
    host: int = 0,
    hosts: int = 1,
    progress: Callable[[int, bool], None] = lambda texts, done_before: None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Encodes the shards of this host that are not done. `encode(texts)` gives float32 [n, E] and how many were cut.

    `say` is called with a line about a finished shard that is damaged and encoded again.
    """
    count = 0
    for number, shard in enumerate(_shards(texts, job.shard_size)):
        count += len(shard)
        if number % hosts != host:
            continue
        digest = hashlib.sha256(b"".join(map(_line, shard))).hexdigest()
        if number >= len(job.shards) or digest != job.input.shards[number]:
            raise DataError(f"{shard[0].location}: the input changed while it was read; run the command again")
        if _is_done(job.shards, number, say):
            progress(len(shard), True)
            continue
        vectors, cut = encode(shard)
        job.shards.write(number, [t.id for t in shard], vectors, digest, cut)
        progress(len(shard), False)
    if count != job.input.texts:
        raise DataError(f"{job.output}: the input changed while it was read; run the command again")


def _is_done(shards: Shards, number: int, say: Callable[[str], None]) -> bool:
    if not shards.path(number, ".json").exists():
        return False
    try:
        shards.verify(number)
    except DataError as e:
        if shards.belongs_to_another_job(number):
            raise
        say(f"{str(e).removesuffix(f'; {AGAIN}')}; its texts are encoded again")
        return False
    return True


def need(format: str) -> None:
    """Raises UsageError when a format is unknown or its package is missing."""
    import importlib.util

    if format == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UsageError("--format=parquet needs pyarrow; run: pip install 'embed[parquet]', or give --format=npy")


def finish(job: Job, started: float, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Returns the summary of a job whose shards are all there; it is written where it is missing or damaged."""
    records = [job.shards.record(number) for number in range(len(job.shards))]
    totals = _totals(job.description, records)
    if (job.output / SUMMARY).exists():
        try:
            return _read_summary(job.output, totals)
        except DataError as e:
            say(f"{str(e).removesuffix(f'; {AGAIN}')}; it is written again")
    return digests.write_sealed(job.output / SUMMARY, {**totals, "seconds": round(time.time() - started, 1)})


def _totals(description: dict[str, Any], records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "job": description["digest"],
        "texts": sum(r["records"] for r in records),
        "shards": len(records),
        "cut": sum(r["cut"] for r in records),
    }


def _read_summary(output: pathlib.Path, totals: dict[str, Any]) -> dict[str, Any]:
    summary = digests.read_sealed(output / SUMMARY, _Summary, AGAIN)
    changed = [name for name in totals if summary[name] != totals[name]]
    if changed:
        raise DataError(f"{output / SUMMARY}: {', '.join(changed)} differs from what the shards hold; {AGAIN}")
    return summary


def _shards_of(output: pathlib.Path, description: dict[str, Any]) -> Shards:
    names = ("format", "precision", "shard_size", "texts")
    return Shards(output, *(description[name] for name in names), description["digest"])


def open_shards(output) -> Shards:
    """Returns the shards of the job in a folder, which must be this job's alone; files are verified as they are read."""
    output = pathlib.Path(output)
    shards = _shards_of(output, describe(output))
    shards.check_names()
    return shards


def describe(output) -> dict[str, Any]:
    """Returns what decides the vectors of the job in a folder, as `Job.description` has it."""
    path = pathlib.Path(output) / JOB
    if not path.is_file():
        raise DataError(f"{output}: holds no encoding job ({JOB} is missing); give an output of `embed encode`")
    return digests.read_sealed(path, _Description, "restore the folder, or encode again")


def read(output) -> tuple[list[str], np.ndarray]:
    """Returns (ids, vectors) of a finished job, in the order of the input; int8 vectors are scaled back to float32.

    Every file is verified first: one that is missing, damaged or of another job is a DataError that names it.
    """
    shards = open_shards(output)
    records = [shards.record(number) for number in range(len(shards))]
    if (shards.folder / SUMMARY).exists():
        _read_summary(shards.folder, _totals({"digest": shards.job}, records))
    ids: list[str] = []
    parts: list[np.ndarray] = []
    for number in range(len(shards)):
        shard_ids, vectors, scales = shards.read(number)
        ids += shard_ids
        parts.append(vectors if scales is None else vectors.astype(np.float32) * scales[:, None])
    widths = collections.Counter(part.shape[1] for part in parts)
    if len(widths) > 1:
        raise DataError(
            f"{output}: its shards have vectors of {sorted(widths)} values; encode again into another folder"
        )
    return ids, np.concatenate(parts)


class Vectors:
    """The vectors of finished jobs of format npy, one after the other, as one array [n, E] that stays on disk.

    A shard is verified when it is first opened, unless the caller has `verified` all of them.
    """

    ndim = 2

    def __init__(self, *outputs, verified: bool = False):
        jobs = [open_shards(output) for output in outputs]
        for job in jobs:
            if (job.format, job.precision) != ("npy", "float32"):
                raise DataError(
                    f"{job.folder}: holds {job.precision} as {job.format}; vectors are read of float32 as npy"
                )
        self.jobs = [job.job for job in jobs]
        self._parts = [(job, number) for job in jobs for number in range(len(job))]
        self._stops = np.cumsum([job.size_of(number) for job, number in self._parts])
        self._verified = set(range(len(self._parts))) if verified else set()
        # A few are open at a time: there are as many files as shards.
        self._part = functools.lru_cache(16)(self._open)
        self.shape = (int(self._stops[-1]), self._part(0).shape[1])

    def _open(self, part: int) -> np.ndarray:
        shards, number = self._parts[part]
        vectors = shards.map_vectors(number, verified=part in self._verified)
        self._verified.add(part)
        if part and vectors.shape[1] != self.shape[1]:
            raise DataError(
                f"{shards.path(number, '.npy')}: has vectors of {vectors.shape[1]} values, not {self.shape[1]}"
            )
        return vectors

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        pieces, before = [], 0
        for part, after in enumerate(self._stops):
            if after > start and before < stop:
                pieces.append(self._part(part)[max(start - before, 0) : stop - before])
            before = after
        if len(pieces) == 1:
            return pieces[0]  # on disk, where a copy would cost more than a search in it
        return np.concatenate(pieces) if pieces else np.zeros((0, self.shape[1]), np.float32)

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Returns some rows by their numbers."""
        parts = np.searchsorted(self._stops, numbers, side="right")
        starts = np.concatenate([[0], self._stops[:-1]])
        out = np.empty((len(numbers), self.shape[1]), np.float32)
        for part in np.unique(parts):
            is_here = parts == part
            out[is_here] = self._part(int(part))[np.asarray(numbers)[is_here] - starts[part]]
        return out
