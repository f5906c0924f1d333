"""Caches: a task's encoded examples in random-access ArrayRecord shards, with a digest manifest.

A cache is a folder `<task>-<key>` that is whole or not there. Reading needs neither tensorflow nor the source. `lengths.npy`
says how many tokens every text has, so that each host of a run can tell how the others lay out their part of a batch, and
`groups.npy` what an example is of, so that examples held out for validation share none of it with those that are learned.
"""

import array
import dataclasses
import functools
import itertools
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from embed import documents, files
from embed.buckets import addresses
from embed.data import records
from embed.data.features import Feature
from embed.data.tasks import CACHE_FORMAT, AnyTask, cache_key
from embed.data.text_features import Texts, text_features
from embed.data.tokenizers import Tokenizer
from embed.errors import DataError, NotHere, StorageError
from embed.text import pair_id

_RECORDS_PER_SHARD = 200_000
_LENGTHS, _GROUPS = "lengths.npy", "groups.npy"


@dataclasses.dataclass(frozen=True)
class Cache:
    """A verified token cache. Without `has_source` the source is not on this machine, and may have changed since."""

    folder: pathlib.Path
    manifest: dict[str, Any]
    has_source: bool = True

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
    def columns(self) -> dict[str, int]:
        """How many texts a record has at most, by text feature."""
        return self.manifest["columns"]

    @property
    def longest(self) -> int:
        """The tokens of the longest text, 0 where there are none."""
        return self.manifest["longest"]

    @functools.cached_property
    def _lengths(self) -> np.ndarray:
        return np.load(self.folder / _LENGTHS, mmap_mode="r", allow_pickle=False)

    @functools.cached_property
    def groups(self) -> np.ndarray:
        """What each record is of: int64 [records], the id of its image, or else of its first text, or else its number."""
        return np.load(self.folder / _GROUPS, mmap_mode="r", allow_pickle=False)

    @functools.cached_property
    def _fields(self) -> tuple[records.Field, ...]:
        return tuple(records.Field(**field) for field in self.manifest["fields"])

    @functools.cached_property
    def _reader(self):
        from array_record.python import array_record_data_source

        return array_record_data_source.ArrayRecordDataSource([str(self.folder / s) for s in self.manifest["shards"]])

    def read(self, indices: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Returns the examples at `indices`, in that order."""
        return [records.unpack(data, self._fields) for data in self._reader.__getitems__([int(i) for i in indices])]

    def lengths(self, name: str, indices: Sequence[int]) -> np.ndarray:
        """Returns the tokens of the texts of a feature: int32 [n, columns].

        0 is for a text that is not there, and for a negative that is a positive of its query.
        """
        first = sum(count for other, count in itertools.takewhile(lambda c: c[0] != name, self.columns.items()))
        return self._lengths[indices, first : first + self.columns[name]]


def _folder_name(task: AnyTask, key: dict, fingerprint: dict) -> str:
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", task.name)
    return f"{safe}-{documents.digest_json(key)[:12]}-{documents.digest_json(fingerprint)[:8]}"


def folder_of(task: AnyTask, tokenizer: Tokenizer, features: Sequence[Feature], cache_dir) -> pathlib.Path:
    """Returns the folder of a task's cache as the task is declared, and its source stands, now."""
    return pathlib.Path(cache_dir) / _folder_name(task, cache_key(task, tokenizer, features), _fingerprint(task))


def find(task: AnyTask, tokenizer: Tokenizer, features: Sequence[Feature], cache_dir) -> Cache | None:
    """Returns the verified cache of a task as it is declared now, or None when it has to be prepared.

    When no file of the source is on this machine, a cache of the same declaration is taken as it is. A source of which some files
    are missing, or that has a bad record, is an error.
    """
    cache_dir = pathlib.Path(cache_dir)
    key = cache_key(task, tokenizer, features)
    try:
        fingerprint = _fingerprint(task)
    except NotHere as e:
        prefix = _folder_name(task, key, {}).rpartition("-")[0]
        manifests = sorted(cache_dir.glob(f"{prefix}-*/{files.MANIFEST}"))
        if not manifests and (old := outdated(task, cache_dir)):
            raise DataError(
                f"{old[0]}: an older version of embed wrote this cache, and its source is not here ({e}); prepare the task again "
                "where its source is"
            ) from e
        if len(manifests) != 1:
            raise
        folder, fingerprint = manifests[0].parent, None
    else:
        folder = cache_dir / _folder_name(task, key, fingerprint)
    if not (folder / files.MANIFEST).is_file():
        return None
    return Cache(folder, files.verify_manifest(folder), fingerprint is not None)


def outdated(task: AnyTask, cache_dir) -> list[pathlib.Path]:
    """Returns the folders of caches of a task of this name that an older version of embed wrote, which nothing reads."""
    prefix = _folder_name(task, {}, {}).rpartition("-")[0].rpartition("-")[0]
    manifests = sorted(pathlib.Path(cache_dir).glob(f"{prefix}-{'?' * 12}-{'?' * 8}/{files.MANIFEST}"))
    read = [(path.parent, files.read_manifest(path.parent)) for path in manifests]
    return [folder for folder, m in read if m.get("task") == task.name and m["key"]["format"] != CACHE_FORMAT]


def _fingerprint(task: AnyTask) -> dict:
    source = getattr(task, "source", task)
    # A copy of a place in a bucket lies elsewhere on each machine.
    return json.loads(addresses.restored(json.dumps(source.fingerprint())))


def write(
    task: AnyTask,
    tokenizer: Tokenizer,
    features: Sequence[Feature],
    cache_dir,
    examples: Iterable[dict[str, Any]],
    progress: Callable[[int], None] = lambda n: None,
) -> Cache:
    """Writes the encoded `examples` of a task as its cache and returns it. No example at all is a DataError."""
    from array_record.python import array_record_module

    key, fingerprint = cache_key(task, tokenizer, features), _fingerprint(task)
    folder = pathlib.Path(cache_dir) / _folder_name(task, key, fingerprint)
    fields = [field for feature in features for field in feature.fields]
    count, shards, writer, texts = 0, [], None, _TextTable(features)
    with files.new_folder(folder, overwrite=True) as temporary:
        for example in examples:
            if count % _RECORDS_PER_SHARD == 0:
                if writer is not None:
                    _write(folder, writer.close)
                shards.append(f"records-{len(shards):05d}.array_record")
                writer = array_record_module.ArrayRecordWriter(str(temporary / shards[-1]), "group_size:1")
            _write(folder, writer.write, records.pack(example, fields))
            texts.add(example)
            count += 1
            if count % 1000 == 0:
                progress(count)
        if writer is None:
            raise DataError(f"task {task.name!r}: its source gave no examples; correct the source")
        _write(folder, writer.close)
        np.save(temporary / _LENGTHS, texts.lengths(), allow_pickle=False)
        np.save(temporary / _GROUPS, texts.groups(), allow_pickle=False)
        manifest = files.write_manifest(
            temporary,
            kind="token-cache",
            task=task.name,
            key=key,
            fingerprint=fingerprint,
            records=count,
            shards=shards,
            fields=[dataclasses.asdict(f) for f in fields],
            **texts.summary(),
            **_bad_records(task),
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


class _TextTable:
    """What a cache knows of all its texts: their lengths, which are left out, and how many tokens there are."""

    def __init__(self, features: Sequence[Feature]):
        self._features = text_features(features)
        self._sizes: dict[str, list[np.ndarray]] = {f.name: [] for f in self._features}
        self._tokens = {f.name: 0 for f in self._features}
        self._truncated = {f.name: 0 for f in self._features}
        self._groups, self._count = array.array("q"), 0
        fields = [f.group_field for f in features] + [f"{f.name}_id" for f in self._features]
        self._group = next((field for field in fields if field is not None), None)
        self._known = {
            f.name: _KnownPositives(f) for f in self._features if isinstance(f, Texts) and f.query and f.positives
        }

    def add(self, example: Mapping[str, Any]) -> None:
        """Adds the next record."""
        for f in self._features:
            self._sizes[f.name].append(np.array(example[f"{f.name}_lengths"], np.int32))
            self._tokens[f.name] += len(example[f.name])
            self._truncated[f.name] += int(example[f"{f.name}_truncated"])
        for known in self._known.values():
            known.add(example)
        ids = () if self._group is None else np.atleast_1d(example[self._group])
        self._groups.append(int(ids[0]) if len(ids) else self._count)
        self._count += 1

    def lengths(self) -> np.ndarray:
        """Returns the tokens of each record's texts: int32 [records, columns of all features]."""
        return np.concatenate([np.zeros((self._count, 0), np.int32), *self._tables.values()], axis=1)

    def groups(self) -> np.ndarray:
        """Returns `Cache.groups`."""
        return np.frombuffer(self._groups, np.int64)

    def summary(self) -> dict[str, Any]:
        """Returns what the manifest says of the texts."""
        return {
            "columns": {name: table.shape[1] for name, table in self._tables.items()},
            "longest": max((int(table.max(initial=0)) for table in self._tables.values()), default=0),
            "left_out": {
                name: int(known.are_known(self._tables[name].shape[1]).sum()) for name, known in self._known.items()
            },
            "texts": {name: sum(map(len, sizes)) for name, sizes in self._sizes.items()},
            "tokens": self._tokens,
            "truncated": self._truncated,
        }

    @functools.cached_property
    def _tables(self) -> dict[str, np.ndarray]:
        """{feature: int32 [records, columns]}, with 0 for texts that are left out."""
        tables = {f.name: _table(self._sizes[f.name], f.each == ()) for f in self._features}
        for name, known in self._known.items():
            tables[name][known.are_known(tables[name].shape[1])] = 0
        return tables


class _KnownPositives:
    """Finds the texts of a feature, in any record of a task, that are positives of their query."""

    def __init__(self, feature: Texts):
        self._feature = feature
        self._queries, self._positives = array.array("q"), array.array("q")
        self._asked, self._texts, self._rows, self._columns = (array.array("q") for _ in range(4))
        self._count = 0

    def add(self, example: Mapping[str, Any]) -> None:
        """Adds the next record."""
        positives = list(map(int, example[f"{self._feature.positives}_equal_ids"]))
        for query in map(int, example[f"{self._feature.query}_id"]):
            self._queries.extend([query] * len(positives))
            self._positives.extend(positives)
            for column, text in enumerate(example[f"{self._feature.name}_id"]):
                self._asked.append(query)
                self._texts.append(int(text))
                self._rows.append(self._count)
                self._columns.append(column)
        self._count += 1

    def are_known(self, columns: int) -> np.ndarray:
        """Returns bool [records, columns]."""
        table = np.zeros((self._count, columns), bool)
        if len(self._texts):
            known = np.isin(_pairs(self._asked, self._texts), _pairs(self._queries, self._positives))
            table[np.frombuffer(self._rows, np.int64)[known], np.frombuffer(self._columns, np.int64)[known]] = True
        return table


def _pairs(queries: array.array, texts: array.array) -> np.ndarray:
    return pair_id(*(np.frombuffer(x, np.int64) for x in (queries, texts)))


def _table(rows: Sequence[np.ndarray], at_least_one: bool) -> np.ndarray:
    """Returns rows of different sizes as one array, filled up with zeros."""
    table = np.zeros((len(rows), max(max(map(len, rows)), int(at_least_one))), np.int32)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table
