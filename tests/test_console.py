"""What long commands say while they work."""

import subprocess
import sys

import pytest

from embed import console


def test_a_line_a_minute_where_there_is_no_terminal(monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr(console.time, "time", lambda: now[0])
    with console.text_bar(9000, every_minute=True) as progress:
        for seconds in (30, 29, 1, 59, 1):
            now[0] += seconds
            progress(1000)
    assert capsys.readouterr().out.splitlines() == [
        "3,000 of 9,000 texts, 50 a second, 2 minutes left",
        "5,000 of 9,000 texts, 42 a second, 2 minutes left",
    ]


def test_nothing_is_said_of_nothing_or_where_shards_are_told(monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr(console.time, "time", lambda: now[0])
    for total, every_minute in ((0, True), (9000, False)):
        with console.text_bar(total, every_minute) as progress:
            now[0] += 100
            progress(total)
    assert capsys.readouterr().out == ""


SWALLOWS = """
import os, signal, sys
from embed import console
console.stop_on_sigterm()
try:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except Exception:
        print("caught as an error")
except BaseException as e:  # as a library does that looks for its plug-ins
    print(type(e).__name__)
try:
    console.say("a line")
except console.Terminated:
    print("ends here")
console.say("a line of who cleans up")
print(console.take_termination())
"""


def test_sigterm_is_no_error_and_is_not_lost_where_it_is_swallowed():
    done = subprocess.run([sys.executable, "-c", SWALLOWS], text=True, capture_output=True, timeout=60)
    assert done.stdout.splitlines() == ["Terminated", "ends here", "a line of who cleans up", "False"], done.stderr


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1 kB"),
        (999_499_999, "999 MB"),
        (999_500_000, "1 GB"),
        (1.234e15, "1230 TB"),
    ],
)
def test_sizes_have_three_digits_and_no_exponent(count, text):
    assert console.size_text(count) == text
