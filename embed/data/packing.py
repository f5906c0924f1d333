"""Several texts in one row, so that hardly a token is padding: for training batches and for inference.

A training batch is cut into units, one for each shard of the mesh and each micro-batch. The texts of a unit share rows of one
length; all units of a batch have the same number of rows, which is one of a few bucket sizes, so that few programs are compiled.
"""

import bisect
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

_SHORTEST, _OCTAVES = 64, 6


def row_length(longest: int) -> int:
    """Returns the shortest row that holds `longest` tokens: 64, 128, ... 2,048, and multiples of that."""
    octaves = [_SHORTEST << n for n in range(_OCTAVES)]
    return next((o for o in octaves if longest <= o), -(-longest // octaves[-1]) * octaves[-1])


class Waiting:
    """Texts that have no row yet, known by their numbers of tokens."""

    def __init__(self, lengths: Sequence[int]):
        lengths = np.asarray(lengths)
        self._texts: dict[int, list[int]] = {}
        for i in np.argsort(lengths, kind="stable"):
            self._texts.setdefault(int(lengths[i]), []).append(int(i))
        self._sizes = sorted(self._texts)

    def __bool__(self) -> bool:
        return bool(self._sizes)

    @property
    def longest(self) -> int:
        """The tokens of the longest text."""
        return self._sizes[-1]

    def take_row(self, length: int, max_segments: int) -> tuple[int, ...]:
        """Takes out the texts of one row: again and again the longest that still fits, up to `max_segments` of them."""
        row, free, sizes = [], length, self._sizes
        while len(row) < max_segments:
            index = bisect.bisect_right(sizes, free) - 1
            if index < 0:
                break
            size = sizes[index]
            row.append(self._texts[size].pop())
            free -= size
            if not self._texts[size]:
                del self._texts[size], sizes[index]
        return tuple(row)


def fill(lengths: Sequence[int], length: int, max_segments: int) -> list[tuple[int, ...]]:
    """Returns rows of `length` tokens that hold all texts, each row as the numbers of its texts."""
    waiting, rows = Waiting(lengths), []
    if waiting and waiting.longest > length:
        raise ValueError(f"a text of {waiting.longest} tokens does not fit a row of {length}")
    while waiting:
        rows.append(waiting.take_row(length, max_segments))
    return rows


def bucket_sizes(
    sizes: Sequence[int], weights: Sequence[float], max_count: int, enough: float = 0.05
) -> tuple[int, ...]:
    """Returns the few of `sizes`, the largest among them, that rounding each up to one of them adds least to.

    `weights` say how often each size comes. One more is taken, up to `most`, until no more than the share `enough` is
    added to all rows. Exact, by dynamic programming over the sorted sizes.
    """
    steps, bucket = np.unique(np.asarray(sizes), return_inverse=True)
    weight = np.bincount(bucket, np.asarray(weights, np.float64))
    total, mass = np.cumsum(weight), np.cumsum(weight * steps)
    # cost[j]: the least that is added to sizes 0..j by the buckets chosen so far, the last of them at j
    cost, chosen = total * steps - mass, [(int(s),) for s in steps]
    while cost[-1] > enough * mass[-1] and len(chosen[-1]) < max_count:
        better, paths = cost.copy(), list(chosen)
        for j in range(1, len(steps)):
            above = (total[j] - total[:j]) * steps[j] - (mass[j] - mass[:j])
            i = int(np.argmin(cost[:j] + above))
            if cost[i] + above[i] < better[j]:
                better[j], paths[j] = cost[i] + above[i], (*chosen[i], int(steps[j]))
        cost, chosen = better, paths
    return chosen[-1]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Rows of `row_length` tokens and up to `max_segments` texts; a unit has one of the numbers of rows in `bucket_sizes`."""

    row_length: int
    max_segments: int
    bucket_sizes: tuple[int, ...]

    def bucket_size(self, rows: int) -> int:
        """Returns how many rows a unit is given that needs `rows`; past the largest bucket, by eighths of it."""
        top = self.bucket_sizes[-1]
        step = max(1, top // 8)
        return next((size for size in self.bucket_sizes if size >= rows), top + -(-(rows - top) // step) * step)


def write_rows(
    texts: Sequence[np.ndarray], rows: Sequence[Sequence[int]], shape: tuple[int, int], max_segments: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the arrays of packed rows: `rows[r]` are the numbers of the texts in row r, in their order.

    `tokens` int32 of `shape` [H, L]; `segment_ids` int32 [H, L], each token's text in its row from 1, 0 for padding; and
    `segment_index` int32 [texts], where their vectors lie among the [H * max_segments] of the rows.
    """
    tokens = np.full(shape, pad_id, np.int32)
    segment_ids = np.zeros(shape, np.int32)
    segment_index = np.zeros(len(texts), np.int32)
    for r, row in enumerate(rows):
        start = 0
        for s, i in enumerate(row):
            stop = start + len(texts[i])
            tokens[r, start:stop], segment_ids[r, start:stop] = texts[i], s + 1
            segment_index[i], start = r * max_segments + s, stop
    return tokens, segment_ids, segment_index


def stack(units: Sequence[Sequence[Mapping[str, np.ndarray]]]) -> dict[str, np.ndarray]:
    """Returns the arrays of units[shard][micro-batch], with these two as their first dimensions."""
    return {name: np.stack([np.stack([u[name] for u in shard]) for shard in units]) for name in units[0][0]}
