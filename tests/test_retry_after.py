"""The header Retry-After as a number, as a date, and as what is neither."""

import email.utils
import time

import pytest

from embed import retry_after


@pytest.mark.parametrize(
    ("value", "expected"),
    [("3", 3.0), ("0.5", 0.5), ("-2", 0.0), ("nan", None), ("soon", None), ("", None), ("Mon, 99 Foo", None)],
)
def test_numbers_and_what_is_none(value, expected):
    assert retry_after.seconds({"retry-after": value}) == expected


def test_dates():
    later = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert 50 < retry_after.seconds({"retry-after": later}) <= 60
    assert retry_after.seconds({"retry-after": email.utils.formatdate(0, usegmt=True)}) == 0
    assert retry_after.seconds({}) is None
