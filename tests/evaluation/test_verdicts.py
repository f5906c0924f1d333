"""Verdicts: the sign of every seed, or the interval; hand values."""

import math

import pytest

from embed.evaluation.verdicts import Difference, paired


def test_differences_are_paired_and_in_points():
    found = paired([0.52, 0.55, 0.51], [0.50, 0.50, 0.50])
    assert found.values == pytest.approx((2.0, 5.0, 1.0))
    assert found.mean == pytest.approx(8 / 3)
    assert found.deviation == pytest.approx(math.sqrt((4 / 9 + 49 / 9 + 25 / 9) / 2))
    half = 4.302652729911275 * found.deviation / math.sqrt(3)  # Student's t, two degrees of freedom
    assert found.interval == pytest.approx((8 / 3 - half, 8 / 3 + half))


@pytest.mark.parametrize(
    ("values", "least", "verdict"),
    [
        ((2.0, 5.0, 1.0), 0.0, "reproduced"),  # every seed, though the interval holds zero
        ((2.0, 5.0, 1.0), 3.0, "smaller than claimed"),
        ((2.0, -0.1, 1.0), 0.0, "not reproduced"),
        ((2.0, 2.1, 2.0, 2.0, 2.2, 1.9, 2.1, -0.1), 0.0, "reproduced"),  # the interval leaves out zero
        ((-2.0, -5.0, -1.0), 0.0, "reversed"),
        ((0.0, 0.0, 0.0), 0.0, "not reproduced"),
    ],
)
def test_verdicts(values, least, verdict):
    assert Difference(values).verdict(least) == verdict


@pytest.mark.parametrize(
    ("values", "margin", "verdict"),
    [
        ((0.2, -0.4, -0.1), 0.5, "reproduced"),  # no seed loses more
        ((-0.6, 0.3, 0.1), 0.5, "not reproduced"),
        ((-0.6, -0.7, -0.9), 0.5, "reversed"),
        ((0.0, 0.0, 0.0), 0.0, "reproduced"),
        ((-0.1, 0.2, 0.3), 0.0, "not reproduced"),
    ],
)
def test_no_worse(values, margin, verdict):
    assert Difference(values).no_worse(margin) == verdict


def test_one_seed_has_no_interval():
    found = Difference((1.0,))
    assert all(map(math.isnan, (*found.interval, found.deviation)))


def test_arms_of_different_seeds_do_not_compare():
    with pytest.raises(ValueError, match="shorter"):
        paired([0.1, 0.2], [0.1])
