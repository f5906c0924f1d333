"""Texts to embed as they go over the wire, and the vectors of a reply: in order, of one size, finite, or refused."""

import dataclasses
import json

import numpy as np
import pytest

from embed.curation.embedding_requests import Embeddings, vectors
from embed.curation.requests import Malformed, Reply, parse

REQUEST = Embeddings(("one", "two ü", "three"))
ROWS = [[1.0, 0, -2.5], [0.25, 1e-30, 3], [4, 5, 6]]


def reply(rows=ROWS, **more) -> bytes:
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
    return json.dumps({"object": "list", "data": data, **more}).encode()


def test_texts_are_sent_in_a_list_as_floats_with_their_size_where_one_is_asked_for():
    body = {"model": "m", "input": ["one", "two ü", "three"], "encoding_format": "float"}
    assert json.loads(REQUEST.body("m", True)) == body and "ü".encode() in REQUEST.body("m", False)
    sized = dataclasses.replace(REQUEST, dimensions=256)
    assert json.loads(sized.body("m", False)) == {**body, "dimensions": 256}
    assert REQUEST.path == "embeddings"


def test_a_key_goes_by_all_that_decides_the_reply():
    changes = {"texts": ("one", "two ü"), "dimensions": 3}
    keys = {dataclasses.replace(REQUEST, **{name: value}).key("m", True) for name, value in changes.items()}
    assert len(keys | {REQUEST.key("m", True), REQUEST.key("n", True)}) == 4
    assert REQUEST.key("m", True) == REQUEST.key("m", False) == dataclasses.replace(REQUEST, dim=3).key("m", True)
    assert Embeddings(("ab", "c")).key("m", True) != Embeddings(("a", "bc")).key("m", True)
    with pytest.raises(UnicodeEncodeError):
        Embeddings(("\ud83d",)).key("m", True)


def test_vectors_are_kept_exactly_in_the_order_of_the_texts():
    text = parse(reply(), REQUEST, 99).text
    kept = vectors(text, 3)
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept, np.array(ROWS, np.float32))
    data = json.loads(reply())["data"]
    shuffled = json.dumps({"data": [data[2], data[0], data[1]]}).encode()
    assert parse(shuffled, REQUEST, 99).text == text
    for item in data:
        del item["index"]  # of some servers the first lacks it, of some all do
    assert parse(json.dumps({"data": data}).encode(), REQUEST, 99).text == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "without vectors"),
        ({"data": None}, "without vectors"),
        ({"data": [1, 2, 3]}, "without vectors"),
        ({"choices": []}, "without vectors"),
        ({"data": []}, "0 vectors for 3 texts"),
        (ROWS[:2], "2 vectors for 3 texts"),
        ([*ROWS, ROWS[0]], "4 vectors for 3 texts"),
        ({"data": [{"index": 0, "embedding": [1]}] * 3}, "numbers are not those of the texts"),
        ({"data": [{"index": i, "embedding": [1]} for i in (1, 2, 3)]}, "numbers are not those"),
        ({"data": [{"index": i, "embedding": [1]} for i in (-1, 0, 1)]}, "numbers are not those"),
        ({"data": [{"index": i, "embedding": [1]} for i in (True, 0, 2)]}, "numbers are not those"),
        ({"data": [{"index": str(i), "embedding": [1]} for i in range(3)]}, "numbers are not those"),
        ([[1], [2], "AACAPw=="], "no list of numbers"),
        ([[1], [2], None], "no list of numbers"),
        ([[1], [2], [True]], "no list of numbers"),
        ([[1], [2], ["3"]], "no list of numbers"),
        ([[1], [2], [[3]]], "no list of numbers"),
        ([[1], [2], [3, 4]], "vectors of 1 and 2 values"),
        ([[], [], []], "vectors of 0 values"),
        ([[1], [2], [float("nan")]], "not finite"),
        ([[1], [2], [float("-inf")]], "not finite"),
        ([[1], [2], [1e39]], "not finite"),
        ([[1], [2], [10**400]], "not finite"),
        ([[1], [2], [0.0]], "a vector of zeros"),
        ([[1], [2], [1e-60]], "a vector of zeros"),  # in float32
    ],
)
def test_a_reply_that_is_not_one_vector_for_each_text_is_malformed(value, reason):
    is_rows = isinstance(value, list) and value and isinstance(value[0], list)
    with pytest.raises(Malformed, match=reason):
        parse(reply(value) if is_rows else json.dumps(value).encode(), REQUEST, 99)


@pytest.mark.parametrize(
    ("given", "reason"), [({"dim": 4}, "those of other texts have 4"), ({"dimensions": 2}, "asked for were 2")]
)
def test_vectors_of_another_size_are_malformed(given, reason):
    with pytest.raises(Malformed, match=f"vectors of 3 values, and {reason}"):
        parse(reply(), dataclasses.replace(REQUEST, **given), 99)
    for same in ({"dim": 3}, {"dimensions": 3}, {"dimensions": 3, "dim": 3}):
        parse(reply(), dataclasses.replace(REQUEST, **same), 99)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0}, {"prompt_tokens": -3}, {"total_tokens": 7}, [1]])
def test_a_cost_that_is_not_told_is_the_most_possible(usage):
    costed = parse(reply(usage={"prompt_tokens": 7, "total_tokens": 7}), REQUEST, 99)
    assert costed == Reply(costed.text, 7, 0)
    assert parse(reply(usage=usage), REQUEST, 99) == Reply(costed.text, 99, 0, estimated=True)


def test_a_reply_may_be_as_large_as_its_vectors():
    digits = json.dumps(1 / 3 * 1e-10)
    assert REQUEST.max_reply_bytes == 3 * Embeddings(("a",)).max_reply_bytes > 3 * 16384 * (len(digits) + 2)
