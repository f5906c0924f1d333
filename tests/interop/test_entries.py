"""Entries held against a table, and the numbers that they may be."""

import pytest

from embed.errors import DataError
from embed.interop import entries


def test_many_unknown_entries_are_counted():
    (note,) = entries.check("f.json", {f"e{i}": i for i in range(11)}, {}, "inner.")
    assert "inner.e0, inner.e1" in note and "inner.e7 and 3 more; taken" in note


def test_true_is_not_one():
    with pytest.raises(DataError, match="a = True is not supported, only 1"):
        entries.check("f.json", {"a": True}, {"a": entries.only(1)})
    assert entries.check("f.json", {"a": 1}, {"a": entries.only(1)}) == []


@pytest.mark.parametrize("value", [True, "3", 0, 11, 2.5, None])
def test_whole_numbers(value):
    with pytest.raises(DataError, match=r"f.json: n = .* cannot be: a whole number from 1 to 10 is needed; restore"):
        entries.whole_number("f.json", {"n": value}, "n", 1, 10)
    assert entries.whole_number("f.json", {"n": 3.0}, "n", 1, 10) == 3
    assert entries.whole_number("f.json", {}, "n", 1, 10, 7) == 7


@pytest.mark.parametrize("value", [True, "3", 0, 11, float("nan"), None])
def test_real_numbers(value):
    with pytest.raises(DataError, match=r"f.json: n = .* cannot be: a number above 0 and up to 10 is needed; restore"):
        entries.real_number("f.json", {"n": value}, "n", 0.0, 10.0)
    assert entries.real_number("f.json", {"n": 3}, "n", 0.0, 10.0) == 3.0
