"""Whether a claim holds, from the scores of two arms with the same seeds. The 95 % interval of the paired difference decides."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

REPRODUCED, REVERSED, SMALLER = "reproduced", "reversed", "smaller than claimed"
SAME_SIGN, OPPOSITE_SIGN = "same sign, within noise", "opposite sign, within noise"
NOT_REPRODUCED = "not reproduced"
# From the claimed side to the other one.
ORDER = (REPRODUCED, SMALLER, SAME_SIGN, NOT_REPRODUCED, OPPOSITE_SIGN, REVERSED)


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
        """The 95 % interval of the mean; NaN for a single seed, which therefore decides nothing."""
        if len(self.values) < 2:
            return math.nan, math.nan
        half = stats.t.ppf(0.975, len(self.values) - 1) * self.deviation / math.sqrt(len(self.values))
        return self.mean - float(half), self.mean + float(half)

    def verdict(self, least: float = 0.0) -> str:
        """Returns whether the first arm is better: the interval must lie above zero, and the mean must reach `least` points.

        Without that, seeds that all agree in sign give 'same sign' or 'opposite sign, within noise'.
        """
        low, high = self.interval
        if low > 0:
            return REPRODUCED if self.mean >= least else SMALLER
        if high < 0:
            return REVERSED
        return _within_noise([v > 0 for v in self.values], [v < 0 for v in self.values])

    def no_worse(self, margin: float) -> str:
        """Returns whether the first arm loses no more than `margin` points: the whole interval must lie within the margin.

        An interval that ends at the margin lies within it, so that two arms with equal scores are no worse than each other.
        """
        low, high = self.interval
        if low >= -margin:
            return REPRODUCED
        if high < -margin:
            return REVERSED
        return _within_noise([v >= -margin for v in self.values], [v < -margin for v in self.values])


def _within_noise(agree: Sequence[bool], disagree: Sequence[bool]) -> str:
    """Returns the verdict where the interval decides nothing; the arguments say it for each seed."""
    if all(agree):
        return SAME_SIGN
    return OPPOSITE_SIGN if all(disagree) else NOT_REPRODUCED


def paired(better: Sequence[float], than: Sequence[float]) -> Difference:
    """Returns the difference of scores in [0, 1], seed by seed, in points."""
    return Difference(tuple(100 * (b - t) for b, t in zip(better, than, strict=True)))
