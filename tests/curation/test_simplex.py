"""Rates as points of a simplex."""

import numpy as np
import pytest

from embed.curation import simplex

NAMES = ["a", "b", "c"]


def test_weights_become_rates_none_of_which_is_too_small():
    rates = simplex.named(NAMES, [3.0, 1.0, 0.0])
    assert rates == pytest.approx({"a": 0.01 + 0.97 * 0.75, "b": 0.01 + 0.97 * 0.25, "c": 0.01}, abs=1e-6)
    assert simplex.named(NAMES, [6.0, 2.0, -1.0]) == rates  # any scale; what is below 0 counts as 0
    assert simplex.named(NAMES, [0.0, 0.0, 0.0]) == pytest.approx(dict.fromkeys(NAMES, 1 / 3), abs=1e-6)


@pytest.mark.parametrize("count", [2, 50, 200])
def test_rates_sum_to_one_and_leave_half_of_the_draws_to_the_weights(count):
    names = [str(i) for i in range(count)]
    rates = simplex.named(names, [1.0] + [0.0] * (count - 1))
    assert sum(rates.values()) == pytest.approx(1.0, abs=1e-6 * count)
    assert min(rates.values()) == pytest.approx(min(0.01, 0.5 / count)) and rates["0"] > 0.5


def test_roots_lie_on_the_unit_sphere_at_hellingers_distance():
    points = np.array([[0.2, 0.3, 0.5], [2.0, 3.0, 5.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    roots = simplex.roots(points)
    assert np.linalg.norm(roots, axis=1) == pytest.approx([1.0] * 4)
    assert roots[0] == pytest.approx(roots[1]) and roots[3] == pytest.approx([3**-0.5] * 3)
    p, q = points[0], points[2]
    hellinger = np.sqrt(1 - sum(np.sqrt(p[i] * q[i]) for i in range(3)))
    assert np.linalg.norm(roots[0] - roots[2]) == pytest.approx(np.sqrt(2) * hellinger)


def test_the_distance_is_the_share_of_other_draws():
    one, other = {"a": 0.5, "b": 0.5}, {"a": 0.7, "b": 0.3}
    assert simplex.distance(one, other) == pytest.approx(0.2) == simplex.distance(other, one)
    assert simplex.distance(one, one) == 0 and simplex.distance({"a": 1, "b": 0}, {"a": 0, "b": 1}) == 1


def test_random_mixtures_are_uniform_over_the_simplex():
    mixtures = simplex.dirichlet(NAMES, 4000, np.random.default_rng(0))
    shares = np.array([[m[n] for n in NAMES] for m in mixtures])
    assert shares.mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.01)
    # The first of three rates is above x in a share (1 - x)^2 of a uniform simplex.
    weights = (shares[:, 0] - 0.01) / 0.97
    for x in (0.1, 0.5, 0.8):
        assert (weights > x).mean() == pytest.approx((1 - x) ** 2, abs=0.025)
    again = simplex.dirichlet(NAMES, 4000, np.random.default_rng(0))
    assert mixtures == again and mixtures[:5] != simplex.dirichlet(NAMES, 5, np.random.default_rng(1))
