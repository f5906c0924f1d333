"""Encoding a large file: in shards that are written whole, resumed after a kill, divided over hosts.

A shard is a run of records in the order of the input. It is done when its `part-NNNNN.json` is there, which is written after
its vectors and holds a digest of its records; a run that finds it with the same digest passes it over.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from embed import files
from embed.data.texts import Text
from embed.errors import DataError, StorageError, UsageError
from embed.vectors import quantize_binary, quantize_int8

FORMATS = ("parquet", "npy", "jsonl")
PRECISIONS = ("float32", "int8", "binary")
JOB, SUMMARY = "job.json", "summary.json"


@dataclasses.dataclass(frozen=True)
class Job:
    """What decides the output. `identity` is what a resumed run must share with the one that began."""

    output: pathlib.Path
    format: str
    precision: str
    shard_size: int
    identity: dict[str, Any]

    def name(self, number: int, suffix: str) -> pathlib.Path:
        return self.output / f"part-{number:05d}{suffix}"

    def begin(self) -> None:
        """Makes the output folder, or checks that the job in it is this one."""
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise files.storage_error(self.output, e) from e
        path = self.output / JOB
        mine = {"format": self.format, "precision": self.precision, "shard_size": self.shard_size, **self.identity}
        if not path.is_file() and any(self.output.iterdir()):
            raise StorageError(f"{self.output}: is not empty and holds no encoding job; choose another --output")
        files.begin_job(path, mine)


def run(
    job: Job,
    texts: Iterable[Text],
    encode: Callable[[Sequence[Text]], tuple[np.ndarray, int]],
    host: int = 0,
    hosts: int = 1,
    progress: Callable[[int, bool], None] = lambda texts, done_before: None,
) -> None:
    """Encodes the shards of this host that are not done. `encode(texts)` gives float32 [n, E] and how many were cut."""
    for number, shard in enumerate(_shards(texts, job.shard_size)):
        if number % hosts != host:
            continue
        digest = _digest(shard)
        if _is_done(job, number, digest):
            progress(len(shard), True)
            continue
        vectors, cut = encode(shard)
        _write(job, number, [t.id for t in shard], vectors)
        files.failpoint(f"encode.before_commit_{number}")
        files.write_json(
            job.name(number, ".json"),
            {"records": len(shard), "first": shard[0].where, "digest": digest, "cut": cut},
        )
        files.failpoint(f"encode.after_commit_{number}")
        progress(len(shard), False)


def _shards(texts: Iterable[Text], size: int) -> Iterator[list[Text]]:
    iterator = iter(texts)
    while shard := list(itertools.islice(iterator, size)):
        yield shard


def _digest(shard: Sequence[Text]) -> str:
    digest = hashlib.sha256()
    for t in shard:
        digest.update(json.dumps([t.id, t.text, t.title]).encode())
    return digest.hexdigest()


def _is_done(job: Job, number: int, digest: str) -> bool:
    path = job.name(number, ".json")
    if not path.is_file():
        return False
    if files.read_json(path).get("digest") != digest:
        raise DataError(
            f"{path}: these records were others when the job began; restore the input, or give another --output"
        )
    return True


def _write(job: Job, number: int, ids: list[str], vectors: np.ndarray) -> None:
    """Writes the vectors of a shard, whole or not at all."""
    scales = None
    if job.precision == "int8":
        vectors, scales = quantize_int8(vectors)
    elif job.precision == "binary":
        vectors = quantize_binary(vectors)
    if job.format == "npy":
        _write_file(job.name(number, ".npy"), lambda f: np.save(f, vectors, allow_pickle=False))
        if scales is not None:
            _write_file(job.name(number, ".scales.npy"), lambda f: np.save(f, scales, allow_pickle=False))
        files.write_atomic(job.name(number, ".ids.txt"), "".join(json.dumps(i, ensure_ascii=False) + "\n" for i in ids))
    elif job.format == "jsonl":
        lines = (_line(i, v, None if scales is None else scales[n]) for n, (i, v) in enumerate(zip(ids, vectors)))
        files.write_atomic(job.name(number, ".jsonl"), "".join(lines))
    else:
        _write_file(job.name(number, ".parquet"), lambda f: _write_parquet(f, ids, vectors, scales))


def _line(identity: str, vector: np.ndarray, scale) -> str:
    row = {"id": identity, "embedding": vector.tolist()}
    return json.dumps(row if scale is None else {**row, "scale": float(scale)}, ensure_ascii=False) + "\n"


def _write_file(path: pathlib.Path, write: Callable[[Any], None]) -> None:
    import io

    buffer = io.BytesIO()
    write(buffer)
    files.write_atomic(path, buffer.getvalue())


def _write_parquet(file, ids: list[str], vectors: np.ndarray, scales) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    columns = {
        "id": arrow.array(ids, arrow.string()),
        "embedding": arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.reshape(-1)), vectors.shape[1]),
    }
    if scales is not None:
        columns["scale"] = arrow.array(scales)
    parquet.write_table(arrow.table(columns), file, compression="none", use_dictionary=False)


def need(format: str) -> None:
    """Raises UsageError when a format is unknown or its package is missing."""
    import importlib.util

    if format == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UsageError("--format=parquet needs pyarrow; run: pip install 'embed[parquet]', or give --format=npy")


def finish(job: Job, started: float) -> dict[str, Any]:
    """Writes summary.json from the shards that are there and returns it."""
    shards = [files.read_json(p) for p in sorted(job.output.glob("part-?????.json"))]
    summary = {
        "texts": sum(s["records"] for s in shards),
        "shards": len(shards),
        "cut": sum(s["cut"] for s in shards),
        "seconds": round(time.time() - started, 1),
    }
    files.write_json(job.output / SUMMARY, summary)
    return summary


def read(output) -> tuple[list[str], np.ndarray]:
    """Returns (ids, vectors) of a finished job, in the order of the input; int8 vectors are scaled back to float32."""
    output = pathlib.Path(output)
    job = files.read_json(output / JOB)
    ids, parts = [], []
    for path in sorted(output.glob("part-?????.json")):
        own, vectors, scales = _read_shard(path.with_suffix(""), job["format"])
        ids += own
        parts.append(vectors if scales is None else vectors.astype(np.float32) * scales[:, None])
    if not parts:
        raise DataError(f"{output}: holds no finished shard; run the encoding first")
    return ids, np.concatenate(parts)


class Vectors:
    """The vectors of finished jobs of format npy, one after the other, as one array [n, E] that stays on disk."""

    ndim = 2

    def __init__(self, *outputs):
        paths = [p.with_suffix(".npy") for o in outputs for p in sorted(pathlib.Path(o).glob("part-?????.json"))]
        shapes = [np.load(p, allow_pickle=False, mmap_mode="r").shape for p in paths]
        self._stops = np.cumsum([rows for rows, _ in shapes])
        self.shape = (int(self._stops[-1]), shapes[0][1])
        # A few are open at a time: there are as many files as shards.
        self._part = functools.lru_cache(16)(lambda n: np.load(paths[n], allow_pickle=False, mmap_mode="r"))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        pieces, before = [np.zeros((0, self.shape[1]), np.float32)], 0
        for part, after in enumerate(self._stops):
            if after > start and before < stop:
                pieces.append(self._part(part)[max(start - before, 0) : stop - before])
            before = after
        return np.concatenate(pieces)

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Returns some rows by their numbers."""
        where = np.searchsorted(self._stops, numbers, side="right")
        starts = np.concatenate([[0], self._stops[:-1]])
        out = np.empty((len(numbers), self.shape[1]), np.float32)
        for part in np.unique(where):
            own = where == part
            out[own] = self._part(int(part))[np.asarray(numbers)[own] - starts[part]]
        return out


def _read_shard(base: pathlib.Path, format: str):
    if format == "npy":
        ids = [json.loads(line) for line in base.with_suffix(".ids.txt").read_text(encoding="utf-8").splitlines()]
        scales = base.with_suffix(".scales.npy")
        found = np.load(base.with_suffix(".npy"), allow_pickle=False)
        return ids, found, np.load(scales, allow_pickle=False) if scales.is_file() else None
    if format == "jsonl":
        rows = [json.loads(line) for line in base.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()]
        scales = np.array([r["scale"] for r in rows], np.float32) if rows and "scale" in rows[0] else None
        return [r["id"] for r in rows], np.array([r["embedding"] for r in rows], np.float32), scales
    import pyarrow.parquet as parquet

    table = parquet.read_table(base.with_suffix(".parquet"))
    column = table.column("embedding").combine_chunks()
    vectors = column.flatten().to_numpy().reshape(len(table), -1)
    scales = table.column("scale").to_numpy() if "scale" in table.column_names else None
    return table.column("id").to_pylist(), vectors, scales
