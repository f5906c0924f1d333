"""Features of language modelling: a text to continue, and a text with spans missing that a decoder restores.

Each takes one row a text and gives its own arrays; texts of pairs share packed rows instead (`text_features`). Many short texts are
best joined first (`sources.Joined`). Texts are tokenised without a prompt.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embed import ranges
from embed.data.denoisers import Denoiser, corrupt
from embed.data.features import Context, Feature, Role, Unit, blocks
from embed.data.records import Field
from embed.data.tokenizers import Tokenizer
from embed.errors import ConfigError, DataError
from embed.sources.fields import Record

_ADDED = 2  # special tokens of a row: one before its text and one after it
_SAMPLE = 256  # cached records whose lengths stand for those of all


class _Language(Feature):
    """What both features share: the tokens of a text without special tokens are cached, a window of them is a row."""

    name: str
    length: int

    def __post_init__(self):
        ranges.check_fields(self)
        if self.length <= _ADDED:
            raise ConfigError(
                f"{type(self).__name__}.length = {self.length} leaves no room beside {_ADDED} special tokens; raise it"
            )

    @property
    def roles(self):
        return (Role(self.name, "text"),)

    @property
    def fields(self):
        return (Field(self.name, "int32", 1),)

    def definition(self) -> dict[str, Any]:
        """Returns {}: the whole text is cached."""
        return {}

    @property
    def window(self) -> int:
        """The most tokens of a text in a row."""
        return self.length - _ADDED

    def encode(self, records: Sequence[Record], context: Context) -> list[dict[str, np.ndarray]]:
        """Returns the token ids of each record's text."""
        before, after = affixes(context.tokenizer)
        rows, _ = context.tokenizer.encode_batch([record[self.name] for record in records], 1 << 30)
        tokens = [row[len(before) : len(row) - len(after)] for row in rows]
        for record, ids in zip(records, tokens):
            if not len(ids):
                raise DataError(f"{record['location']}: {self.name} has no tokens; take the record out")
        return [{self.name: ids} for ids in tokens]

    def vocabulary_texts(self, record, templates, length):
        """Returns the text."""
        return [record[self.name][:length]]

    def windows(self, unit: Unit) -> list[tuple[np.ndarray, np.random.Generator]]:
        """Returns a random window of each example's text, and the generator that drew it."""
        drawn = []
        for i, example in enumerate(unit.examples):
            rng, tokens = unit.draws.rng(i), example[self.name]
            start = int(rng.integers(max(len(tokens) - self.window, 0) + 1))
            drawn.append((tokens[start : start + self.window], rng))
        return drawn

    def token_counts(self, arrays):
        """Returns the real tokens of the rows, and how many there is room for."""
        masks = [x for name, x in arrays.items() if name.startswith(f"{self.name}_") and name.endswith("_mask")]
        return sum(int(np.count_nonzero(x)) for x in masks), sum(x.size for x in masks)

    def _average_length(self, cache) -> float:
        """Returns the mean tokens of a window of the cache's texts; the longest for None."""
        if cache is None:
            return self.window
        return float(
            np.mean([min(len(e[self.name]), self.window) for e in cache.read(range(min(len(cache), _SAMPLE)))])
        )


@dataclasses.dataclass(frozen=True)
class Continuation(_Language):
    """A text that a causal model continues: rows of `length` tokens, the special tokens at its ends among them.

    A longer text gives a random window, another one in every epoch. The batch has `<name>_tokens` int32 [n, length] and
    `<name>_mask` bool [n, length], True for real tokens.
    """

    name: str = "text"
    length: ranges.Count = 512

    def collate(self, unit: Unit):
        before, after = affixes(unit.tokenizer)
        rows = [np.concatenate([before, tokens, after]) for tokens, _ in self.windows(unit)]
        return _padded(self.name, "tokens", "mask", rows, self.length, unit.tokenizer.pad_id)

    def shapes(self, size, texts):
        return _shapes(self.name, "tokens", "mask", size, self.length)

    @property
    def title(self):
        return f"{self.name} of up to {self.length} tokens, continued"

    def preview(self, unit: Unit) -> list[str]:
        """Returns the windows."""
        return [unit.tokenizer.decode(tokens) for tokens, _ in self.windows(unit)]

    def flops(self, methods: Mapping[str, Any], cache: Any = None) -> float:
        """Returns the FLOPs of continuing one text."""
        return methods["decode"].flops(self._average_length(cache) + _ADDED)


