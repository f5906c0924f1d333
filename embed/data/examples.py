"""Which examples global batch t is made of: a pure function of (seed, t), read from caches with grain. No tensorflow, no JAX.

Order comes from grain's index transforms: each task is shuffled anew every epoch and repeated; tasks take turns by their
shares, by batches or by examples (`turns`). Batch t is the same set in the same order on any number of hosts, and resuming
needs nothing but t.
"""

import dataclasses
import functools
from collections.abc import Sequence

import grain.python as grain
import numpy as np

from embed.data.cache import Cache
from embed.data.draws import Draws
from embed.data.features import Feature
from embed.data.tasks import Mixture
from embed.data.text_features import TextFeature, check_lists, text_features
from embed.data.turns import Turns
from embed.errors import DataError

# Which examples batch t holds, as a version: raised when it changes, so that a run never goes on in another order.
ORDER = 2


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The texts of one feature that some examples are drawn with: `columns` of their records, -1 for none, and `lengths`.

    Both are int [n] or [n, N].
    """

    feature: TextFeature
    columns: np.ndarray
    lengths: np.ndarray

    def __getitem__(self, rows: slice) -> "Chosen":
        return Chosen(self.feature, self.columns[rows], self.lengths[rows])


@dataclasses.dataclass(frozen=True)
class Examples:
    """The endless sequence of global batches of a mixture, as examples; `read` gives any part of any of them."""

    mixture: Mixture
    caches: Sequence[Cache]
    features: Sequence[Feature]
    batch_size: int
    seed: int

    def __post_init__(self):
        self.mixture.check()
        for cache in self.caches:
            if len(cache) == 0:
                raise DataError(f"{cache.folder}: the cache is empty; prepare the task again")
        if not self.mixture.only:  # a mixture narrowed to some tasks keeps the settings of all
            check_lists(self.features, [cache.columns for cache in self.caches], self.mixture.name)

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

    def drawn(self, t: int, start: int = 0, stop: int | None = None) -> Draws:
        """Returns the draws of rows start..stop (all by default) of global batch t."""
        stop = self.batch_size if stop is None else stop
        if self.mixture.one_task_per_batch:
            task, j = self._turns[t]
            tasks, numbers = np.full(stop - start, task), j * self.batch_size + np.arange(start, stop)
        else:
            tasks, numbers = self._turns.between(t * self.batch_size + start, t * self.batch_size + stop)
        tasks, numbers = np.asarray(tasks, np.int64), np.asarray(numbers, np.int64)
        order = [int(self._orders[task][number]) for task, number in zip(tasks.tolist(), numbers.tolist())]
        sizes = np.array([len(cache) for cache in self.caches])
        return Draws(tasks, np.array(order, np.int64), numbers // sizes[tasks], self.seed)

    def task_name(self, t: int) -> str:
        """Returns the task batch t is from, or the mixture's name for mixed batches."""
        return self.caches[self._turns[t][0]].name if self.mixture.one_task_per_batch else self.mixture.name

    def features_of(self, task: int | None) -> tuple[Feature, ...]:
        """Returns the features that a batch of a task has, or of several for None.

        Lists of texts that are all empty are left out, and so are the vectors of such texts.
        """

        def is_empty(feature: TextFeature) -> bool:
            if feature.each == ():
                return False
            return feature.each == (0,) or (task is not None and not self.caches[task].columns[feature.name])

        empty = {feature.name for feature in text_features(self.features) if is_empty(feature)}
        return tuple(f for f in self.features if f.name not in empty and getattr(f, "of", None) not in empty)

    def features_at(self, t: int) -> tuple[Feature, ...]:
        """Returns the features that batch t has."""
        return self.features_of(self._turns[t][0] if self.mixture.one_task_per_batch else None)

    def read(self, draws: Draws) -> list[dict[str, np.ndarray]]:
        """Returns the cached examples of some draws, in their order."""
        examples: list = [None] * len(draws)
        for task, positions in draws.by_task():
            for position, example in zip(positions, self.caches[task].read(draws.records[positions])):
                examples[position] = example
        return examples

    def choose(self, draws: Draws, features: Sequence[Feature]) -> list[Chosen]:
        """Returns the texts that some examples are drawn with. Needs the lengths of texts alone, so that every host knows them."""
        return [self._choose(draws, feature) for feature in text_features(features)]

    def _choose(self, draws: Draws, feature: TextFeature) -> Chosen:
        columns = np.zeros((len(draws), *feature.each), np.int64)
        lengths = np.zeros((len(draws), *feature.each), np.int64)
        for task, positions in draws.by_task():
            table = self.caches[task].lengths(feature.name, draws.records[positions])
            columns[positions] = chosen = feature.choose(table, draws[positions])
            taken = np.maximum(chosen, 0).reshape(len(positions), -1)
            taken_lengths = np.take_along_axis(table, taken, axis=1) if table.shape[1] else np.zeros_like(taken)
            lengths[positions] = np.where(chosen >= 0, taken_lengths.reshape(chosen.shape), 0)
        return Chosen(feature, columns, lengths)


def lengths_of(chosen: Sequence[Chosen]) -> np.ndarray:
    """Returns the tokens of the texts of a unit in their order: feature by feature, example by example."""
    return np.concatenate([np.zeros(0, np.int64), *(c.lengths[c.columns >= 0] for c in chosen)])
