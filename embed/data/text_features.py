"""Features of texts: tokenised when a task is prepared, drawn when a batch is made, packed into the rows that they share."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from embed import ranges
from embed.data.draws import Draws
from embed.data.features import Context, Example, Feature, Role, Unit, drawn_ids, split_ids
from embed.data.records import Field
from embed.data.tokenizers import Tokenizer
from embed.errors import ConfigError, DataError
from embed.sources.fields import Record
from embed.text import apply_prompt, content_id, target_id

Side = Literal["query", "target"]


class TextFeature(Feature):
    """Base of `Text` and `Texts`. A cached record holds any number of texts, one after the other.

    Its fields are `<name>` (token ids), `<name>_lengths` and `<name>_id`, the content id of each text.
    """

    name: str
    length: int
    side: Side

    @property
    def each(self) -> tuple[int, ...]:
        """The shape of an example's texts in a batch: () for one, (N,) for up to N."""
        return ()

    @property
    def fields(self):
        return (
            Field(self.name, "int32", 1),
            Field(f"{self.name}_lengths", "int32", 1),
            Field(f"{self.name}_id", "int64", 1),
        )

    @property
    def counted(self) -> tuple[Field, ...]:
        """Arrays that `encode` gives to the writer of a cache, which does not keep them.

        `<name>_truncated` is how many texts were cut. `<name>_equal_ids` are the ids of the texts that say what one of these says:
        itself without its title, and with the title in front.
        """
        return (Field(f"{self.name}_truncated", "int32", 0), Field(f"{self.name}_equal_ids", "int64", 1))

    def definition(self):
        """Returns what decides the tokens: how texts are cut, and whose prompt they take."""
        return {"length": self.length, "side": self.side}

    def encode(self, records: Sequence[Record], context: Context) -> list[dict[str, np.ndarray]]:
        """Returns the arrays of `fields` and `counted` for each record."""
        listed = [self.texts_of(record) for record in records]
        prompted = [
            apply_prompt(templates[self.side], text, title)
            for templates, texts in zip(context.templates, listed)
            for text, title in texts
        ]
        rows, cut = context.tokenizer.encode_batch(prompted, self.length) if prompted else ([], [])
        encoded, used = [], 0
        for record, texts in zip(records, listed):
            own_rows, own_cut = rows[used : used + len(texts)], cut[used : used + len(texts)]
            used += len(texts)
            ids = [self.id_of(record, text, title) for text, title in texts]
            equal_ids = [
                target_id(variant) for text, title in texts for variant in (text, f"{title} {text}" if title else text)
            ]
            encoded.append(
                {
                    self.name: np.concatenate(own_rows) if own_rows else np.zeros(0, np.int32),
                    f"{self.name}_lengths": np.array([len(x) for x in own_rows], np.int32),
                    f"{self.name}_id": np.array(ids, np.int64),
                    f"{self.name}_truncated": np.int32(sum(own_cut)),
                    f"{self.name}_equal_ids": np.array(equal_ids, np.int64),
                }
            )
        return encoded

    def vocabulary_texts(self, record, templates, length):
        """Returns the texts in their prompts; none of a list of texts, such as hard negatives."""
        texts = self.texts_of(record) if self.each == () else []
        return [apply_prompt(templates[self.side], text[:length], title) for text, title in texts]

    def texts_of(self, record: Record) -> list[tuple[str, str]]:
        """Returns (text, title) of a record's texts."""
        value = record.get(self.name) or ()
        texts = [value] if isinstance(value, str) else list(value)
        title = (record.get("title") or "") if self.titled else ""
        titles = [title] * len(texts) if isinstance(title, str) else list(title)
        if len(titles) != len(texts):
            raise DataError(
                f"{record.get('location', '')}: {len(titles)} titles for {len(texts)} texts {self.name!r}; give each its own"
            )
        return list(zip(texts, titles))

    @property
    def titled(self) -> bool:
        """Whether its texts have titles."""
        return False

    @property
    def title(self):
        return f"{'' if self.each == () else f'{sum(self.each)} '}{self.name} of {self.length} tokens"

    def readable(self, tokenizer: Tokenizer, tokens: np.ndarray) -> str:
        """Returns the text of one of its cached texts, for people."""
        return tokenizer.decode(tokens)

    def id_of(self, record: Record, text: str, title: str) -> np.int64:
        """Returns the content id of one of the record's texts: that of the record's key, where it has one."""
        key = record.get(f"{self.name}_key")
        if key:
            return content_id(key)
        return content_id(text) if self.side == "query" else target_id(text, title)

    def flops(self, methods: Mapping[str, Any], cache: Any = None) -> float:
        """Returns the FLOPs of embedding its texts of one example."""
        if cache is None:
            return math.prod(self.each) * methods["text"].flops(self.length)
        texts, tokens = cache.manifest["texts"][self.name], cache.manifest["tokens"][self.name]
        if not texts:
            return 0.0
        drawn = min(texts / cache.manifest["records"], sum(self.each) if self.each else 1)
        return drawn * methods["text"].flops(tokens / texts)

    def choose(self, lengths: np.ndarray, draws: Draws) -> np.ndarray:
        """Returns the columns that are drawn of [n, k] texts, whose `lengths` are 0 where there is none.

        int64 [n] for a feature of one text, [n, N] for several, with -1 for none.
        """
        raise NotImplementedError

    def texts(self, example: Example, columns) -> list[np.ndarray]:
        """Returns the token ids of a cached record's texts at `columns`, an int or several."""
        sizes = example[f"{self.name}_lengths"]
        if len(sizes) == 1:
            return [example[self.name]] if np.max(columns, initial=-1) >= 0 else []
        stops = np.cumsum(sizes)
        return [example[self.name][stops[i] - sizes[i] : stops[i]] for i in np.atleast_1d(columns) if i >= 0]


