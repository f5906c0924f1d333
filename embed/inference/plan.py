"""Texts into rows: several short ones after the other, so that few shapes are compiled and hardly a token is padding.

A row's length fits its longest text, or that several times where it leaves less padding: rows much longer than their texts
waste attention on other texts. Every batch of one row length has the same shape; only the last one of all may have fewer rows.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from embed.data.packing import Waiting, row_length, write_rows

MAX_SEGMENTS = 16  # texts in a row, at most
_LONGEST = 1024  # of rows that are longer than their longest text needs


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows of one length. `rows[r]` are the numbers of the texts in row r, in their order; `height` rows are run."""

    length: int
    height: int
    rows: tuple[tuple[int, ...], ...]
    max_segments: int = MAX_SEGMENTS

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and tokens a row."""
        return self.height, self.length

    @property
    def texts(self) -> np.ndarray:
        """The numbers of all texts, row by row."""
        return np.array([i for row in self.rows for i in row], np.int64)

    @property
    def segment_index(self) -> np.ndarray:
        """Where the texts' vectors lie in the flattened [height * max_segments] result, in the order of `texts`."""
        return np.array(
            [r * self.max_segments + s for r, row in enumerate(self.rows) for s in range(len(row))], np.int64
        )

    def arrays(self, tokens: Sequence[np.ndarray], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns token ids and the number of each token's text from 1, 0 for padding: int32 [height, length] both."""
        texts = [tokens[i] for i in self.texts]
        starts = np.cumsum([0, *map(len, self.rows)])
        rows = [range(start, start + len(row)) for start, row in zip(starts, self.rows)]
        return write_rows(texts, rows, self.shape, self.max_segments, pad_id)[:2]


def plan(
    lengths: np.ndarray,
    tokens_per_batch: int,
    row_multiple: int = 1,
    max_segments: int = MAX_SEGMENTS,
    *,
    attention: float = 1500.0,
    max_attention: int | None = None,
) -> list[Batch]:
    """Returns the batches for texts of these token counts, longest first, each about `tokens_per_batch` tokens.

    The number of rows is a multiple of `row_multiple`. Every text is in one row, whole; with `max_segments` 1 it is there alone.
    A token that attends to `attention` others costs about twice what one that attends to none does; rows so long that a batch
    would have more than `max_attention` products of two tokens come in smaller batches.
    """
    lengths = np.asarray(lengths)
    if not len(lengths):
        return []
    top = row_length(int(lengths.max()))
    # Texts of more than half a row leave it part empty unless short ones fill it: then longer rows are better.
    times = [n for n in (1, 2, 4) if n == 1 or (max_segments > 1 and n * top <= _LONGEST)]

    def max_rows(length: int) -> int:
        rows = tokens_per_batch // length
        return rows if max_attention is None else min(rows, max_attention // length**2)

    tried = [_pack(lengths, n * top, n, max_rows, row_multiple, max_segments) for n in times]
    return min(tried, key=lambda batches: sum(b.height * b.length * (1 + b.length / attention) for b in batches))


def batches_of_one_size(number: int, size: int, row_multiple: int = 1) -> list[tuple[range, int]]:
    """Returns (items, rows that are run) of each batch of `number` items that are as long as one another, in their order."""
    batches = [(range(start, min(start + size, number)), size) for start in range(0, number, size)]
    if batches:
        last = batches[-1][0]
        batches[-1] = (last, _last_height(len(last), size, row_multiple))
    return batches


def padded_tokens(batches: Sequence[Batch]) -> int:
    """Returns how many tokens are run, padding included."""
    return sum(b.height * b.length for b in batches)


def shapes(batches: Sequence[Batch]) -> set[tuple[int, int]]:
    """Returns the shapes that are compiled."""
    return {(b.height, b.length) for b in batches}


def _pack(
    lengths, top: int, times: int, max_rows: Callable[[int], int], row_multiple: int, max_segments: int
) -> list[Batch]:
    """Returns the batches when rows fit their longest text `times` times, up to `top` tokens.

    Each row takes the longest text that still fits, again and again; the remains of one row length fill up with shorter
    texts, so that every batch is full but the last.
    """
    waiting, batches = Waiting(lengths), []
    while waiting:
        length = min(top, row_length(times * waiting.longest))
        height = row_multiple * max(1, max_rows(length) // row_multiple)
        rows = []
        while waiting and len(rows) < height:
            rows.append(waiting.take_row(length, max_segments))
        if not waiting:
            height = _last_height(len(rows), height, row_multiple)
        batches.append(Batch(length, height, tuple(rows), max_segments))
    return batches


def _last_height(used: int, full: int, row_multiple: int) -> int:
    """Returns one of five heights for the last batch: one row, an eighth, a quarter, a half, or a full one."""
    parts = [row_multiple * max(1, full // n // row_multiple) for n in (8, 4, 2, 1)]
    return next(h for h in (row_multiple, *parts) if h >= used)
