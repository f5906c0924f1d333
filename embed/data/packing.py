"""Several texts in one row, so that hardly a token is padding, and a batch of pairs laid out in such rows.

A training batch is cut into units, one for each shard of the mesh and each micro-batch. A unit's texts (queries, targets,
negatives) share rows of one length; all units of a batch have the same number of rows, taken from a short ladder so that
few programs are compiled.
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
            place = bisect.bisect_right(sizes, free) - 1
            if place < 0:
                break
            size = sizes[place]
            row.append(self._texts[size].pop())
            free -= size
            if not self._texts[size]:
                del self._texts[size], sizes[place]
        return tuple(row)


def fill(lengths: Sequence[int], length: int, max_segments: int) -> list[tuple[int, ...]]:
    """Returns rows of `length` tokens that hold all texts, each row as the numbers of its texts."""
    waiting, rows = Waiting(lengths), []
    if waiting and waiting.longest > length:
        raise ValueError(f"a text of {waiting.longest} tokens does not fit a row of {length}")
    while waiting:
        rows.append(waiting.take_row(length, max_segments))
    return rows


def ladder(heights: Sequence[int], weights: Sequence[float], most: int, enough: float = 0.05) -> tuple[int, ...]:
    """Returns the few of `heights`, the largest among them, that rounding each up to one of them adds least to.

    `weights` say how often each height comes. One more is taken, up to `most`, until no more than the share `enough` is
    added to all rows. Exact, by dynamic programming over the sorted heights.
    """
    steps, bucket = np.unique(np.asarray(heights), return_inverse=True)
    weight = np.bincount(bucket, np.asarray(weights, np.float64))
    total, mass = np.cumsum(weight), np.cumsum(weight * steps)
    # cost[j]: the least that is added to heights 0..j by the rungs chosen so far, the last of them at j
    cost, chosen = total * steps - mass, [(int(s),) for s in steps]
    while cost[-1] > enough * mass[-1] and len(chosen[-1]) < most:
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
    """Rows of `length` tokens and up to `max_segments` texts; a unit has one of the numbers of rows in `heights`."""

    length: int
    max_segments: int
    heights: tuple[int, ...]

    def height(self, rows: int) -> int:
        """Returns how many rows a unit is given that needs `rows`; past the ladder, by eighths of its last rung."""
        top = self.heights[-1]
        step = max(1, top // 8)
        return next((h for h in self.heights if h >= rows), top + -(-(rows - top) // step) * step)


def texts(examples: Sequence[Mapping[str, np.ndarray]], num_negatives: int) -> list[np.ndarray]:
    """Returns the token ids of a unit's texts in their order: queries, targets, then the negatives there are."""
    found = [e["query"] for e in examples] + [e["target"] for e in examples]
    for e in examples if num_negatives else ():
        stops = np.cumsum(e["negatives_lengths"][:num_negatives])
        found += [e["negatives"][stop - n : stop] for n, stop in zip(e["negatives_lengths"], stops) if n]
    return found


def lengths(table: np.ndarray, num_negatives: int) -> np.ndarray:
    """Returns the tokens of each of those texts from rows of a cache's `lengths`."""
    negatives = table[:, 2 : 2 + num_negatives].reshape(-1)
    return np.concatenate([table[:, 0], table[:, 1], negatives[negatives > 0]])


def collate(
    examples: Sequence[Mapping[str, np.ndarray]],
    rows: Sequence[tuple[int, ...]],
    layout: Layout,
    height: int,
    num_negatives: int,
    pad_id: int,
) -> dict[str, np.ndarray]:
    """Returns one unit of a batch. Its arrays, for b pairs, H rows of L tokens and S slots:

    `tokens` int32 [H, L]; `segment_ids` int32 [H, L], each token's text in its row from 1, 0 for padding; `query_index` and
    `target_index` int32 [b], where their vectors lie among the [H * S] of the rows; `query_id` and `target_id` uint32
    [b, 2]. With negatives `negatives_index` int32 [b, N], `negatives_mask` bool [b, N] and `negatives_id` uint32 [b, N, 2]: of
    more than N the first are taken; where there is none the place is that of another text and the mask keeps it out of the
    loss.
    """
    own = texts(examples, num_negatives)
    tokens = np.full((height, layout.length), pad_id, np.int32)
    segment_ids = np.zeros((height, layout.length), np.int32)
    places = np.zeros(len(own), np.int32)
    for r, row in enumerate(rows):
        start = 0
        for s, i in enumerate(row):
            stop = start + len(own[i])
            tokens[r, start:stop], segment_ids[r, start:stop] = own[i], s + 1
            places[i], start = r * layout.max_segments + s, stop
    size = len(examples)
    unit = {
        "tokens": tokens,
        "segment_ids": segment_ids,
        "query_index": places[:size],
        "target_index": places[size : 2 * size],
        "query_id": _split_ids([e["query_id"] for e in examples]),
        "target_id": _split_ids([e["target_id"] for e in examples]),
    }
    if num_negatives:
        mask = np.zeros((size, num_negatives), bool)
        ids = np.zeros((size, num_negatives), np.int64)
        for i, e in enumerate(examples):
            there = np.asarray(e["negatives_lengths"][:num_negatives]) > 0
            mask[i, : len(there)] = there
            ids[i, : len(there)] = e["negatives_id"][:num_negatives]
        unit["negatives_id"] = _split_ids(ids).reshape(size, num_negatives, 2)
        unit["negatives_mask"] = mask
        unit["negatives_index"] = np.zeros((size, num_negatives), np.int32)
        unit["negatives_index"][mask] = places[2 * size :]
    return unit


def stack(units: Sequence[Sequence[Mapping[str, np.ndarray]]]) -> dict[str, np.ndarray]:
    """Returns the arrays of units[shard][micro-batch], with these two as their first dimensions."""
    return {name: np.stack([np.stack([u[name] for u in shard]) for shard in units]) for name in units[0][0]}


def _split_ids(values) -> np.ndarray:
    return np.array(values, "<i8").view("<u4").reshape(-1, 2)
