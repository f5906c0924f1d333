"""The documents of an index that were not removed, written once more as one segment."""

import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from embed import digests, documents, files
from embed.errors import DataError
from embed.index import rows, store
from embed.index.store import Index
from embed.inference import bulk
from embed.sources.input_texts import Text

_SHARD_SIZE = 8192
_MARK = "compacted"  # the field of job.json that tells such a segment from an encoded one


def describe(index: Index, progress: Callable[[int], None] = lambda documents: None) -> dict[str, Any]:
    """Returns the description of an index with its documents in one new segment, which is written, and without a graph.

    The vectors are copied bit for bit. `store.commit` of it removes the segments that are there now. Call it only while holding the
    folder's lock. A segment that `--add` has begun and not finished is a DataError.
    """
    path = store.segment_folder(index.folder, index.description)
    remove_unused(path)
    if path.exists():
        raise DataError(
            f"{path}: --add has begun it and not finished; run embed index {index.folder} --add=FILE again, or remove the folder"
        )
    with files.new_folder(path) as folder:
        _write(index, folder, progress)
    return {**index.description, "segments": [store.segment_of(path)], "removed": None, "graph": None}


def remove_unused(path: pathlib.Path) -> None:
    """Removes the segment at `path`, which the index does not list, if it was left by a compaction that was killed."""
    job = path / bulk.JOB
    if job.is_file() and documents.read_json(job).get(_MARK):
        store.remove_segment(path)


def _write(index: Index, folder: pathlib.Path, progress: Callable[[int], None]) -> None:
    started = time.time()

    def texts() -> Iterator[Text]:
        for number, row in index.documents():
            yield Text(row["id"], row.get("text"), row.get("title") or "", f"{index.folder}: document {number + 1}")

    numbers = np.setdiff1d(np.arange(len(index.vectors)), index.removed)
    written = 0
    # The number of cut texts is known for whole segments only, and includes removed texts. The first shard gets all of it.
    folders = [index.folder / segment["folder"] for segment in index.description["segments"]]
    cut = sum(digests.read_sealed(folder / bulk.SUMMARY)["cut"] for folder in folders)

    def vectors(shard: Sequence[Text]) -> tuple[np.ndarray, int]:
        nonlocal written
        written += len(shard)
        return index.vectors.take(numbers[written - len(shard) : written]), cut if written == len(shard) else 0

    of_model = {name: index.description[name] for name in ("prompt", "dims", "dtype", "max_length")}
    identity = {"model": index.description["model_digest"], **of_model, _MARK: True}
    job = bulk.Job(folder, "npy", "float32", _SHARD_SIZE, bulk.scan(texts, _SHARD_SIZE), identity)
    job.begin()
    bulk.run(job, texts(), vectors, progress=lambda count, _: progress(count))
    bulk.finish(job, started)
    rows.write(folder, ((row["id"], row) for _, row in index.documents()))
