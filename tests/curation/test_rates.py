"""Rates from steps, and the grid around them."""

import pytest

from embed.curation import rates
from embed.errors import UsageError


def test_rates_are_in_proportion_to_steps():
    assert rates.from_steps({"a": 300, "b": 100}) == {"a": 0.75, "b": 0.25}


def test_the_grid_moves_one_rate_at_a_time():
    found = rates.grid({"a": 0.75, "b": 0.25}, [0.5, 2.0])
    assert found[0] == {"a": 0.75, "b": 0.25}
    assert all(sum(point.values()) == pytest.approx(1.0) for point in found)
    ratios = [point["a"] / point["b"] for point in found]
    assert ratios == pytest.approx([3.0, 1.5, 6.0])  # halving one of two is doubling the other
    three = rates.grid({"a": 0.5, "b": 0.3, "c": 0.2}, [0.5, 2.0])
    assert len(three) == 7 and three[1]["b"] / three[1]["c"] == pytest.approx(1.5)


def test_mixtures_that_are_the_same_come_once():
    found = rates.grid({"a": 0.5, "b": 0.5}, [1.0, 2.0])
    assert [point["a"] for point in found] == pytest.approx([0.5, 2 / 3, 1 / 3])
    whole = rates.grid({"a": 0.5, "b": 0.5}, [1.0, 2.0], whole=True)
    assert [point["a"] for point in whole] == pytest.approx([0.5, 1 / 3, 2 / 3])


@pytest.mark.parametrize(
    ("factors", "names", "message"),
    [([], "ab", "factors"), ([0.0], "ab", "above 0"), ([0.5, 1, 2], "abcdef", "more than 200")],
)
def test_a_grid_that_cannot_be_is_told(factors, names, message):
    with pytest.raises(UsageError, match=message):
        rates.grid({n: 1 / len(names) * (1 + i) for i, n in enumerate(names)}, factors, whole=True)
