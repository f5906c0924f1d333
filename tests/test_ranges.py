"""Values against annotated ranges: what fits passes, what does not is named in plain words."""

import dataclasses
from collections.abc import Mapping, Sequence

import pytest

from embed import ranges
from embed.errors import ConfigError
from embed.ranges import Count, Natural, Positive, Share


class OwnClass:
    pass


FITS = [
    (1, Count), (0, Natural), (1, Positive), (0.5, Positive), (1, Share), (None, Count | None), ([1, 2], Sequence[Count]),
    ({"a": 1.5}, Mapping[str, Positive]), ("all", str | Mapping[str, Positive]), (OwnClass(), OwnClass), (3, OwnClass | Count),
    ("x", str), (1 << 40, Count), (1e10, Positive), (1 << 31, int | float),
]  # fmt: skip
FAILS = [
    (0, Count, "expected an integer >= 1"),
    (True, Count, "expected an integer, got a truth value"),
    (1.5, Count, "expected an integer, got a number"),
    ("1", Count, "expected an integer, got a text"),
    (1 << 60, Count, "expected an integer <= "),
    (float("nan"), Positive, "expected a finite number"),
    (float("inf"), Positive, "expected a finite number"),
    (0, Positive, "expected a number > 0"),
    (1.5, Share, "expected a number <= 1"),
    (0, Count | None, "expected an integer >= 1"),
    ([1, 0], Sequence[Count], "expected an integer >= 1 at [1]"),
    ({"a": 1, "b": -1}, Mapping[str, Positive], "expected a number > 0 at 'b'"),
    ({"b": -1}, str | Mapping[str, Positive], "expected a number > 0 at 'b'"),
    (-3, OwnClass | Count, "expected an integer >= 1"),
    (10**10, Positive, "is an integer, which JAX takes as int32; write the float 1e+10"),
    (10**30, Positive | None, "is an integer, which JAX takes as int32; write the float 1e+30"),
    ({"a": 10**10}, Mapping[str, Positive], "is an integer, which JAX takes as int32; write the float 1e+10 at 'a'"),
    ("", ranges.Text, "expected a text of length >= 1"),
]


@pytest.mark.parametrize(("value", "hint"), FITS)
def test_what_fits_passes(value, hint):
    assert ranges.problem(value, hint) is None


@pytest.mark.parametrize(("value", "hint", "reason"), FAILS)
def test_what_does_not_fit_is_named(value, hint, reason):
    assert ranges.problem(value, hint).startswith(reason)


@dataclasses.dataclass(frozen=True)
class Settings:
    steps: Count
    rates: Mapping[str, Positive]

    def __post_init__(self):
        ranges.check_fields(self)


def test_a_dataclass_names_the_field_and_its_value():
    Settings(3, {"a": 1.0})
    with pytest.raises(ConfigError, match=r"Settings.steps = 0: expected an integer >= 1"):
        Settings(0, {})
    with pytest.raises(ConfigError, match=r"Settings.rates = \{'a': 0.0\}: expected a number > 0 at 'a'"):
        Settings(1, {"a": 0.0})
