"""Where pairs come from: files, BEIR folders, TFDS, Hugging Face datasets. Named and mapped in gin, no Python to write.

A source yields (location, record): the location is "file:line", for errors; a record holds the values of the roles that `fields`
maps. Those of text pairs are `query` and `target` (a text, or a list of which one is drawn an epoch), and optionally `title` (of
the target), `negatives` (a list), `query_prompt` and `target_prompt` (templates in place of the task's), `query_key` and
`target_key` (what decides that two items are the same, when that is not their text). Other features read roles of their own, such
as `score`, `scores` and `label` (`data.features`). Texts are cleaned and not empty; bad records are one-line DataErrors.
"""

import dataclasses
import functools
import gzip
import io
import json
import os
import pathlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from embed import ranges
from embed.data import qrels
from embed.data.fields import (
    DEFAULT_BAD_SHARE,
    DEFAULT_FIELDS,
    BadRecords,
    Record,
    map_fields,
    map_records,
    rows_by_id,
)
from embed.data.lines import read_json_lines, read_lines, read_table
from embed.documents import digest_json, first_line
from embed.errors import DataError, did_you_mean
from embed.files import sha256_file
from embed.ranges import Count, Share


def expand_paths(path: str | Sequence[str], option: str) -> list[str]:
    """Returns the files that a path, a pattern with *, or several of them name, sorted. Each must name at least one.

    A file that several of them name is taken once. A path that names a file is no pattern, and neither are the folders before
    the first *.
    """
    found: dict[str, str] = {}  # real path -> path as it was given
    for one in [path] if isinstance(path, str) else path:
        base = pathlib.Path(one)
        matches = [one] if _is_file(base) else []
        if not matches and "*" in one:
            first = next(i for i, part in enumerate(base.parts) if "*" in part)
            matches = [
                str(p)
                for p in pathlib.Path(*base.parts[:first]).glob("/".join(base.parts[first:]))
                if p.is_file() and (not p.name.startswith(".") or base.name.startswith("."))
            ]
        if not matches:
            advice = f"is a folder; name its files, as in {one}/*" if base.is_dir() else "no such file"
            raise DataError(f"{one}: {advice}; correct {option}")
        for match in matches:
            if not match.isprintable() and any(0xDC80 <= ord(c) <= 0xDCFF for c in match):
                raise DataError(f"{match!a}: the name of the file is not valid UTF-8; rename it")
            found.setdefault(os.path.realpath(match), match)
    return sorted(found.values())


def _is_file(path: pathlib.Path) -> bool:
    try:
        return path.is_file()
    except OSError as e:  # of a name that is too long, for one
        raise DataError(f"{path}: cannot be read ({e.strerror or e}); correct the path") from e


class Mapped:
    """Base of sources with raw() whose rows are mapped by `fields`; they have `optional`, `on_bad_record` and `max_bad_share`."""

    def __post_init__(self):
        ranges.check_fields(self)
        _ = self.bad_records  # refuses a policy that is none

    @functools.cached_property
    def bad_records(self) -> BadRecords:
        """The records that the last `examples` left out."""
        return BadRecords(self.on_bad_record, self.max_bad_share, type(self).__name__)

    def examples(self) -> Iterator[tuple[str, Record]]:
        """Yields (location, record) of all rows in order."""
        self.__dict__.pop("bad_records", None)  # counted anew
        return map_records(self.raw(), self.fields, self.optional, type(self).__name__, self.bad_records)


