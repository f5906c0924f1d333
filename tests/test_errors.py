"""The errors of users: their exit codes, and the name that was meant."""

import os

import pytest

from embed import errors
from embed.errors import did_you_mean

CODES = {
    "UsageError": os.EX_USAGE,
    "DataError": os.EX_DATAERR,
    "EndpointError": os.EX_UNAVAILABLE,
    "NumericError": os.EX_SOFTWARE,
    "StorageError": os.EX_IOERR,
    "Preempted": os.EX_TEMPFAIL,
    "HostLost": os.EX_TEMPFAIL,
    "ConfigError": os.EX_CONFIG,
    "DoesNotFit": os.EX_CONFIG,
    "EmbedError": 1,
}


def test_the_codes_are_those_of_sysexits():
    found = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and kind not in (errors.InUse, errors.NotHere)
    }
    assert issubclass(errors.InUse, errors.StorageError) and errors.InUse.exit_code == CODES["StorageError"]
    assert issubclass(errors.NotHere, errors.DataError) and errors.NotHere.exit_code == CODES["DataError"]
    assert {name: kind.exit_code for name, kind in found.items()} == CODES
    assert all(issubclass(kind, errors.EmbedError) for kind in found.values())


@pytest.mark.parametrize(
    "name, known, said",
    [
        ("qurey", ["query", "document"], "; did you mean 'query'?"),
        ("query", {"Query": 1, "quarry": 2}, "; did you mean 'Query'?"),
        ("xyz", ["b", "a"], "; known: a, b"),
        ("xyz", {"b", "a"}, "; known: a, b"),
        ("xyz", [], ""),
        ("ab", ["abcde", "abcd"], "; did you mean 'abcd'?"),
        ("ab", ["abcde"], "; known: abcde"),  # too far
    ],
)
def test_the_nearest_name_is_told_or_all_that_are_known(name, known, said):
    assert did_you_mean(name, known) == said
    assert did_you_mean(name, (one for one in known)) == said


def test_an_error_is_one_line_whatever_it_quotes():
    for mark in ("\n", "\r\n", "\u2028", "\x0b", "\x85"):
        assert str(errors.DataError(f"x.json: 'a{mark}b' is wrong")) == "x.json: 'a b' is wrong"
    assert str(errors.UsageError("two  spaces stay")) == "two  spaces stay" and str(errors.DataError()) == ""
