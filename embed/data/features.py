"""Features: what becomes of one named value of a record, from the source to the arrays of a batch.

A feature says which values of a record it reads (`roles`), what of them is cached (`encode`, `fields`), and what a batch holds
of a cached example (`collate`). `records`, `cache`, `seqio_tasks`, `loader` and `packing` know features through this class only,
and so does the forecast of `embed compile`. Texts are features too; they share packed rows (`text_features`).

Your own feature is a frozen dataclass that inherits from `Feature` and is named in gin, in `Recipe.features`.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from embed import documents, image_bytes, ranges
from embed.data import vector_store
from embed.data.draws import Draws
from embed.data.records import Field
from embed.data.tokenizers import Tokenizer
from embed.errors import ConfigError, DataError
from embed.sources.fields import Record, text_of
from embed.text import content_id

Example = Mapping[str, np.ndarray]  # a cached record: array by the name of its field


@dataclasses.dataclass(frozen=True)
class Role:
    """A value of a record: its name, which a source's `fields` map, and its kind.

    'text' is a text; 'texts' one or several; 'numbers' a number or a list of them; 'bytes' raw bytes, such as those of an image;
    'files' the bytes of one file or of several.
    A record may lack a role that is `optional`: it then has no text, no numbers, no bytes.
    """

    name: str
    kind: Literal["text", "texts", "numbers", "bytes", "files"]
    optional: bool = False


@dataclasses.dataclass(frozen=True)
class Context:
    """What a feature encodes records with: the tokenizer, and {'query': template, 'target': template} of each record."""

    tokenizer: Tokenizer
    templates: Sequence[Mapping[str, str]]


@dataclasses.dataclass(frozen=True)
class Unit:
    """The examples of one micro-batch on one shard, as they were drawn.

    Of each text feature, by its name, `columns` are the numbers of the drawn texts among the record's, -1 for none, and
    `text_index` where their vectors lie among those of the packed rows: int [n] for one text of each example, [n, N] for several.
    `tokenizer` is that of the caches.
    """

    examples: Sequence[Example]
    draws: Draws
    columns: Mapping[str, np.ndarray]
    text_index: Mapping[str, np.ndarray]
    tokenizer: Tokenizer | None = None

    def __len__(self) -> int:
        return len(self.examples)


class Feature:
    """Base of features; `name` is that of its arrays. All methods are pure functions."""

    name: str

    @property
    def roles(self) -> tuple[Role, ...]:
        """The values of a record that it reads."""
        return ()

    @property
    def fields(self) -> tuple[Field, ...]:
        """The arrays of a cached record that it writes, of rank 0 or 1."""
        return ()

    def definition(self) -> dict[str, Any]:
        """Returns the options that decide what is cached, as JSON. All of them, unless the feature says otherwise."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def identity(self) -> dict[str, Any]:
        """Returns what must not change while a run lasts, beside its options and the cached records, as JSON."""
        return {}

    @property
    def group_field(self) -> str | None:
        """The cached id by which records stay together when some are held out, or None."""
        return None

    def encode(self, records: Sequence[Record], context: Context) -> list[dict[str, np.ndarray]]:
        """Returns the arrays of `fields` for each record, at `embed prepare`. A record has a location, for errors."""
        del context
        return [{} for _ in records]

    def check_record(self, record: Record) -> None:
        """Raises DataError for a record that `encode` cannot take, where bad records are left out: one with a damaged image."""

    def vocabulary_texts(self, record: Record, templates: Mapping[str, str], length: int) -> list[str]:
        """Returns the texts of a record that a vocabulary is trained on, of at most `length` characters each, prompts aside."""
        return []

    def collate(self, unit: Unit) -> dict[str, np.ndarray]:
        """Returns the arrays of a batch, each [n, ...]. Randomness comes from `unit.draws` alone."""
        raise NotImplementedError

    def shapes(self, size: int, texts: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Returns {array: (shape, dtype)} of what `collate` gives for `size` examples.

        `texts` are the text features of the batch: () for one text of each example, (N,) for several.
        """
        raise NotImplementedError

    @property
    def title(self) -> str:
        """What an example has of it, for people."""
        return self.name

    def preview(self, unit: Unit) -> list[str]:
        """Returns what a model reads of each example, for people; [] where that is no text."""
        return []

    def check(self, cache: Any) -> None:
        """Raises a DataError where the examples of a task's cache cannot be collated. Called when a run starts."""

    def token_counts(self, arrays: Mapping[str, np.ndarray]) -> tuple[int, int]:
        """Returns how many real tokens its own arrays hold, and their room. Texts in packed rows are not counted."""
        return 0, 0

    def flops(self, methods: Mapping[str, Any], cache: Any = None) -> float:
        """Returns the FLOPs that a forward pass of a model with `methods` spends on one average example of the task of `cache`.

        None stands for a task whose texts are as long as they can be.
        """
        return 0.0


@dataclasses.dataclass(frozen=True)
class Labels(Feature):
    """A label of each record, a text or a number, as a content id. The batch has uint32 [n, 2] under its name."""

    name: str = "label"

    @property
    def roles(self):
        return (Role(self.name, "text"),)

    @property
    def fields(self):
        return (Field(self.name, "int64", 0),)

    def encode(self, records, context):
        return [{self.name: content_id(record[self.name])} for record in records]

    def collate(self, unit):
        return {self.name: split_ids([e[self.name] for e in unit.examples])}

    def shapes(self, size, texts):
        return {self.name: ((size, 2), np.uint32)}


@dataclasses.dataclass(frozen=True)
class Scores(Feature):
    """A score of each record: a number, float32 [n] in the batch.

    With `each`, the name of a feature of several texts, a record has a score of its target and of each of those texts, and the
    batch float32 [n, 1 + N]: the target's first, then those of the texts that are drawn, 0 where there is none. A list of one
    score less than that is read as margins, the target's score minus that of each text, and a number as the margin to one. A
    record without any of those texts may lack the scores: there is nothing to compare.
    """

    name: str = "score"
    each: str | None = None

    def __post_init__(self):
        ranges.check_fields(self)

    @property
    def roles(self):
        return (Role(self.name, "numbers", optional=self.each is not None),)

    @property
    def fields(self):
        return (Field(self.name, "float32", 0 if self.each is None else 1),)

    def encode(self, records, context):
        return [{self.name: self._scores(record)} for record in records]

    def _scores(self, record: Record) -> np.ndarray:
        numbers = np.asarray(record.get(self.name, ()), np.float64)
        for role in ("query", "target"):
            if len(numbers) and not isinstance(record.get(role), str) and len(record.get(role) or ()) > 1:
                raise DataError(
                    f"{record['location']}: {self.name} belongs to one {role}, and the record has {len(record[role])}; make a "
                    "record of each"
                )
        if self.each is None:
            if len(numbers) != 1:
                raise DataError(f"{record['location']}: {self.name} holds {len(numbers)} numbers, expected one")
            return np.float32(numbers[0])
        texts = len(record.get(self.each) or ())
        if len(numbers) == texts + 1:
            return numbers.astype(np.float32)
        if len(numbers) != texts:
            raise DataError(
                f"{record['location']}: {self.name} holds {len(numbers)} numbers for {texts} {self.each}; expected {texts} "
                f"margins, or {texts + 1} scores with the target's first"
            )
        return np.concatenate([[0.0], -numbers]).astype(np.float32)

    def collate(self, unit):
        if self.each is None:
            return {self.name: np.array([e[self.name] for e in unit.examples], np.float32)}
        columns = unit.columns.get(self.each, np.zeros((len(unit), 0), np.int64))
        scores = np.zeros((len(unit), 1 + columns.shape[1]), np.float32)
        for i, example in enumerate(unit.examples):
            is_there = columns[i] >= 0
            scores[i, 0] = example[self.name][0]
            scores[i, 1:][is_there] = example[self.name][1 + columns[i, is_there]]
        return {self.name: scores}

    def shapes(self, size, texts):
        each = () if self.each is None else (1 + sum(texts.get(self.each, ())),)
        return {self.name: ((size, *each), np.float32)}


@dataclasses.dataclass(frozen=True)
class Vectors(Feature):
    """Vectors of a teacher, computed once and joined by the content id of the feature `of`, texts or an image: float32 [n, dim].

    For a feature of several texts they are [n, N, dim], 0 where there is no text. `path` is a folder that `vector_store.write`
    has made, or several of them (`vector_store.Union`). `dim`, where given, is the size that its vectors must have, and stands for
    a folder that is not made yet in `embed compile`. An item without a vector there is a DataError when a run starts. Nothing
    of it is cached with the records.
    """

    name: str
    of: str
    path: str | Sequence[str]
    dim: ranges.Count | None = None

    def __post_init__(self):
        ranges.check_fields(self)

    @functools.cached_property
    def store(self) -> vector_store.VectorStore | vector_store.Union:
        """The verified folder or folders."""
        store = vector_store.read_all(self.path)
        if self.dim not in (None, store.dim):
            raise DataError(
                f"{self.path}: holds vectors of {store.dim} values, and Vectors.dim = {self.dim}; give that size"
            )
        return store

    def identity(self):
        """Returns the digest of the vectors."""
        return {"vectors": self.store.digest}

    def check(self, cache):
        ids = [np.atleast_1d(e[f"{self.of}_id"]) for some in blocks(len(cache)) for e in cache.read(some)]
        self.store.of(np.concatenate(ids), self.of)

    def collate(self, unit):
        if self.of not in unit.columns:  # an image, of which a record has one
            ids = np.array([e[f"{self.of}_id"] for e in unit.examples], np.int64)
            return {self.name: self.store.of(ids, self.of).astype(np.float32)}
        columns = unit.columns[self.of]
        vectors = np.zeros((*columns.shape, self.store.dim), np.float32)
        vectors[columns >= 0] = self.store.of(drawn_ids(unit, self.of)[columns >= 0], self.of)
        return {self.name: vectors}

    def shapes(self, size, texts):
        return {self.name: ((size, *texts.get(self.of, ()), self.dim or self.store.dim), np.float32)}


def blocks(count: int, size: int = 4096) -> list[range]:
    """Returns the numbers 0, ..., count - 1 in ranges of `size`, to read a cache by."""
    return [range(i, min(i + size, count)) for i in range(0, count, size)]


def drawn_ids(unit: Unit, name: str) -> np.ndarray:
    """Returns the content ids of the drawn texts of a text feature, in the shape of its columns: int64, 0 where there is none."""
    columns, ids_of = unit.columns[name], [e[f"{name}_id"] for e in unit.examples]
    if columns.ndim == 1:
        return np.array([ids[i] for ids, i in zip(ids_of, columns.tolist())], np.int64)
    drawn = np.zeros(columns.shape, np.int64)
    for i, ids in enumerate(ids_of):
        is_there = columns[i] >= 0
        drawn[i, is_there] = ids[columns[i, is_there]]
    return drawn


def split_ids(ids) -> np.ndarray:
    """Returns 64-bit ids as two uint32 each, in a new last dimension: JAX knows no 64-bit integers unless it is told to."""
    ids = np.asarray(ids, "<i8")
    return np.ascontiguousarray(ids).view("<u4").reshape(*ids.shape, 2)


def definitions(features: Sequence[Feature]) -> list[dict[str, Any]]:
    """Returns what of the features decides a cache, as JSON."""
    return [
        {"type": f"{type(f).__module__}.{type(f).__qualname__}", "name": f.name, **f.definition()}
        for f in features
        if f.fields
    ]


def roles_of(features: Sequence[Feature]) -> dict[str, Role]:
    """Returns the values of a record that features read, by name. Two features that read one as different kinds are an error."""
    roles: dict[str, Role] = {}
    for role in (role for feature in features for role in feature.roles):
        known = roles.setdefault(role.name, role)
        if known.kind != role.kind:
            raise ConfigError(
                f"two features read {role.name!r}, as {known.kind!r} and as {role.kind!r}; name one otherwise"
            )
        if not role.optional:
            roles[role.name] = role
    return roles


def parse_value(value: Any, role: Role, field: str, location: str) -> Any:
    """Returns a value of a record in its role's kind: str, [str, ...], [float, ...], bytes or [bytes, ...], cleaned and checked.

    An image may be the bytes of its file, an array of its pixels, or {"bytes": ..., "path": ...}, as Hugging Face has it.

    What is of another kind, and a missing value that is needed, are DataErrors that name field and location.
    """
    if role.kind == "bytes":
        value = image_bytes.file_of(value, f"{location}: field {field!r}")
    if role.kind == "files":
        return _files(value, role, field, location)
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    listed = list(value) if isinstance(value, list | tuple) else [value]
    if all(one is None or isinstance(one, str | bytes) and not one.strip() for one in listed):
        if not role.optional:
            text_of(listed[0] if listed else "", field, location)
        return {"text": "", "texts": [], "numbers": [], "bytes": b""}[role.kind]
    if role.kind == "texts":
        return [text_of(one, field, location) for one in listed]
    if role.kind == "numbers":
        return _numbers(value, field, location)
    if role.kind == "bytes":
        if not isinstance(value, bytes):
            raise DataError(f"{location}: field {field!r} {_no_bytes(value)}")
        return value
    return _label(value, field, location)


def _files(value: Any, role: Role, field: str, location: str) -> list[bytes]:
    """Returns the bytes of the files of a value: one of them, or a list."""
    listed = list(value) if isinstance(value, list | tuple) or np.ndim(value) == 1 else [value]
    if len(listed) > 1 and any(one is None for one in listed):
        raise DataError(f"{location}: field {field!r} has an empty entry among {len(listed)}; fill it or remove it")
    files = [image_bytes.file_of(one, f"{location}: field {field!r}") for one in listed if one is not None]
    for content in files:
        if not isinstance(content, bytes):
            raise DataError(f"{location}: field {field!r} {_no_bytes(content)}")
    if not files and not role.optional:
        raise DataError(f"{location}: field {field!r} is empty; fill it or remove the record")
    return files


def _no_bytes(value: Any) -> str:
    return (
        f"is {type(value).__name__}, expected the bytes of a file; for paths of images put sources.ImageFiles around the "
        "source"
    )


def _numbers(value: Any, field: str, location: str) -> list[float]:
    """Returns numbers of a number, a list of them, or their text in a table."""
    if isinstance(value, str):
        text = value.strip()
        value = documents.parse_json(text, location, list) if text.startswith("[") else text
    numbers = []
    for one in value if isinstance(value, list | tuple) else [value]:
        try:
            number = float(one) if isinstance(one, int | float | str) else math.nan
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or abs(number) > ranges.MAX_FLOAT:
            raise DataError(f"{location}: field {field!r} holds {str(one)[:40]!r}, expected a finite number")
        numbers.append(number)
    return numbers


def _label(value: Any, field: str, location: str) -> str:
    """Returns a label as a text: 3, 3.0 and '3' are one label."""
    if isinstance(value, int | float) and math.isfinite(value):
        return str(int(value) if value == int(value) else value)
    return text_of(value, field, location)