@dataclasses.dataclass(frozen=True)
class Files(Mapped):
    """Base of sources that read files. `path` is one path or several; they are read in sorted order.

    `fields` maps our roles to the files' fields, which may be paths into nested ones (`fields.value_at`). Roles in `optional`
    may be mapped to a field that no record has, and may be left unused by a recipe. With `on_bad_record` 'skip' a record that
    cannot be read or mapped is left out and counted, up to the share `max_bad_share` of all; with 'error' it ends the reading.
    """

    path: str | Sequence[str]
    fields: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(DEFAULT_FIELDS))
    optional: Sequence[str] = ()
    on_bad_record: str = "error"
    max_bad_share: Share = DEFAULT_BAD_SHARE

    def paths(self) -> list[str]:
        """Returns the files, sorted; a path with * is a pattern. None found is a DataError."""
        return expand_paths(self.path, f"{type(self).__name__}.path")

    def fingerprint(self) -> dict[str, str]:
        """Returns {file: sha256}, which decides whether a token cache is still of these files."""
        return {path: sha256_file(path) for path in self.paths()}

    def rows(self, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields ("file:line", raw record)."""
        raise NotImplementedError

    def raw(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields ("file:line", raw record) of all files in order."""
        for path in self.paths():
            yield from self.rows(path)


@dataclasses.dataclass(frozen=True)
class JsonLines(Files):
    """One JSON object a line, or one array of objects; also .gz. `fields` maps our roles to the file's field names."""

    def rows(self, path):
        return read_json_lines(path, self.bad_records.refuse)


@dataclasses.dataclass(frozen=True)
class TabSeparated(Files):
    """Tables with a header line, .tsv or .csv, also .gz; `fields` maps our roles to column names.

    `quoting` is 'csv', 'none' or 'auto' (`lines.read_table`).
    """

    quoting: str = "auto"

    def rows(self, path):
        return read_table(path, self.quoting, self.bad_records.refuse)


@dataclasses.dataclass(frozen=True)
class Parquet(Files):
    """Parquet files; `fields` maps our roles to column names. Needs the extra [parquet]."""

    def rows(self, path):
        try:
            import pyarrow.parquet as parquet
        except ImportError as e:
            raise DataError("parquet files need pyarrow; run: pip install 'embed[parquet]'") from e
        try:
            table, number = parquet.ParquetFile(path), 0
            for batch in table.iter_batches(1024):
                for raw in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", raw
        except (OSError, ValueError) as e:
            raise DataError(f"{path}: not a readable parquet file ({first_line(e)}); fetch it again") from e


@dataclasses.dataclass(frozen=True)
class BeirFolder:
    """A BEIR-style folder: queries.jsonl, corpus.jsonl (both may be .gz) and qrels. Each relevant pair is an example."""

    path: str
    split: str = "train"

    def _file(self, *names: str) -> str:
        for name in names:
            for suffix in ("", ".gz"):
                if (pathlib.Path(self.path) / (name + suffix)).is_file():
                    return str(pathlib.Path(self.path) / (name + suffix))
        raise DataError(f"{self.path}: has no {' or '.join(names)} (.gz); it is not a BEIR folder")

    def parts(self) -> tuple[str, str, str]:
        """Returns the paths of queries, corpus and qrels."""
        judgements = self._file(f"qrels/{self.split}.tsv", "qrels.tsv")
        if self.split != type(self).split and pathlib.Path(judgements).parent.name != "qrels":
            raise DataError(
                f"{self.path}: has no qrels/{self.split}.tsv (.gz), and {judgements} has no splits; correct BeirFolder.split, "
                "or leave it out"
            )
        return self._file("queries.jsonl"), self._file("corpus.jsonl"), judgements

    def fingerprint(self) -> dict[str, str]:
        """Returns {file: sha256}."""
        return {path: sha256_file(path) for path in self.parts()}

    def examples(self) -> Iterator[tuple[str, Record]]:
        """Yields one record per relevant (query, document), in the order of qrels; graded zero means not relevant."""
        queries_path, corpus_path, qrels_path = self.parts()
        queries, corpus = (
            {key: (w, row) for w, key, row in rows_by_id(read_json_lines(p))} for p in (queries_path, corpus_path)
        )
        for location, query, document, score in qrels.parse(read_lines(qrels_path)):
            if score <= 0:
                continue
            for kind, ids, key in (("query", queries, query), ("document", corpus, document)):
                if key not in ids:
                    raise DataError(f"{location}: names the {kind} {key!r}, which is not in the folder; correct qrels")
            asked = map_fields(queries[query][1], {"query": "text"}, queries[query][0], several=False)
            fields = {"target": "text", "title": "title"}
            answer = map_fields(corpus[document][1], fields, corpus[document][0], several=False)
            yield location, {**asked, **answer}


@dataclasses.dataclass(frozen=True)
class HuggingFaceDataset(Mapped):
    """A dataset of the Hugging Face Hub, a local one, or a folder of `save_to_disk`; needs `datasets` (extra [huggingface]).

    `streaming` reads it as it comes instead of fetching all of it first; `most` stops after that many rows. `optional`,
    `on_bad_record` and `max_bad_share` are as in `Files`.
    """

    name: str
    fields: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(DEFAULT_FIELDS))
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    streaming: bool = False
    most: Count | None = None
    optional: Sequence[str] = ()
    on_bad_record: str = "error"
    max_bad_share: Share = DEFAULT_BAD_SHARE

    def fingerprint(self) -> dict[str, str]:
        """Returns {file: sha256} of a local folder; of a set of the Hub its name and revision. Without a revision a set that
        changes on the Hub is not noticed."""
        names = {"name": self.name, "config": str(self.config), "revision": str(self.revision)}
        return names | folder_fingerprint(self.name)

    def raw(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields ("name[split]:row", raw record)."""
        for number, raw in enumerate(self.load()):
            if self.most is not None and number >= self.most:
                return
            yield f"{self.name}[{self.split}]:{number}", raw

    def load(self):
        """Returns the dataset as the package `datasets` gives it."""
        try:
            import datasets
        except ImportError as e:
            raise DataError("Hugging Face datasets need a package; run: pip install 'embed[huggingface]'") from e
        if is_saved_dataset(self.name):
            return self._saved(datasets)
        options = {"streaming": True} if self.streaming else {}
        local = folder_fingerprint(self.name)
        if local:  # the package's own cache goes by the times of files, which a copy may keep
            options["cache_dir"] = str(pathlib.Path(datasets.config.HF_DATASETS_CACHE) / digest_json(local)[:16])
        return datasets.load_dataset(self.name, self.config, split=self.split, revision=self.revision, **options)

    def _saved(self, datasets):
        """Returns the dataset that `save_to_disk` wrote, or its split where it wrote several."""
        if self.config is not None or self.revision is not None or self.streaming:
            raise DataError(
                f"{self.name}: was written by save_to_disk, where HuggingFaceDataset.config, revision and streaming have no "
                "effect; leave them out"
            )
        saved = datasets.load_from_disk(self.name)
        if isinstance(saved, datasets.DatasetDict):
            if self.split not in saved:
                raise DataError(f"{self.name}: no split {self.split!r}{did_you_mean(self.split, saved)}")
            return saved[self.split]
        if self.split not in ("train", str(saved.split)):
            raise DataError(
                f"{self.name}: holds one dataset, not the split {self.split!r}; leave out HuggingFaceDataset.split"
            )
        return saved


@dataclasses.dataclass(frozen=True)
class Tfds:
    """A TFDS dataset, e.g. name='natural_questions/longt5:0.1.0'; read by seqio's own TfdsDataSource."""

    name: str
    fields: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(DEFAULT_FIELDS))
    split: str = "train"
    data_dir: str | None = None

    def fingerprint(self) -> dict[str, str]:
        """Returns the dataset's name with its version, and the names and sizes of its files where they are on this machine."""
        base = pathlib.Path(self.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
        folder = base / self.name.partition(":")[0]
        names = {"name": self.name, "split": self.split}
        described = sorted(folder.rglob("dataset_info.json")) if folder.is_dir() else []
        sizes = [[str(p.relative_to(folder)), p.stat().st_size] for p in sorted(folder.rglob("*")) if p.is_file()]
        return names | ({"files": digest_json([sizes, [sha256_file(p) for p in described]])} if described else {})

    def raw(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields ("name[split]:row", raw record), for sources that are made from it."""
        import tensorflow_datasets as tfds

        rows = tfds.load(self.name, split=self.split, data_dir=self.data_dir, download=False)
        for number, raw in enumerate(tfds.as_numpy(rows)):
            yield f"{self.name}[{self.split}]:{number}", raw


@dataclasses.dataclass(frozen=True)
class LabelledTexts:
    """Classification data (jsonl of text and label) as contrastive pairs, in one of the two label modes.

    `label_as_target`: the target is the label's text, the negative another label (Gemini Embedding). Equal targets mask each
    other in the loss. `same_label_text_as_target`: the target is another text of the same label, the negative a text of
    another label (Gecko); the label, not the text, then decides what is masked. Choices are a function of `seed` and line.
    Source: arXiv:2503.07891 s3.2 and arXiv:2403.20327 s3.3.
    """

    path: str | Sequence[str]
    text: str = "text"
    label: str = "label"
    mode: str = "label_as_target"
    seed: int = 0

    def fingerprint(self) -> dict[str, str]:
        """Returns {file: sha256}."""
        return {path: sha256_file(path) for path in expand_paths(self.path, f"{type(self).__name__}.path")}

    def examples(self) -> Iterator[tuple[str, Record]]:
        """Yields ("file:line", record) with one negative each."""
        if self.mode not in ("label_as_target", "same_label_text_as_target"):
            raise DataError(f"LabelledTexts.mode = {self.mode!r}; known: label_as_target, same_label_text_as_target")
        rows = []
        for path in expand_paths(self.path, f"{type(self).__name__}.path"):
            for location, raw in read_json_lines(path):
                label = raw.get(self.label)
                named = {**raw, self.label: str(label)} if isinstance(label, int) else raw  # class numbers and booleans
                mapped = map_fields(named, {"query": self.text, "target": self.label}, location, several=False)
                rows.append((location, mapped["query"], mapped["target"]))
        by_label: dict[str, list[int]] = {}
        for i, (_, _, label) in enumerate(rows):
            by_label.setdefault(label, []).append(i)
        if len(by_label) < 2:
            raise DataError(f"{self.path}: one label only ({next(iter(by_label), 'none')!r}); classification needs two")
        labels = sorted(by_label)
        if self.mode == "same_label_text_as_target" and len(rows) == len(by_label):
            raise DataError(
                f"{self.path}: every label has one text only; {self.mode!r} needs another text of the same label"
            )
        for i, (location, query, label) in enumerate(rows):
            choose = random.Random(f"{self.seed}:{i}")
            other = choose.choice([x for x in labels if x != label])
            if self.mode == "label_as_target":
                yield location, {"query": query, "target": label, "negatives": [other]}
                continue
            same = [j for j in by_label[label] if j != i]
            if same:  # a label with a single text has no positive to offer
                negative = rows[choose.choice(by_label[other])][1]
                target = rows[choose.choice(same)][1]
                yield (
                    location,
                    {"query": query, "target": target, "negatives": [negative], "target_key": f"label:{label}"},
                )


def is_saved_dataset(name: str) -> bool:
    """Returns whether a folder was written by the `save_to_disk` of a Hugging Face dataset."""
    folder = pathlib.Path(name)
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def folder_fingerprint(name: str) -> dict[str, str]:
    """Returns {path: sha256} of every file below a local folder; nothing for what is none."""
    folder = pathlib.Path(name)
    if not folder.is_dir():
        return {}
    return {str(p): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file() and ".cache" not in p.parts}


def write_lines(path, lines) -> None:
    """Writes lines as gzip whose bytes depend on them alone (no time stamp, no file name)."""
    with (
        open(path, "wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        io.TextIOWrapper(packed, "utf-8") as f,
    ):
        f.writelines(line + "\n" for line in lines)


def write_json_lines(path, rows) -> None:
    """Writes objects as jsonl.gz."""
    write_lines(path, map(_json_text, rows))


def _json_text(row: Any) -> str:
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold escaped and UTF-8 cannot
        return json.dumps(row)
    return text


def write_tsv(path, header: Sequence[str], rows) -> None:
    """Writes a header and rows as tsv.gz."""
    write_lines(path, ("\t".join(map(str, row)) for row in [header, *rows]))
