"""Global batch t as a pure function of (seed, t), read from token caches with grain. No tensorflow.

Order comes from grain's index transforms: each task is shuffled anew every epoch and repeated; tasks take turns by their
shares, by batches or by examples (`turns`). A host reads the examples of its own slice only, so batch t is the same set in
the same order on any number of hosts, and resuming needs nothing but t.

`Examples` says which examples batch t is made of; `Batches` lays them out in rows (`packing`).
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import grain.python as grain
import numpy as np

from embed.data import packing
from embed.data.cache import Cache
from embed.data.tasks import Mixture
from embed.data.turns import Turns
from embed.errors import ConfigError, DataError

# Which examples batch t holds, as a version: raised when it changes, so that a run never goes on in another order.
ORDER = 2
_ENDLESS = 1 << 60
_LONGEST_ROW = 1024  # of rows longer than their longest text needs
# A token that attends to this many others costs about twice what one that attends to none does.
_ATTENTION = 1500


def check_negatives(mixture: Mixture, caches: Sequence[Cache], num_negatives: int) -> None:
    """Raises ConfigError for hard negatives that no task has. A mixture narrowed to some tasks keeps the settings of all."""
    if num_negatives and not mixture.only and not any(c.most_negatives for c in caches):
        raise ConfigError(
            f"num_negatives = {num_negatives}, but no task of mixture {mixture.name!r} has negatives; "
            "map the field `negatives` in a source or set num_negatives = 0"
        )


@dataclasses.dataclass(frozen=True)
class Examples:
    """The endless sequence of global batches of a mixture, as examples; `read` gives any part of any of them."""

    mixture: Mixture
    caches: Sequence[Cache]
    batch_size: int
    num_negatives: int
    seed: int

    def __post_init__(self):
        self.mixture.check()
        for cache in self.caches:
            if len(cache) == 0:
                raise DataError(f"{cache.folder}: the cache is empty; prepare the task again")
        check_negatives(self.mixture, self.caches, self.num_negatives)

    @functools.cached_property
    def shares(self) -> list[float]:
        """The share of draws of each task."""
        return self.mixture.shares({c.name: len(c) for c in self.caches})

    @functools.cached_property
    def _orders(self) -> list[grain.MapDataset]:
        """Per task: draw number -> record number, shuffled anew in every epoch."""
        return [
            grain.MapDataset.range(len(cache)).seed(self.seed + 7919 * k).shuffle().repeat()
            for k, cache in enumerate(self.caches)
        ]

    @functools.cached_property
    def _turns(self) -> Turns:
        return Turns(self.mixture.weights({c.name: len(c) for c in self.caches}), self.seed)

    def draws(self, steps: int) -> list[int]:
        """Returns how many examples of each task the first `steps` batches hold."""
        if self.mixture.one_task_per_batch:
            return [self.batch_size * count for count in self._turns.counts(steps)]
        return self._turns.counts(steps * self.batch_size)

    def indices(self, t: int, start: int, stop: int) -> list[tuple[int, int]]:
        """Returns (task, record) of rows start..stop of global batch t."""
        if self.mixture.one_task_per_batch:
            task, j = self._turns[t]
            return [(task, int(self._orders[task][j * self.batch_size + r])) for r in range(start, stop)]
        tasks, numbers = self._turns.between(t * self.batch_size + start, t * self.batch_size + stop)
        return [(int(task), int(self._orders[task][int(i)])) for task, i in zip(tasks, numbers)]

    def task_name(self, t: int) -> str:
        """Returns the task batch t is from, or the mixture's name for mixed batches."""
        return self.caches[self._turns[t][0]].name if self.mixture.one_task_per_batch else self.mixture.name

    def read(self, t: int, start: int, stop: int) -> list[dict[str, np.ndarray]]:
        """Returns the examples of rows start..stop of global batch t, as `records.TEXT_FIELDS`."""
        wanted = self.indices(t, start, stop)
        examples: list = [None] * len(wanted)
        for task, places in _by_task(wanted):
            for place, example in zip(places, self.caches[task].read([wanted[i][1] for i in places])):
                examples[place] = example
        return examples

    def lengths(self, wanted: Sequence[tuple[int, int]], num_negatives: int) -> np.ndarray:
        """Returns the tokens of the texts of those examples, in the order of `packing.texts`."""
        table = np.zeros((len(wanted), 2 + num_negatives), np.int32)
        for task, places in _by_task(wanted):
            found = self.caches[task].lengths[[wanted[i][1] for i in places]][:, : 2 + num_negatives]
            table[places, : found.shape[1]] = found
        return packing.lengths(table, num_negatives)

    def negatives_of(self, t: int) -> int:
        """Returns how many negatives a pair of batch t has: none when the batch is from a task that has none."""
        if self.mixture.one_task_per_batch and not self.caches[self._turns[t][0]].most_negatives:
            return 0
        return self.num_negatives


