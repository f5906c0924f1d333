"""Keeping the key out of texts: however it is escaped, and which keys can be kept out."""

import json
import urllib.parse

import pytest

from embed.curation.secret import Secret, printable
from embed.errors import UsageError


@pytest.mark.parametrize("key", ["a", "abcd"])
def test_a_key_that_is_too_short_to_be_kept_out_of_texts_is_refused(key):
    with pytest.raises(UsageError) as caught:
        Secret(key, "MY_KEY")
    message = (
        f"MY_KEY: a key of {len(key)} characters is too short to be kept out of texts; set one of at least 5, or unset"
    )
    assert str(caught.value).startswith(message)
    assert Secret("abcde", "MY_KEY").remove("fabcdef") == "f[key removed]f"


@pytest.mark.parametrize("key", ["two words", "new\nline", "schlüssel", "tab\there", "nul\x00l"])
def test_a_key_with_characters_that_none_has_is_refused(key):
    with pytest.raises(UsageError, match="^MY_KEY: the key holds characters that no key has; set it again$"):
        Secret(key, "MY_KEY")


def test_without_a_key_nothing_is_removed():
    secret = Secret("", "MY_KEY")
    assert not secret.is_in("") and not secret.is_in("any text") and secret.remove("any text") == "any text"


ESCAPES = {
    "none": lambda key: key,
    "JSON in JSON": lambda key: json.dumps(json.dumps(key)),
    "code points": lambda key: "".join(f"\\u{ord(c):04X}" for c in key),
    "code points in JSON": lambda key: "".join(f"\\\\u{ord(c):04x}" for c in key),
    "bytes": lambda key: "".join(f"\\x{ord(c):02x}" for c in key),
    "URL": lambda key: urllib.parse.quote(key, safe=""),
    "slashes": lambda key: key.replace("/", "\\/"),
}


@pytest.mark.parametrize("key", ["secret-Key", 'a"b\\c/d+e%f'])
@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
def test_a_key_is_removed_however_it_is_escaped(key, escape):
    secret = Secret(key, "VARIABLE")
    text = f"before {escape(key)} after"
    assert secret.is_in(text)
    removed = secret.remove(text)
    assert removed.startswith("before ") and removed.endswith(" after") and secret.mark in removed
    assert not secret.is_in(removed) and len(removed) < len("before  after") + len(secret.mark) + 8


@pytest.mark.parametrize("text", ["secret-key", "ecret-Key", "secret Key", "secret--Key", "SECRET-KEY", ""])
def test_what_only_looks_like_the_key_is_left(text):
    secret = Secret("secret-Key", "VARIABLE")
    assert not secret.is_in(text) and secret.remove(text) == text


def test_a_key_is_removed_wherever_it_stands():
    assert (
        Secret("a.c.e", "VARIABLE").remove("a.c.e abcde a.c.ea.c.e") == "[key removed] abcde [key removed][key removed]"
    )


def test_what_a_server_says_is_one_line_without_commands():
    assert printable("  a\x1b[31mb\r\n\tc \u202e d\x00 ") == "a [31mb c d"
    assert printable("é 語 😀") == "é 語 😀"
    assert printable("") == printable("\x07\n") == ""


def test_what_a_server_says_is_cut():
    assert printable("x" * 200) == "x" * 160 and printable("x" * 200, 7) == "x" * 7
    # White space counts after it is folded, and what stands far behind is not looked at.
    assert printable(" " * 10 + "abcdef", 4) == "abcd"
    assert printable(" " * 16 + "abcdef", 4) == ""