@dataclasses.dataclass(frozen=True)
class Text(TextFeature):
    """One text of each record, cut at `length` tokens, in the prompt of its task's `side`.

    A record may have several: all of them are drawn in turn, one an epoch, in a random order of its own. With `titled` the
    role `title` holds their titles. The batch has `<name>_index` int32 [n], where the text's vector lies among those of the packed
    rows, and `<name>_id` uint32 [n, 2].
    """

    name: str
    length: ranges.Count
    side: Side = "target"
    titled: bool = False

    def __post_init__(self):
        ranges.check_fields(self)

    @property
    def roles(self):
        prompt = Role(f"{self.side}_prompt", "text", optional=True)
        titles = (Role("title", "texts", optional=True),) if self.titled else ()
        return (Role(self.name, "texts"), *titles, Role(f"{self.name}_key", "text", optional=True), prompt)

    def choose(self, lengths, draws):
        if lengths.shape[1] == 1:
            return np.zeros(len(draws), np.int64)
        is_there = lengths > 0
        noise = draws.noise(self.name, lengths.shape[1], every_epoch=False) >> np.uint64(1)
        order = np.argsort(np.where(is_there, noise, np.uint64(1 << 63)), axis=1, kind="stable")
        turn = draws.epochs % np.maximum(is_there.sum(1), 1)
        return np.take_along_axis(order, turn[:, None], axis=1)[:, 0]

    def collate(self, unit: Unit):
        return {
            f"{self.name}_index": unit.text_index[self.name],
            f"{self.name}_id": split_ids(drawn_ids(unit, self.name)),
        }

    def shapes(self, size, texts):
        return {f"{self.name}_index": ((size,), np.int32), f"{self.name}_id": ((size, 2), np.uint32)}


