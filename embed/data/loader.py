"""Global batch t as a pure function of (seed, t), read from token caches with grain. No tensorflow.

Order comes from grain's index transforms: each task is shuffled anew every epoch and repeated; tasks take turns at exact
shares, by batches or by examples (`Turns`). A host computes the rows of its own slice only, so batch t is the same set in the same
order on any number of hosts, and resuming needs nothing but t.

A batch is a dict of numpy arrays: `query` int32 [b, Lq], `target` int32 [b, Lt], `negatives` int32 [b, N, Lt] and
`negatives_mask` bool [b, N] when the batch's task has negatives and N > 0, `query_id` and `target_id` uint32 [b, 2]; each
token array `x` has its `x_length` int32 (real tokens; padding follows them).
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import grain.python as grain
import numpy as np

from embed.data.cache import Cache
from embed.data.encoding import Lengths
from embed.data.tasks import Mixture
from embed.errors import ConfigError, DataError

_ENDLESS = 1 << 60


@dataclasses.dataclass(frozen=True)
class Batches:
    """The endless sequence of global batches of a mixture; `rows` reads any part of any of them."""

    mixture: Mixture
    caches: Sequence[Cache]
    batch_size: int
    lengths: Lengths
    num_negatives: int
    seed: int
    pad_id: int = 0

    def __post_init__(self):
        self.mixture.check()
        for cache in self.caches:
            if len(cache) == 0:
                raise DataError(f"{cache.folder}: the cache is empty; prepare the task again")
        if self.num_negatives and not any(c.most_negatives for c in self.caches):
            raise ConfigError(
                f"num_negatives = {self.num_negatives}, but no task of mixture {self.mixture.name!r} has negatives; "
                "map the field `negatives` in a source or set num_negatives = 0"
            )

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
    def _mixed(self) -> "Turns":
        return Turns(self.shares)

    def indices(self, t: int, start: int, stop: int) -> list[tuple[int, int]]:
        """Returns (task, record) of rows start..stop of global batch t."""
        if self.mixture.one_task_per_batch:
            task, j = self._mixed[t]
            return [(task, int(self._orders[task][j * self.batch_size + r])) for r in range(start, stop)]
        drawn = (self._mixed[t * self.batch_size + r] for r in range(start, stop))
        return [(task, int(self._orders[task][i])) for task, i in drawn]

    def task_name(self, t: int) -> str:
        """Returns the task batch t is from, or the mixture's name for mixed batches."""
        return self.caches[self._mixed[t][0]].name if self.mixture.one_task_per_batch else self.mixture.name

    def rows(self, t: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Returns rows start..stop of global batch t as padded arrays."""
        wanted = self.indices(t, start, stop)
        examples: list = [None] * len(wanted)
        for task in sorted({task for task, _ in wanted}):
            places = [i for i, (k, _) in enumerate(wanted) if k == task]
            for place, example in zip(places, self.caches[task].read([wanted[i][1] for i in places])):
                examples[place] = example
        return collate(examples, self.lengths, self._negatives_of(t), self.pad_id)

    def _negatives_of(self, t: int) -> int:
        """Returns how many negatives a row of batch t has: none when the batch is from a task that has none."""
        if self.mixture.one_task_per_batch and not self.caches[self._mixed[t][0]].most_negatives:
            return 0
        return self.num_negatives

    def iterate(
        self, first: int, start: int, stop: int, threads: int = 2, ahead: int = 4
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields rows start..stop of batches first, first + 1, ... without end, read ahead in background threads."""
        source = grain.MapDataset.range(first, _ENDLESS).map(lambda t: self.rows(int(t), start, stop))
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        return iter(source.to_iter_dataset(options))


class Turns:
    """Whose turn a draw (or batch) is: number -> (task, number within the task), spread evenly, without end.

    Shares are kept to 1/10,000 in every period; grain's own mix keeps them to a hundredth of the smallest weight only.
    """

    PERIOD = 10_000

    def __init__(self, shares: Sequence[float]):
        wanted = np.maximum(np.asarray(shares, np.float64) * self.PERIOD, 1)
        counts = np.maximum(np.floor(wanted).astype(np.int64), 1)
        for k in np.argsort(-(wanted - counts), kind="stable")[: max(0, self.PERIOD - counts.sum())]:
            counts[k] += 1
        self._counts = counts
        when = np.concatenate([(np.arange(n) + 0.5) / n for n in counts])
        task = np.repeat(np.arange(len(counts)), counts)
        order = np.lexsort((task, when))
        self._task = task[order]
        self._number = np.concatenate([np.arange(n) for n in counts])[order]

    def __getitem__(self, draw: int) -> tuple[int, int]:
        period, place = divmod(int(draw), len(self._task))
        task = int(self._task[place])
        return task, int(period * self._counts[task] + self._number[place])


def pad(rows: Sequence[np.ndarray], length: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns int32 [n, length] padded with `pad_id`, and the real lengths int32 [n]."""
    out = np.full((len(rows), length), pad_id, np.int32)
    sizes = np.array([len(r) for r in rows], np.int32)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out, sizes


def _split_ids(values) -> np.ndarray:
    return np.array(values, "<i8").view("<u4").reshape(-1, 2)


def collate(examples: Sequence[dict], lengths: Lengths, num_negatives: int, pad_id: int) -> dict[str, np.ndarray]:
    """Returns the padded batch of some examples. Of more negatives than `num_negatives` the first are taken."""
    batch = {}
    for side, length in (("query", lengths.query), ("target", lengths.target)):
        batch[side], batch[f"{side}_length"] = pad([e[side] for e in examples], length, pad_id)
        batch[f"{side}_id"] = _split_ids([e[f"{side}_id"] for e in examples])
    if num_negatives:
        rows, mask = [], np.zeros((len(examples), num_negatives), bool)
        for i, e in enumerate(examples):
            own = (
                np.split(e["negatives"], np.cumsum(e["negatives_lengths"])[:-1]) if len(e["negatives_lengths"]) else []
            )
            own = own[:num_negatives]
            mask[i, : len(own)] = True
            # A row needs one real token for a finite embedding; the mask keeps the stand-in out of the loss.
            rows += [*own, *[e["target"][:1]] * (num_negatives - len(own))]
        shape = (len(examples), num_negatives)
        padded, sizes = pad(rows, lengths.negatives, pad_id)
        batch["negatives"] = padded.reshape(*shape, lengths.negatives)
        batch["negatives_length"] = sizes.reshape(shape)
        batch["negatives_mask"] = mask
    return batch
