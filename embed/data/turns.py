"""Whose turn a draw is: tasks by their weights, spread evenly over every stretch of a run, without end and without state.

Draw t takes the task in whose part of 0, ..., N - 1 the point (t * step + offset) mod N lies. Parts are as long as weights,
the offset follows from the seed, and the step is near N / phi, phi being the golden ratio: the points of any stretch of draws
then fill the range evenly. So a task, and any group of tasks that stand beside each other, is drawn in proportion to its
weight in every window, to within a few draws; and where weights are whole numbers that sum to N, exactly in every N draws.
How often a task was drawn before draw t is a sum of floors, which Euclid's algorithm adds up in some forty steps.
"""

import bisect
import hashlib
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

_MAX_RANGE = 1 << 50  # of N: products of N and _CHUNK fit into 64 bits
_CHUNK = 4096
_STEPS_TRIED = 64


class Turns:
    """The task of every draw, and how often that task was drawn before. `weights` are positive numbers."""

    def __init__(self, weights: Sequence[float], seed: int = 0):
        self._ends = _parts(weights)
        self._range = self._ends[-1]
        self._step = _even_step(self._range)
        digest = hashlib.sha256(f"turns {seed}".encode()).digest()
        self._offset = int.from_bytes(digest[:8], "little") % self._range
        self._inner_ends = np.array(self._ends[1:-1], np.int64)

    def __getitem__(self, draw: int) -> tuple[int, int]:
        """Returns (task, number of this draw within the task, from 0)."""
        point = (int(draw) * self._step + self._offset) % self._range
        task = bisect.bisect_right(self._ends, point) - 1
        return task, self._count(task, int(draw))

    def between(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (tasks, numbers within them) of the draws start, ..., stop - 1, each int64 [stop - start]."""
        points = np.empty(stop - start, np.int64)
        for i in range(0, stop - start, _CHUNK):
            first = ((start + i) * self._step + self._offset) % self._range
            chunk = points[i : i + _CHUNK]
            chunk[:] = (first + np.arange(len(chunk)) * self._step) % self._range
        tasks = np.searchsorted(self._inner_ends, points, side="right").astype(np.int64)
        numbers = np.empty(len(tasks), np.int64)
        for task in np.unique(tasks):
            draws = np.flatnonzero(tasks == task)
            numbers[draws] = self._count(int(task), start) + np.arange(len(draws))
        return tasks, numbers

    def counts(self, draws: int) -> list[int]:
        """Returns how often each task is drawn in the first `draws` draws."""
        below = [self._count_below(end, draws) for end in self._ends]
        return [after - before for before, after in zip(below, below[1:])]

    def _count(self, task: int, draws: int) -> int:
        return self._count_below(self._ends[task + 1], draws) - self._count_below(self._ends[task], draws)

    def _count_below(self, end: int, draws: int) -> int:
        """Returns how many of the first `draws` points are below `end`.

        floor(x / N) - floor((x - end) / N) is 1 where x mod N < end, else 0.
        """
        all_floors = _floor_sum(draws, self._range, self._step, self._offset)
        return all_floors - _floor_sum(draws, self._range, self._step, self._offset - end + self._range) + draws


def _parts(weights: Sequence[float]) -> list[int]:
    """Returns where each task's part of the range begins, and the end of the last: whole numbers in proportion to the weights.

    They are exact where the weights, as they are written, have a small common denominator; else they are rounded to
    1 / 2^50 of the whole.
    """
    exact = [Fraction(str(weight)) for weight in weights]
    denominator = math.lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * denominator) for weight in exact]
    divisor = math.gcd(*whole)
    sizes = [size // divisor for size in whole]
    total, ends = sum(sizes), [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    return ends if total <= _MAX_RANGE else [end * _MAX_RANGE // total for end in ends]


def _even_step(size: int) -> int:
    """Returns the step coprime to `size`, near size / phi, whose multiples fill the range most evenly.

    The smaller the largest partial quotient of step / size, the more even they are.
    """
    golden = round(size * (math.sqrt(5) - 1) / 2)
    near = [n for i in range(_STEPS_TRIED) for n in (golden + i, golden - i) if 0 < n < size and math.gcd(n, size) == 1]
    return min(near, key=lambda step: _max_quotient(step, size), default=1)


def _max_quotient(numerator: int, denominator: int) -> int:
    largest = 0
    while numerator > 0:
        largest = max(largest, denominator // numerator)
        numerator, denominator = denominator % numerator, numerator
    return largest


def _floor_sum(n: int, m: int, a: int, b: int) -> int:
    """Returns the sum of floor((a * i + b) / m) over i = 0, ..., n - 1, for b >= 0. Takes O(log m) steps."""
    total = 0
    while n > 0:
        total += (n - 1) * n // 2 * (a // m) + n * (b // m)
        a, b = a % m, b % m
        top = a * n + b
        if top < m:
            break
        n, b = divmod(top, m)
        m, a = a, m
    return total