@dataclasses.dataclass(frozen=True)
class Texts(TextFeature):
    """Up to `count` texts of each record's list, which may be empty.

    Of a longer list `draw` takes 'random' ones, others in every epoch, or always the 'first'. With `query` and `positives`, names
    of text features, a text that is a positive of the same query in any record of its task is never drawn. The batch has
    `<name>_index` int32 [n, N], `<name>_id` uint32 [n, N, 2] and `<name>_mask` bool [n, N], False where a record has no text;
    nothing of it where no record of the batch's task can have one.
    """

    name: str
    length: ranges.Count
    count: ranges.Natural = 1
    side: Side = "target"
    draw: Literal["random", "first"] = "random"
    query: str | None = None
    positives: str | None = None

    def __post_init__(self):
        ranges.check_fields(self)

    def definition(self):
        """Returns what decides the tokens, and which texts are left out."""
        return {**super().definition(), "query": self.query, "positives": self.positives}

    @property
    def each(self):
        return (self.count,)

    @property
    def roles(self):
        return (Role(self.name, "texts", optional=True), Role(f"{self.side}_prompt", "text", optional=True))

    def choose(self, lengths, draws):
        is_there, size = lengths > 0, lengths.shape[1]
        noise = np.broadcast_to(np.arange(size, dtype=np.uint64), lengths.shape)
        if self.draw == "random" and size > self.count:
            noise = draws.noise(self.name, size) >> np.uint64(1)
        order = np.argsort(np.where(is_there, noise, np.uint64(1 << 63)), axis=1, kind="stable")[:, : self.count]
        drawn = np.sort(np.where(np.take_along_axis(is_there, order, axis=1), order, size), axis=1)
        columns = np.full((len(draws), self.count), -1, np.int64)
        columns[:, : drawn.shape[1]] = np.where(drawn < size, drawn, -1)
        return columns

    def collate(self, unit: Unit):
        return {
            f"{self.name}_index": unit.text_index[self.name],
            f"{self.name}_id": split_ids(drawn_ids(unit, self.name)),
            f"{self.name}_mask": unit.columns[self.name] >= 0,
        }

    def shapes(self, size, texts):
        several = (size, *texts[self.name])
        return {
            f"{self.name}_index": (several, np.int32),
            f"{self.name}_id": ((*several, 2), np.uint32),
            f"{self.name}_mask": (several, np.bool_),
        }


def text_features(features: Sequence[Feature]) -> list[TextFeature]:
    """Returns those features that are texts, in their order: that of their texts in a unit."""
    return [f for f in features if isinstance(f, TextFeature)]


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Most tokens per side, special tokens and prompt included. Longer texts are truncated and counted."""

    query: ranges.Count = 64
    target: ranges.Count = 128

    def __post_init__(self):
        ranges.check_fields(self)

    @property
    def negatives(self) -> int:
        """Hard negatives are on the target's side and as long."""
        return self.target


def pairs(
    lengths: Lengths | None = None, num_negatives: ranges.Natural = 0, draw: Literal["random", "first"] = "random"
) -> tuple[TextFeature, ...]:
    """Returns the features of text pairs: `query`, `target` with a title, and up to `num_negatives` of its hard `negatives`."""
    lengths = lengths or Lengths()
    return (
        Text("query", lengths.query, "query"),
        Text("target", lengths.target, "target", titled=True),
        Texts("negatives", lengths.negatives, num_negatives, "target", draw, query="query", positives="target"),
    )


def check_lists(features: Sequence[Feature], columns: Sequence[Mapping[str, int]], mixture: str) -> None:
    """Raises ConfigError for a feature of several texts of which no task has any. `columns` are those of the tasks' caches."""
    for feature in features:
        if isinstance(feature, Texts) and feature.count and not any(column[feature.name] for column in columns):
            option = "num_negatives" if feature.name == "negatives" else f"Texts.count of {feature.name!r}"
            raise ConfigError(
                f"{option} = {feature.count}, but no task of mixture {mixture!r} has {feature.name}; "
                f"map the field `{feature.name}` in a source or set {option} = 0"
            )
