"""Rates of a mixture from how long each task takes to learn alone, and a grid around them. Source: arXiv:2503.07891 s3.3."""

import itertools
from collections.abc import Mapping, Sequence

from embed.errors import UsageError

MOST_POINTS = 200


def from_steps(steps: Mapping[str, int]) -> dict[str, float]:
    """Returns rates in proportion to the steps after which each task alone scored best, summing to 1."""
    total = sum(steps.values())
    return {name: count / total for name, count in steps.items()}


def grid(rates: Mapping[str, float], factors: Sequence[float], whole: bool = False) -> list[dict[str, float]]:
    """Returns the mixtures around `rates`, that one first, each summing to 1 and each once.

    One rate at a time is multiplied by each factor; with `whole` every combination of factors is taken. (The paper says a
    fine-grained grid from these rates; which, it does not.)
    """
    if not factors or min(factors) <= 0:
        raise UsageError(f"factors = {list(factors)}: at least one, all above 0, such as 0.5,1,2")
    names = list(rates)
    if whole:
        points = itertools.product(factors, repeat=len(names))
    else:
        ones = [1.0] * len(names)
        points = [[*ones[:i], f, *ones[i + 1 :]] for i in range(len(names)) for f in factors]
    by_point: dict[tuple, dict[str, float]] = {}
    for point in [[1.0] * len(names), *points]:
        raw = [rates[name] * f for name, f in zip(names, point)]
        mixture = [x / sum(raw) for x in raw]
        by_point.setdefault(tuple(round(x, 9) for x in mixture), dict(zip(names, mixture)))
        if len(by_point) > MOST_POINTS:
            raise UsageError(
                f"more than {MOST_POINTS} mixtures of {len(names)} tasks; take fewer factors, or not all combinations"
            )
    return list(by_point.values())
