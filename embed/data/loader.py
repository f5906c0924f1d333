"""Global batch t as arrays: the drawn texts in packed rows, and what else the features give.

A host reads the examples of its own slice only. Of all others it knows the lengths of their texts, so that all hosts give the
rows of a batch the same shape.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import grain.python as grain
import numpy as np

from embed.data import packing
from embed.data.draws import Draws
from embed.data.examples import Chosen, Examples, lengths_of
from embed.data.features import Feature, Unit
from embed.data.text_features import text_features
from embed.data.tokenizers import Tokenizer
from embed.errors import ConfigError

_ENDLESS = 1 << 60
_LONGEST_ROW = 1024  # of rows longer than their longest text needs
# A token that attends to this many others costs about twice what one that attends to none does.
_ATTENTION = 1500
_ROWS = ("tokens", "segment_ids")
_PACKED = packing.Layout(0, 1, (0,))  # of batches without texts


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batches of examples for a mesh of `shards`, in `micro_batches`.

    A batch has `tokens` and `segment_ids` int32 [H, L], the packed rows of its texts, and the arrays of its features. All lead
    with [shards, micro-batches]. Micro-batch k holds rows k * B/micro_batches to (k + 1) * B/micro_batches of the global batch
    whatever the mesh, and each shard an even share of every micro-batch. `tokenizer` is that of the caches; without one the token
    of padding is 0. A model that knows one text a row only (`packs` False) gets them so. `max_shapes` is how many numbers of rows
    programs are compiled for, with lists of texts and without: more shapes leave less padding.
    """

    examples: Examples
    shards: int = 1
    micro_batches: int = 1
    packs: bool = True
    tokenizer: Tokenizer | None = None
    max_shapes: int = 6

    @property
    def pad_id(self) -> int:
        """The token of padding."""
        return 0 if self.tokenizer is None else self.tokenizer.pad_id

    @property
    def unit(self) -> int:
        """Examples in one micro-batch on one shard."""
        return self.examples.batch_size // (self.shards * self.micro_batches)

    def _unit_rows(self, shard: int, micro_batch: int) -> slice:
        start = micro_batch * self.examples.batch_size // self.micro_batches + shard * self.unit
        return slice(start, start + self.unit)

    def at(self, t: int, first_shard: int = 0, last_shard: int | None = None) -> dict[str, np.ndarray]:
        """Returns the arrays of some shards (all by default) of global batch t."""
        features, draws = self.examples.features_at(t), self.examples.drawn(t)
        layout = self.layouts[_names(features)]
        chosen = self.examples.choose(draws, features)
        rows = {}
        for s in range(self.shards):
            for k in range(self.micro_batches):
                chosen_units = [c[self._unit_rows(s, k)] for c in chosen]
                rows[s, k] = packing.fill(lengths_of(chosen_units), layout.row_length, layout.max_segments)
        height = layout.bucket_size(max(map(len, rows.values())))
        units = [
            [
                self._unit(
                    draws[self._unit_rows(s, k)],
                    features,
                    [c[self._unit_rows(s, k)] for c in chosen],
                    rows[s, k],
                    (height, layout.row_length),
                )
                for k in range(self.micro_batches)
            ]
            for s in range(self.shards)[first_shard:last_shard]
        ]
        return packing.stack(units)

    def _unit(
        self, draws: Draws, features: Sequence[Feature], chosen: Sequence[Chosen], rows, shape: tuple[int, int]
    ) -> dict[str, np.ndarray]:
        """Returns the arrays of one unit, whose texts lie in `rows`."""
        examples = self.examples.read(draws)
        return collate(examples, draws, features, chosen, rows, shape, self.max_segments or 1, self.tokenizer)

    def largest(self) -> dict[str, np.ndarray]:
        """Returns one shard of a batch of the largest shapes that are expected, with nothing in it."""
        names = max(self.layouts, key=len)
        layout = self.layouts[names]
        features = [f for f in self.examples.features if f.name in names]
        rows = (layout.bucket_sizes[-1], layout.row_length)
        shapes = dict.fromkeys(_ROWS, (rows, np.int32)) if text_features(features) else {}
        for feature in features:
            feature_shapes = feature.shapes(self.unit, {f.name: f.each for f in text_features(features)})
            for name in feature_shapes:
                if name in shapes:
                    raise ConfigError(f"two features give the array {name!r} of a batch; name one of them otherwise")
            shapes |= feature_shapes
        unit = {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}
        if "tokens" in unit:
            unit["tokens"][...] = self.pad_id
        return packing.stack([[unit] * self.micro_batches])

    @property
    def max_segments(self) -> int | None:
        """Texts in a row at most; None for one text a row, whose mask the model is given."""
        return next(iter(self.layouts.values())).max_segments if self.packs else None

    @functools.cached_property
    def layouts(self) -> dict[tuple[str, ...], packing.Layout]:
        """How batches are laid out, by the names of their features.

        Chosen from the lengths of some random batches of each task, so it is the same on every host and when a run resumes.
        """
        longest = max(c.longest for c in self.examples.caches)
        drawn = self._some_batches()
        if not longest:
            return dict.fromkeys(drawn, _PACKED)
        if not self.packs:
            return {names: packing.Layout(longest, 1, (self.unit * self._texts(names),)) for names in drawn}
        shortest = packing.row_length(longest)
        rows = [shortest * n for n in (1, 2, 4) if n == 1 or shortest * n <= _LONGEST_ROW]
        return min((self._measured(drawn, length) for length in rows), key=lambda measured: measured[0])[1]

    def _texts(self, names: Sequence[str]) -> int:
        """Returns how many texts an example has at most in a batch with these features."""
        return sum(int(np.prod(f.each)) for f in text_features(self.examples.features) if f.name in names)

    def _measured(self, drawn, length: int):
        """Returns what rows of `length` tokens cost, and their layouts."""
        layouts, cost, max_segments = {}, 0.0, max(8, length // 8)
        for names, unit_lengths in drawn.items():
            needed = [max(len(packing.fill(x, length, max_segments)) for x in units) for units, _ in unit_lengths]
            weights = [weight for _, weight in unit_lengths]
            layout = packing.Layout(length, max_segments, packing.bucket_sizes(needed, weights, self.max_shapes))
            cost += sum(w * layout.bucket_size(n) for n, w in zip(needed, weights)) * length * (1 + length / _ATTENTION)
            layouts[names] = layout
        return cost, layouts

    def _some_batches(self):
        """Returns {names of features: [(lengths of the texts of each unit, weight)]} of random batches, by the tasks' shares."""
        e, random = self.examples, np.random.default_rng(0)
        count = int(np.clip((1 << 16) // e.batch_size, 4, 16))
        kinds = range(len(e.caches)) if e.mixture.one_task_per_batch else [None]
        by_features = {}
        for kind in kinds:
            for _ in range(count):
                tasks = (
                    random.choice(len(e.caches), e.batch_size, p=e.shares) if kind is None else [kind] * e.batch_size
                )
                record_numbers = [int(random.integers(len(e.caches[k]))) for k in tasks]
                draws = Draws(
                    np.asarray(tasks, np.int64), np.array(record_numbers), np.zeros(len(record_numbers), np.int64)
                )
                features = e.features_of(kind)
                chosen = e.choose(draws, features)
                units = [lengths_of([c[i : i + self.unit] for c in chosen]) for i in range(0, e.batch_size, self.unit)]
                weight = 1.0 if kind is None else e.shares[kind]
                by_features.setdefault(_names(features), []).append((units, weight))
        return by_features

    def iterate(
        self, first: int, first_shard: int = 0, last_shard: int | None = None, threads: int = 2, ahead: int = 4
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields the arrays of those shards of batches first, first + 1, ..., read ahead in background threads."""
        _ = self.layouts  # chosen here, once, not by every thread
        source = grain.MapDataset.range(first, _ENDLESS).map(lambda t: self.at(int(t), first_shard, last_shard))
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        return iter(source.to_iter_dataset(options))


def _names(features: Sequence[Feature]) -> tuple[str, ...]:
    return tuple(feature.name for feature in features)


def collate(
    examples: Sequence[Any],
    draws: Draws,
    features: Sequence[Feature],
    chosen: Sequence[Chosen],
    rows: Sequence[Sequence[int]],
    shape: tuple[int, int],
    max_segments: int,
    tokenizer: Tokenizer | None,
) -> dict[str, np.ndarray]:
    """Returns the arrays of one unit: the packed `rows` of its chosen texts, of `shape` [H, L], and those of its features."""
    texts = [
        x for c in chosen for example, columns in zip(examples, c.columns) for x in c.feature.texts(example, columns)
    ]
    arrays, text_index, used = {}, {}, 0
    if chosen:
        pad_id = 0 if tokenizer is None else tokenizer.pad_id
        tokens, segment_ids, segment_index = packing.write_rows(texts, rows, shape, max_segments, pad_id)
        arrays = dict(zip(_ROWS, (tokens, segment_ids)))
        for c in chosen:
            is_there = c.columns >= 0
            text_index[c.feature.name] = columns = np.zeros(c.columns.shape, np.int32)
            columns[is_there] = segment_index[used : used + is_there.sum()]
            used += int(is_there.sum())
    unit = Unit(examples, draws, {c.feature.name: c.columns for c in chosen}, text_index, tokenizer)
    for feature in features:
        arrays |= _checked(feature, unit, {c.feature.name: c.feature.each for c in chosen})
    return arrays


def _checked(feature: Feature, unit: Unit, texts) -> dict[str, np.ndarray]:
    """Returns the arrays of a feature. A ConfigError where they are not those that its `shapes` says."""
    arrays = feature.collate(unit)
    specs = {name: (x.shape, np.dtype(x.dtype)) for name, x in arrays.items()}
    declared = {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in feature.shapes(len(unit), texts).items()}
    if specs != declared:
        raise ConfigError(
            f"feature {feature.name!r} ({type(feature).__name__}): collate gives {_text(specs)}, and shapes says {_text(declared)}"
        )
    return arrays


def _text(shapes) -> str:
    return ", ".join(f"{name} {dtype} {list(shape)}" for name, (shape, dtype) in sorted(shapes.items())) or "nothing"
