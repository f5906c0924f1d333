"""Text is cleaned, prompted and hashed in one way everywhere."""

import hashlib
import itertools

import numpy as np
import pytest

from embed.errors import ConfigError
from embed.text import PROMPTS, apply_prompt, clean, content_id, pair_id, template


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("  plain \n", "plain"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("\u212b", "\u00c5"),
        ("\u1100\u1161\u11a8", "\uac01"),
        ("\u3000wide\u00a0", "wide"),
        ("\ufb01ve", "\ufb01ve"),
        ("a  b\tc", "a  b\tc"),
        (" \t\r\n", ""),
    ],
)
def test_clean_composes_and_strips_and_changes_nothing_else(raw, cleaned):
    assert clean(raw) == cleaned
    assert clean(cleaned) == cleaned


def test_template_takes_a_name_or_a_template():
    assert template("document") == "title: {title} | text: {content}"
    assert template("none") == "{content}"
    assert template("find: {content}") == "find: {content}"
    assert template("mine", {"mine": "x {content}"}) == "x {content}"


@pytest.mark.parametrize("prompts", [None, {"mine": "{content}"}, {}])
def test_template_of_an_unknown_name_says_which_are_known(prompts):
    with pytest.raises(ConfigError, match="no prompt is called 'documnet'") as caught:
        template("documnet", prompts)
    message = str(caught.value)
    assert "{content}" in message and "\n" not in message
    for name in PROMPTS if prompts is None else prompts:
        assert name in message


def test_given_prompts_replace_the_built_in_ones():
    with pytest.raises(ConfigError, match="known: mine"):
        template("query", {"mine": "{content}"})


def test_every_built_in_prompt_takes_content_once():
    for name, prompt in PROMPTS.items():
        assert prompt.count("{content}") == 1, name
        assert "XYZ" in apply_prompt(prompt, "XYZ")


def test_prompted_texts_by_hand():
    assert apply_prompt(PROMPTS["query"], "why?") == "task: search result | query: why?"
    assert apply_prompt(PROMPTS["document"], "Because.", "Answers") == "title: Answers | text: Because."
    assert apply_prompt(PROMPTS["document"], "Because.") == "title: none | text: Because."
    assert apply_prompt(PROMPTS["document"], "Because.", "") == "title: none | text: Because."


@pytest.mark.parametrize(
    "content", ["{title}", "{content}", "{", "}}", "{0} {x!r:>10}", "def f(): return {1: {2}}", "%s \\1"]
)
def test_braces_in_content_and_title_are_kept(content):
    assert apply_prompt(PROMPTS["query"], content) == f"task: search result | query: {content}"
    assert apply_prompt(PROMPTS["document"], content, "T") == f"title: T | text: {content}"
    assert apply_prompt(PROMPTS["document"], "C", content) == f"title: {content} | text: C"


def test_a_template_without_a_place_for_titles_gets_them_in_front():
    assert apply_prompt("{content}", "Because.", "Answers") == "Answers Because."
    assert apply_prompt("passage: {content}", "Because.", "Answers") == "passage: Answers Because."
    assert apply_prompt("passage: {content}", "Because.") == "passage: Because."


def test_the_title_may_follow_the_content_in_a_template():
    assert apply_prompt("{content} | title: {title}", "C", "T") == "C | title: T"
    assert apply_prompt("{content} | title: {title}", "{title}") == "{title} | title: none"


def test_content_id_is_the_start_of_the_sha256():
    for text in ("", "a", "\u00e9t\u00e9", "\U0001f600 " * 1000):
        first = hashlib.sha256(text.encode()).digest()[:8]
        found = content_id(text)
        assert found.dtype == np.int64
        assert int(found) == int.from_bytes(first, "little", signed=True)


def test_content_ids_are_equal_exactly_for_equal_texts():
    texts = ["", " ", "a", "A", "a ", "a\n", "\u00e9", "e\u0301", "0", "\0", *(f"text {i}" for i in range(500))]
    ids = [int(content_id(t)) for t in texts]
    assert ids == [int(content_id("".join(list(t)))) for t in texts]
    assert all(a != b for a, b in itertools.combinations(ids, 2))


def test_the_id_of_a_pair_follows_from_both_texts_in_their_order():
    one, two = np.array([content_id("a"), content_id("b")]), np.array([content_id("b"), content_id("a")])
    ids = pair_id(one, two)
    assert ids.dtype == np.uint64 and len({*ids.tolist(), int(pair_id(one[:1], one[:1])[0])}) == 3
    exact = [(q * 0x9E3779B97F4A7C15 + t) % 2**64 for q, t in zip(one.tolist(), two.tolist())]
    assert ids.tolist() == exact