@dataclasses.dataclass(frozen=True)
class Denoised(_Language):
    """A text with spans missing, and the spans: what an encoder reads and its decoder writes. Source: arXiv:2205.05131.

    For each text and epoch one of `denoisers` is drawn by its weight. A missing span is one sentinel in the inputs; the targets
    are the sentinels, each before its span. A denoiser with `prefix` leaves out the end of the text, without a sentinel. Sentinel
    i is the token `sentinel` with i in the place of {}, from 0. A longer text gives a random window, another one in every epoch.

    The batch has `<name>_inputs` int32 [n, I] and `<name>_targets` int32 [n, T], and `<name>_inputs_mask` and
    `<name>_targets_mask`, bool, True for real tokens. Inputs are at most `length` tokens, with the tokenizer's special tokens at
    their ends; targets begin with the first special token and end with the last. A text too short for one mean span of a
    denoiser is a DataError when a run starts.
    """

    denoisers: Sequence[Denoiser]
    name: str = "text"
    length: ranges.Count = 512
    sentinel: str = "<unused{}>"

    def __post_init__(self):
        super().__post_init__()
        if not self.denoisers:
            raise ConfigError("Denoised.denoisers is empty; name at least one @denoisers.Denoiser()")
        for denoiser in self.denoisers:
            if denoiser.min_length > self.window:
                raise ConfigError(
                    f"Denoised.length = {self.length}: {denoiser} needs texts of {denoiser.min_length} tokens and {_ADDED} special "
                    "ones; raise the length, or take the denoiser out"
                )
        if "{}" not in self.sentinel:
            raise ConfigError(f"Denoised.sentinel = {self.sentinel!r} has no {{}}, the place of the number; write one")

    @property
    def max_spans(self) -> int:
        """The most spans that a text can miss."""
        return max(denoiser.max_spans(self.window) for denoiser in self.denoisers)

    def _sizes(self) -> tuple[int, int]:
        """Returns the tokens of inputs and of targets at most, as multiples of 8."""
        inputs = max(d.max_inputs(self.window) for d in self.denoisers) + _ADDED
        targets = max(d.max_targets(self.window) for d in self.denoisers) + _ADDED
        return min(-(-inputs // 8) * 8, self.length), -(-targets // 8) * 8

    def encode(self, records, context):
        """Returns the token ids of each record's text, after checking that the vocabulary has all sentinels."""
        self._sentinels(context.tokenizer)
        return super().encode(records, context)

    def _sentinels(self, tokenizer: Tokenizer) -> np.ndarray:
        names = [self.sentinel.format(i) for i in range(self.max_spans)]
        ids = [tokenizer.token_id(name) for name in names]
        if None in ids:
            raise DataError(
                f"{tokenizer.path}: has {ids.index(None)} of the {len(names)} sentinels {self.sentinel!r} that texts of "
                f"{self.length} tokens need; name tokens that it has (Denoised.sentinel), train it with "
                "SentencePiece.train_sentinels, or lower Denoised.length"
            )
        return np.array(ids, np.int32)

    def check(self, cache):
        """Raises DataError where texts of the task are too short for a denoiser."""
        sizes = np.concatenate([[len(e[self.name]) for e in cache.read(some)] for some in blocks(len(cache))])
        for denoiser in self.denoisers:
            short = int(np.count_nonzero(sizes < denoiser.min_length))
            if short:
                raise DataError(
                    f"task {cache.name!r}: {short:,} of {len(sizes):,} texts are shorter than one span of {denoiser}, which needs "
                    f"{denoiser.min_length} tokens (the shortest has {sizes.min()}); join short texts (sources.Joined), or take "
                    "the denoiser out"
                )

    def collate(self, unit: Unit):
        before, after = affixes(unit.tokenizer)
        start, end = (ids[:1] if len(ids) else np.array([unit.tokenizer.pad_id], np.int32) for ids in (before, after))
        sentinels = self._sentinels(unit.tokenizer)
        weights = np.array([denoiser.weight for denoiser in self.denoisers], np.float64)
        inputs, targets = [], []
        for tokens, rng in self.windows(unit):
            denoiser = self.denoisers[int(rng.choice(len(weights), p=weights / weights.sum()))]
            kept, missing = corrupt(tokens, denoiser, sentinels, rng)
            inputs.append(np.concatenate([before, kept, after]))
            targets.append(np.concatenate([start, missing, end]))
        input_size, target_size = self._sizes()
        pad_id = unit.tokenizer.pad_id
        return _padded(self.name, "inputs", "inputs_mask", inputs, input_size, pad_id) | _padded(
            self.name, "targets", "targets_mask", targets, target_size, pad_id
        )

    def shapes(self, size, texts):
        input_size, target_size = self._sizes()
        return _shapes(self.name, "inputs", "inputs_mask", size, input_size) | _shapes(
            self.name, "targets", "targets_mask", size, target_size
        )

    @property
    def title(self):
        inputs, targets = self._sizes()
        count = len(self.denoisers)
        kinds = f"{count} denoiser{'s'[: count != 1]}"
        return f"{self.name}, inputs of up to {inputs} and targets of up to {targets} tokens, by {kinds}"

    def preview(self, unit: Unit) -> list[str]:
        """Returns the inputs and the targets."""
        arrays = self.collate(unit)
        inputs, targets = (arrays[f"{self.name}_{what}"] for what in ("inputs", "targets"))
        return [f"{unit.tokenizer.decode(x)[:40]} ...  ->  {unit.tokenizer.decode(y)}" for x, y in zip(inputs, targets)]

    def flops(self, methods: Mapping[str, Any], cache: Any = None) -> float:
        """Returns the FLOPs of restoring one text."""
        length = self._average_length(cache)
        total = sum(denoiser.weight for denoiser in self.denoisers)
        return sum(
            denoiser.weight / total * methods["decode"].flops(*(n + _ADDED for n in denoiser.average_sizes(length)))
            for denoiser in self.denoisers
        )


def affixes(tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Returns the special tokens that a tokenizer puts before a text and after it: int32, at most one each.

    More of them are a DataError: no row has room for them.
    """
    before, after = (np.array(ids, np.int32) for ids in tokenizer.affixes)
    if max(len(before), len(after)) > 1:
        raise DataError(
            f"{tokenizer.path}: puts {len(before)} special tokens before a text and {len(after)} after it; language modelling has "
            "room for one each"
        )
    return before, after


def _padded(
    name: str, what: str, mask: str, rows: Sequence[np.ndarray], size: int, pad_id: int
) -> dict[str, np.ndarray]:
    tokens = np.full((len(rows), size), pad_id, np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
    lengths = np.array([len(row) for row in rows])
    return {f"{name}_{what}": tokens, f"{name}_{mask}": np.arange(size) < lengths[:, None]}


def _shapes(name: str, what: str, mask: str, size: int, length: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    return {f"{name}_{what}": ((size, length), np.int32), f"{name}_{mask}": ((size, length), np.bool_)}
