"""The rates of a mixture as points of a simplex: no rate too small to be trained on, distances, and random mixtures."""

from collections.abc import Mapping, Sequence

import numpy as np

MIN_RATE = 0.01  # our choice: the share of draws that every task of a mixture keeps
DIGITS = 6  # decimals of a rate, as gin files show it


def min_rate(count: int) -> float:
    """Returns the smallest rate that a task of a mixture of `count` tasks may have; half of the draws stay free."""
    return min(MIN_RATE, 0.5 / count)


def named(names: Sequence[str], point: Sequence[float]) -> dict[str, float]:
    """Returns the mixture of non-negative weights, one a name: rates that sum to 1, none below `min_rate`.

    The map is linear: a share of `count * min_rate` of the draws is divided evenly and the rest by the weights. Weights that are
    all 0 give even rates.
    """
    weights = np.maximum(np.asarray(point, np.float64), 0.0)
    total = weights.sum()
    shares = weights / total if total > 0 else np.full(len(names), 1 / len(names))
    floor = min_rate(len(names))
    rates = floor + (1 - floor * len(names)) * shares
    return {name: round(float(rate), DIGITS) for name, rate in zip(names, rates)}


def roots(points: np.ndarray) -> np.ndarray:
    """Returns the square roots of the rates of weights [n, tasks]: points of the unit sphere.

    Distances between them (Hellinger's, times the root of 2) resolve small rates: from 1 % to 2 % is as far as from 25 % to 29 %.
    Unlike distances between logarithms, they are finite where a rate is 0.
    """
    weights = np.maximum(np.atleast_2d(np.asarray(points, np.float64)), 0.0)
    totals = weights.sum(axis=1, keepdims=True)
    even = np.full_like(weights, 1 / weights.shape[1])
    return np.sqrt(np.divide(weights, totals, out=even, where=totals > 0))


def distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Returns the share of draws that two mixtures of the same tasks do not have in common, 0 to 1 (total variation)."""
    return sum(abs(one[name] - other[name]) for name in one) / 2


def dirichlet(names: Sequence[str], count: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """Returns random mixtures, uniform over the simplex: the Dirichlet distribution with all concentrations 1.

    Source: arXiv:2509.20354 s2.3, which does not publish the concentrations.
    """
    return [named(names, point) for point in rng.dirichlet(np.ones(len(names)), count)]
