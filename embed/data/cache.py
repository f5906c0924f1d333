"""Token caches: a task's tokenised examples in random-access ArrayRecord shards, with a digest manifest.

A cache is a folder `<task>-<key>` that is whole or not there. Reading needs neither tensorflow nor the source. `lengths.npy`
says how many tokens every text has, so that each host of a run can tell how the others lay out their part of a batch.
"""

import array
import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from embed import documents, files
from embed.data import records
from embed.data.tasks import AnyTask, cache_key
from embed.data.tokenizers import Tokenizer
from embed.errors import DataError, StorageError

_RECORDS_PER_SHARD = 200_000
_LENGTHS = "lengths.npy"


@dataclasses.dataclass(frozen=True)
class Cache:
    """A verified token cache."""

    folder: pathlib.Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return self.manifest["task"]

    def __len__(self) -> int:
        return self.manifest["records"]

    @property
    def digest(self) -> str:
        """One digest of the records; a run goes on only with the caches it began with."""
        return documents.digest_json(self.manifest["files"])

    @property
    def most_negatives(self) -> int:
        return self.manifest["most_negatives"]

    @property
    def longest(self) -> int:
        """The tokens of the longest text."""
        return self.manifest["longest"]

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each record's query, target and negatives: int32 [records, 2 + most_negatives].

        0 is for a negative that is not there, and for one that is a positive of its query.
        """
        return np.load(self.folder / _LENGTHS, mmap_mode="r", allow_pickle=False)

    @functools.cached_property
    def _reader(self):
        from array_record.python import array_record_data_source

        return array_record_data_source.ArrayRecordDataSource([str(self.folder / s) for s in self.manifest["shards"]])

    def read(self, indices: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Returns the examples at `indices`, in that order, without the negatives that are positives of their query."""
        found = [records.unpack(data) for data in self._reader.__getitems__([int(i) for i in indices])]
        if not self.manifest["false_negatives"]:
            return found
        return [_without_false_negatives(example, self.lengths[i, 2:]) for example, i in zip(found, indices)]


