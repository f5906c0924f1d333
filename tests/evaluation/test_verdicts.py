"""Verdicts: the interval decides; values by hand."""

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


# The half widths of the intervals, by Student's t: 4.303 s / sqrt(3) for three seeds, 2.776 s / sqrt(5) for five.
@pytest.mark.parametrize(
    ("values", "least", "verdict"),
    [
        ((2.0, 3.0, 2.5), 0.0, "reproduced"),  # 2.5 - 1.24 > 0
        ((2.0, 3.0, 2.5), 2.6, "smaller than claimed"),
        ((2.0, 5.0, 1.0), 0.0, "same sign, within noise"),  # 2.67 - 5.17 < 0
        ((2.0, 5.0, 1.0), 3.0, "same sign, within noise"),
        ((1.0, 2.0, 1.0, 2.0, 0.4), 0.0, "reproduced"),  # 1.28 - 0.86 > 0
        ((1.0, 2.0, 0.4), 0.0, "same sign, within noise"),  # three of the same seeds do not suffice
        ((2.0, 2.1, 2.0, 2.0, 2.2, 1.9, 2.1, -0.1), 0.0, "reproduced"),  # though one seed disagrees
        ((2.0, -0.1, 1.0), 0.0, "not reproduced"),
        ((-2.0, -3.0, -2.5), 0.0, "reversed"),
        ((-2.0, -5.0, -1.0), 0.0, "opposite sign, within noise"),
        ((-2.0, -2.1, -2.0, -2.0, -2.2, -1.9, -2.1, 0.1), 0.0, "reversed"),
        ((0.0, 0.0, 0.0), 0.0, "not reproduced"),
        ((0.5, 0.5, 0.5), 0.0, "reproduced"),  # no spread: the interval is one point
        ((3.0,), 0.0, "same sign, within noise"),  # one seed has no interval
    ],
)
def test_the_interval_decides(values, least, verdict):
    assert Difference(values).verdict(least) == verdict


@pytest.mark.parametrize(
    ("values", "margin", "verdict"),
    [
        ((0.2, -0.1, 0.0), 0.5, "reproduced"),  # 0.03 - 0.38 > -0.5
        ((0.2, -0.4, -0.1), 0.5, "same sign, within noise"),  # no seed loses more, but -0.1 - 0.75 < -0.5
        ((-0.6, 0.3, 0.1), 0.5, "not reproduced"),
        ((-1.6, -1.7, -1.9), 0.5, "reversed"),  # -1.73 + 0.38 < -0.5
        ((-0.6, -0.7, -0.9), 0.5, "opposite sign, within noise"),  # -0.73 + 0.38 > -0.5
        ((0.0, 0.0, 0.0), 0.0, "reproduced"),
        ((-0.1, 0.2, 0.3), 0.0, "not reproduced"),
        ((-0.2,), 0.5, "same sign, within noise"),
    ],
)
def test_the_interval_decides_what_is_no_worse(values, margin, verdict):
    assert Difference(values).no_worse(margin) == verdict


@pytest.mark.parametrize("margin", [0.0, 0.3, 2.0])
def test_better_implies_no_worse(margin):
    for values in ((2.0, 3.0, 2.5), (1.0, 2.0, 1.0, 2.0, 0.4)):
        assert Difference(values).verdict() == Difference(values).no_worse(margin) == "reproduced"


def test_one_seed_has_no_interval():
    found = Difference((1.0,))
    assert all(map(math.isnan, (*found.interval, found.deviation)))


def test_arms_of_different_seeds_do_not_compare():
    with pytest.raises(ValueError, match="shorter"):
        paired([0.1, 0.2], [0.1])
