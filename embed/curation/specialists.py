"""Which mixtures of a search are kept: the best one, and those that are best in different domains."""

import math
from collections.abc import Sequence

from embed.curation import proposals, simplex
from embed.curation.proposals import Trial

MIN_APART = 0.05  # our choice: the share of draws by which chosen mixtures differ, where enough do


def best(trials: Sequence[Trial], metric: str) -> Trial | None:
    """Returns the trial that scores best by a metric, of equals the first; None where none has a score."""
    scored = [trial for trial in trials if math.isfinite(proposals.value(trial, metric))]
    return max(scored, key=lambda trial: (proposals.value(trial, metric), -trial.number), default=None)


def choose(
    trials: Sequence[Trial], metric: str, types: Sequence[str], count: int, at_least: float = -math.inf
) -> list[tuple[Trial, str]]:
    """Returns up to `count` distinct trials, each with the metric that it is chosen for.

    The first is the best by `metric`. Then come those that are best in one of `types`, the type first in which they gain most over
    the first, then the next best by `metric`; trials whose rates are nearly those of one before come last. A trial that scores
    below `at_least` by `metric` is taken only where others are too few: a mixture that is good in one domain alone is no
    ingredient of a soup. (The paper gives no rule.)
    """
    ranked = sorted(
        (trial for trial in trials if math.isfinite(proposals.value(trial, metric))),
        key=lambda trial: (-proposals.value(trial, metric), trial.number),
    )
    if not ranked:
        return []
    chosen = [(ranked[0], metric)]
    eligible = [trial for trial in ranked if proposals.value(trial, metric) >= at_least]
    gains = sorted(_gains(eligible, ranked[0], types), key=lambda gain: -gain[1])
    wanted = [*((best(eligible, kind), kind) for kind, _ in gains), *((trial, metric) for trial in ranked)]
    for apart in (MIN_APART, 1e-9):
        for trial, goal in wanted:
            if all(simplex.distance(trial.rates, other.rates) >= apart for other, _ in chosen):
                chosen.append((trial, goal))
    return chosen[:count]


def _gains(trials: Sequence[Trial], first: Trial, types: Sequence[str]) -> list[tuple[str, float]]:
    """Returns (type, points over the first trial) of the types in which another trial is better."""
    gains = []
    for kind in types:
        leader = best(trials, kind)
        if leader is not None and proposals.value(leader, kind) > proposals.value(first, kind):
            gains.append((kind, proposals.value(leader, kind) - proposals.value(first, kind)))
    return gains