def _without_false_negatives(example: dict[str, np.ndarray], lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Returns an example with only those negatives that have a length in the cache's table."""
    sizes = example["negatives_lengths"]
    kept = lengths[: len(sizes)] > 0
    if kept.all():
        return example
    return {
        **example,
        "negatives": example["negatives"][np.repeat(kept, sizes)],
        "negatives_lengths": sizes[kept],
        "negatives_id": example["negatives_id"][kept],
    }


def _folder_name(task: AnyTask, key: dict, fingerprint: dict) -> str:
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", task.name)
    return f"{safe}-{documents.digest_json(key)[:12]}-{documents.digest_json(fingerprint)[:8]}"


def folder_of(task: AnyTask, tokenizer: Tokenizer, lengths, cache_dir) -> pathlib.Path:
    """Returns the folder of a task's cache as the task is declared, and its source stands, now."""
    return pathlib.Path(cache_dir) / _folder_name(task, cache_key(task, tokenizer, lengths), _fingerprint(task))


def find(task: AnyTask, tokenizer: Tokenizer, lengths, cache_dir) -> Cache | None:
    """Returns the verified cache of a task as it is declared now, or None when it has to be prepared.

    When the source is not on this machine, a cache of the same declaration is taken as it is.
    """
    cache_dir = pathlib.Path(cache_dir)
    key = cache_key(task, tokenizer, lengths)
    try:
        fingerprint = _fingerprint(task)
    except DataError:
        prefix = _folder_name(task, key, {}).rpartition("-")[0]
        found = sorted(cache_dir.glob(f"{prefix}-*/{files.MANIFEST}"))
        if len(found) != 1:
            raise
        folder = found[0].parent
    else:
        folder = cache_dir / _folder_name(task, key, fingerprint)
    if not (folder / files.MANIFEST).is_file():
        return None
    return Cache(folder, files.verify_manifest(folder))


def _fingerprint(task: AnyTask) -> dict:
    source = getattr(task, "source", None)
    return source.fingerprint() if source is not None else {}


def write(
    task: AnyTask,
    tokenizer: Tokenizer,
    lengths,
    cache_dir,
    examples: Iterable[dict[str, Any]],
    progress: Callable[[int], None] = lambda n: None,
) -> Cache:
    """Writes the tokenised `examples` of a task as its cache and returns it. No example at all is a DataError."""
    from array_record.python import array_record_module

    key = cache_key(task, tokenizer, lengths)
    fingerprint = _fingerprint(task)
    folder = folder_of(task, tokenizer, lengths, cache_dir)
    count, shards, writer, sizes, ids = 0, [], None, [], _Ids()
    truncated, tokens = np.zeros(3, np.int64), np.zeros(3, np.int64)
    with files.new_folder(folder, overwrite=True) as temporary:
        for example in examples:
            if count % _RECORDS_PER_SHARD == 0:
                if writer is not None:
                    _write(folder, writer.close)
                shards.append(f"records-{len(shards):05d}.array_record")
                writer = array_record_module.ArrayRecordWriter(str(temporary / shards[-1]), "group_size:1")
            _write(folder, writer.write, records.pack(example))
            truncated += example["truncated"]
            tokens += [len(example["query"]), len(example["target"]), len(example["negatives"])]
            sizes.append(
                np.array([len(example["query"]), len(example["target"]), *example["negatives_lengths"]], np.int32)
            )
            ids.add(example)
            count += 1
            if count % 1000 == 0:
                progress(count)
        if writer is None:
            raise DataError(f"task {task.name!r}: its source gave no examples; correct the source")
        _write(folder, writer.close)
        lengths = _table(sizes)
        is_positive = ids.are_positives(lengths.shape[1] - 2)
        lengths[:, 2:][is_positive] = 0
        np.save(temporary / _LENGTHS, lengths, allow_pickle=False)
        sides = ("query", "target", "negatives")
        manifest = files.write_manifest(
            temporary,
            kind="token-cache",
            task=task.name,
            key=key,
            fingerprint=fingerprint,
            records=count,
            shards=shards,
            fields=[dataclasses.asdict(f) for f in records.TEXT_FIELDS],
            most_negatives=lengths.shape[1] - 2,
            longest=int(lengths.max()),
            false_negatives=int(is_positive.sum()),
            **_bad_records(task),
            truncated=dict(zip(sides, truncated.tolist())),
            tokens=dict(zip(sides, tokens.tolist())),
        )
    progress(count)
    return Cache(folder, manifest)


def _bad_records(task: AnyTask) -> dict[str, Any]:
    """Returns how many records of the source were left out, and what the first of them were; nothing where none was."""
    bad = getattr(getattr(task, "source", None), "bad_records", None)
    return {"bad_records": {"skipped": bad.skipped, "first": bad.first}} if bad is not None and bad.skipped else {}


def _write(folder: pathlib.Path, operation: Callable, *arguments) -> None:
    """Writes with array_record, whose faults have types and lines of their own."""
    try:
        operation(*arguments)
    except Exception as e:
        raise StorageError(
            f"{folder}: the cache could not be written ({documents.first_line(e)}); free space or repair the disk"
        ) from e


class _Ids:
    """Finds the negatives of a task that are known positives of their query, in any of its records."""

    def __init__(self):
        self._queries, self._negative_queries, self._negatives = array.array("q"), array.array("q"), array.array("q")
        self._targets, self._columns, self._rows = array.array("q"), array.array("q"), array.array("q")
        self._count = 0

    def add(self, example: dict[str, Any]) -> None:
        """Adds the next record."""
        self._queries.extend([int(example["query_id"])] * 2)
        self._targets.extend(map(int, example["target_text_ids"]))
        for column, negative in enumerate(example["negatives_id"]):
            self._negative_queries.append(int(example["query_id"]))
            self._negatives.append(int(negative))
            self._rows.append(self._count)
            self._columns.append(column)
        self._count += 1

    def are_positives(self, most_negatives: int) -> np.ndarray:
        """Returns bool [records, most_negatives]."""
        table = np.zeros((self._count, most_negatives), bool)
        if len(self._negatives):
            known = np.isin(_joined(self._negative_queries, self._negatives), _joined(self._queries, self._targets))
            table[np.frombuffer(self._rows, np.int64)[known], np.frombuffer(self._columns, np.int64)[known]] = True
        return table


def _joined(queries: array.array, texts: array.array) -> np.ndarray:
    """Returns one 64-bit id for each pair of a query's and a text's."""
    queries, texts = (np.frombuffer(x, np.uint64) for x in (queries, texts))
    return queries * np.uint64(0x9E3779B97F4A7C15) + texts  # wraps at 2^64; the ids are hashes already


def _table(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Returns rows of different sizes as one array, filled up with zeros."""
    table = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table