def _by_task(wanted: Sequence[tuple[int, int]]) -> list[tuple[int, list[int]]]:
    rows: dict[int, list[int]] = {}
    for i, (task, _) in enumerate(wanted):
        rows.setdefault(task, []).append(i)
    return sorted(rows.items())


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batches of examples in rows, for a mesh of `shards` and in `parts` micro-batches; see `packing.collate` for the arrays.

    Micro-batch k holds rows k * B/parts to (k + 1) * B/parts of the global batch whatever the mesh, and each shard an even
    share of every micro-batch. A model that knows one text a row only (`packs` False) gets them so. `most_shapes` is how
    many numbers of rows programs are compiled for, with negatives and without: more shapes leave less padding.
    """

    examples: Examples
    shards: int = 1
    parts: int = 1
    packs: bool = True
    pad_id: int = 0
    most_shapes: int = 6

    @property
    def unit(self) -> int:
        """Pairs in one micro-batch on one shard."""
        return self.examples.batch_size // (self.shards * self.parts)

    def _unit_rows(self, shard: int, part: int) -> tuple[int, int]:
        start = part * self.examples.batch_size // self.parts + shard * self.unit
        return start, start + self.unit

    def at(self, t: int, first_shard: int = 0, last_shard: int | None = None) -> dict[str, np.ndarray]:
        """Returns the arrays of some shards (all by default) of global batch t; they lead with [shards, parts]."""
        shards = range(self.shards)
        negatives = self.examples.negatives_of(t)
        layout = self.layouts[negatives]
        plans = self._plans(t, negatives, layout)
        height = layout.height(max(map(len, plans.values())))
        units = [
            [
                packing.collate(
                    self.examples.read(t, *self._unit_rows(s, k)), plans[s, k], layout, height, negatives, self.pad_id
                )
                for k in range(self.parts)
            ]
            for s in shards[first_shard:last_shard]
        ]
        return packing.stack(units)

    def largest(self) -> dict[str, np.ndarray]:
        """Returns one shard of a batch of the largest shapes that are expected, with nothing in it."""
        negatives = max(self.layouts)
        layout = self.layouts[negatives]
        nothing = {
            name: np.zeros(0, np.int32)
            for name in ("query", "target", "negatives", "negatives_lengths", "negatives_id")
        }
        examples = [{**nothing, "query_id": 0, "target_id": 0}] * self.unit
        unit = packing.collate(examples, [], layout, layout.heights[-1], negatives, self.pad_id)
        return packing.stack([[unit] * self.parts])

    def _plans(self, t: int, negatives: int, layout: packing.Layout):
        """Returns the rows of every unit, which all hosts must know to agree on their number."""
        plans = {}
        for s in range(self.shards):
            for k in range(self.parts):
                wanted = self.examples.indices(t, *self._unit_rows(s, k))
                plans[s, k] = packing.fill(self.examples.lengths(wanted, negatives), layout.length, layout.max_segments)
        return plans

    @property
    def max_segments(self) -> int | None:
        """Texts in a row at most; None for one text a row, whose mask the model is given."""
        return next(iter(self.layouts.values())).max_segments if self.packs else None

    @functools.cached_property
    def layouts(self) -> dict[int, packing.Layout]:
        """How batches are laid out, by their number of negatives.

        Chosen from the lengths of some random batches of each task, so it is the same on every host and when a run resumes.
        """
        longest = max(c.longest for c in self.examples.caches)
        drawn = self._some_batches()
        if not self.packs:
            return {n: packing.Layout(longest, 1, (self.unit * (2 + n),)) for n in drawn}
        shortest = packing.row_length(longest)
        rows = [shortest * n for n in (1, 2, 4) if n == 1 or shortest * n <= _LONGEST_ROW]
        return min((self._measured(drawn, length) for length in rows), key=lambda found: found[0])[1]

    def _measured(self, drawn, length: int):
        """Returns what rows of `length` tokens cost, and their layouts."""
        layouts, cost, max_segments = {}, 0.0, max(8, length // 8)
        for negatives, found in drawn.items():
            needed = [max(len(packing.fill(x, length, max_segments)) for x in units) for units, _ in found]
            weights = [weight for _, weight in found]
            layout = packing.Layout(length, max_segments, packing.ladder(needed, weights, self.most_shapes))
            cost += sum(w * layout.height(n) for n, w in zip(needed, weights)) * length * (1 + length / _ATTENTION)
            layouts[negatives] = layout
        return cost, layouts

    def _some_batches(self):
        """Returns {negatives: [(lengths of the texts of each unit, weight)]} of random batches, by the tasks' shares."""
        e, random = self.examples, np.random.default_rng(0)
        count = int(np.clip((1 << 16) // e.batch_size, 4, 16))
        kinds = range(len(e.caches)) if e.mixture.one_task_per_batch else [None]
        found = {}
        for kind in kinds:
            for _ in range(count):
                tasks = (
                    random.choice(len(e.caches), e.batch_size, p=e.shares) if kind is None else [kind] * e.batch_size
                )
                wanted = [(int(k), int(random.integers(len(e.caches[k])))) for k in tasks]
                negatives = 0 if kind is not None and not e.caches[kind].most_negatives else e.num_negatives
                units = [e.lengths(wanted[i : i + self.unit], negatives) for i in range(0, e.batch_size, self.unit)]
                found.setdefault(negatives, []).append((units, 1.0 if kind is None else e.shares[kind]))
        return found

    def iterate(
        self, first: int, first_shard: int = 0, last_shard: int | None = None, threads: int = 2, ahead: int = 4
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields the arrays of those shards of batches first, first + 1, ..., read ahead in background threads."""
        _ = self.layouts  # chosen here, once, not by every thread
        source = grain.MapDataset.range(first, _ENDLESS).map(lambda t: self.at(int(t), first_shard, last_shard))
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        return iter(source.to_iter_dataset(options))
