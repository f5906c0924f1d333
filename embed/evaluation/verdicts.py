"""Whether a claim holds, from the scores of two arms with the same seeds."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

REPRODUCED, REVERSED, WITHIN_NOISE, SMALLER = "reproduced", "reversed", "not reproduced", "smaller than claimed"


@dataclasses.dataclass(frozen=True)
class Difference:
    """The paired difference of two arms over seeds, in points: mean, standard deviation and 95 % interval (Student's t)."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def deviation(self) -> float:
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        if len(self.values) < 2:
            return math.nan, math.nan
        half = stats.t.ppf(0.975, len(self.values) - 1) * self.deviation / math.sqrt(len(self.values))
        return self.mean - float(half), self.mean + float(half)

    def verdict(self, least: float = 0.0) -> str:
        """Returns whether the first arm is better.

        It is when every seed says so, or the interval leaves out zero; then `least` points are asked of the mean.
        """
        low, high = self.interval
        if all(v > 0 for v in self.values) or low > 0:
            return REPRODUCED if self.mean >= least else SMALLER
        if all(v < 0 for v in self.values) or high < 0:
            return REVERSED
        return WITHIN_NOISE

    def no_worse(self, margin: float) -> str:
        """Returns whether the first arm loses no more than `margin` points, by every seed or the interval."""
        low, high = self.interval
        if all(v >= -margin for v in self.values) or low > -margin:
            return REPRODUCED
        if all(v < -margin for v in self.values) or high < -margin:
            return REVERSED
        return WITHIN_NOISE


def paired(better: Sequence[float], than: Sequence[float]) -> Difference:
    """Returns the difference of scores in [0, 1], seed by seed, in points."""
    return Difference(tuple(100 * (b - t) for b, t in zip(better, than, strict=True)))
