"""Texts of a record: one in turn, lists in part, and what of a batch is theirs."""

import collections

import numpy as np
import pytest
from encoded_pairs import Letters, encoded

from embed.data.draws import Draws
from embed.data.features import Unit, drawn_ids
from embed.data.record_encoder import RecordEncoder
from embed.data.text_features import Lengths, Text, Texts, pairs
from embed.errors import ConfigError, DataError
from embed.text import content_id, target_id


def draws(count, epoch=0, seed=0):
    return Draws(np.zeros(count, np.int64), np.arange(count), np.full(count, epoch), seed)


def encode(features, *records):
    return RecordEncoder(features, Letters(), "none", "none")([{"location": "f:1", **r} for r in records])


# One text.


def test_every_text_of_a_record_is_drawn_in_turn():
    lengths = np.array([[3, 0, 0, 0], [1, 2, 0, 0], [5, 5, 5, 5], [1, 1, 1, 0]])
    text = Text("query", 10)
    for start in (0, 4, 8):
        turns = np.stack([text.choose(lengths, draws(4, epoch)) for epoch in range(start * 3, start * 3 + 12)], 1)
        for row, count in zip(turns, (1, 2, 4, 3)):
            assert collections.Counter(row.tolist()) == dict.fromkeys(range(count), 12 // count)
            assert (row[:count] == row[count : 2 * count]).all()


def test_records_have_orders_of_their_own():
    lengths = np.ones((200, 4), int)
    first = Text("query", 10).choose(lengths, draws(200))
    np.testing.assert_allclose(np.bincount(first) / 200, 0.25, atol=0.1)
    assert (first != Text("query", 10).choose(lengths, draws(200, seed=1))).any()
    assert (first != Text("target", 10).choose(lengths, draws(200))).any()


def test_the_texts_of_a_record_are_encoded_one_after_the_other():
    features = (Text("query", 4, "query"), Text("target", 9, titled=True))
    made = encode(features, {"query": ["ab", "cdefg"], "target": ["x", "y"], "title": ["T", ""]})[0]
    assert made["query"].tolist() == [ord(c) for c in "abcdef"] and made["query_lengths"].tolist() == [2, 4]
    assert made["query_truncated"] == 1 and made["query_id"].tolist() == [content_id("ab"), content_id("cdefg")]
    assert made["target"].tolist() == [ord(c) for c in "T xy"]
    assert made["target_id"].tolist() == [target_id("x", "T"), target_id("y")]
    assert made["target_equal_ids"].tolist() == [target_id(t) for t in ("x", "T x", "y", "y")]
    assert [x.tolist() for x in features[0].texts(made, 1)] == [[ord(c) for c in "cdef"]]


def test_titles_that_are_not_one_a_text_are_refused():
    with pytest.raises(DataError, match="f:1: 3 titles for 2 texts 'target'; give each its own"):
        encode((Text("target", 9, titled=True),), {"target": ["x", "y"], "title": ["T", "U", "V"]})


# Lists.


@pytest.mark.parametrize("draw", ["random", "first"])
def test_of_a_list_as_many_as_asked_for_are_drawn_in_their_order(draw):
    random = np.random.default_rng(0)
    lengths = random.integers(0, 4, (300, 7)) * random.integers(0, 2, (300, 7))
    feature = Texts("negatives", 10, 3, draw=draw)
    for epoch in range(3):
        columns = feature.choose(lengths, draws(300, epoch))
        assert columns.shape == (300, 3)
        for row, sizes in zip(columns, lengths):
            there = row[row >= 0]
            assert len(there) == min(3, np.count_nonzero(sizes)) and (row[len(there) :] == -1).all()
            assert (np.diff(there) > 0).all() and (sizes[there] > 0).all()
            if draw == "first":
                assert there.tolist() == np.flatnonzero(sizes)[:3].tolist()


def test_every_text_of_a_longer_list_is_drawn_as_often():
    lengths = np.ones((2000, 8), int)
    feature = Texts("negatives", 10, 3)
    columns = np.concatenate([feature.choose(lengths, draws(2000, epoch)) for epoch in range(3)])
    np.testing.assert_allclose(np.bincount(columns.reshape(-1), minlength=8) / len(columns), 3 / 8, atol=0.02)
    first, second = (feature.choose(lengths, draws(2000, epoch)) for epoch in (0, 1))
    assert 0.9 < (first != second).any(1).mean() < 1.0


def test_a_list_that_is_not_longer_is_taken_as_it_is():
    lengths = np.array([[2, 0, 3], [0, 0, 0], [1, 1, 1]])
    assert Texts("n", 10, 3).choose(lengths, draws(3)).tolist() == [[0, 2, -1], [-1, -1, -1], [0, 1, 2]]
    assert Texts("n", 10, 5).choose(lengths, draws(3)).tolist()[0] == [0, 2, -1, -1, -1]
    assert Texts("n", 10, 2).choose(np.zeros((3, 0), int), draws(3)).tolist() == [[-1, -1]] * 3


def test_the_arrays_of_a_batch():
    text, texts = Text("query", 10), Texts("negatives", 10, 2)
    examples = [
        {**encoded("query", [[1], [2]], [7, -8]), **encoded("negatives", [[3], [4], [5]], [20, 21, 22])},
        {**encoded("query", [[6]], [9]), **encoded("negatives", [], [])},
    ]
    columns = {"query": np.array([1, 0]), "negatives": np.array([[0, 2], [-1, -1]])}
    places = {"query": np.array([5, 6], np.int32), "negatives": np.array([[1, 2], [0, 0]], np.int32)}
    unit = Unit(examples, draws(2), columns, places)
    assert drawn_ids(unit, "query").tolist() == [-8, 9]
    assert drawn_ids(unit, "negatives").tolist() == [[20, 22], [0, 0]]
    sides = {"query": (), "negatives": (2,)}
    for feature in (text, texts):
        found = {name: (x.shape, x.dtype) for name, x in feature.collate(unit).items()}
        assert found == {name: (shape, np.dtype(kind)) for name, (shape, kind) in feature.shapes(2, sides).items()}
    assert texts.collate(unit)["negatives_mask"].tolist() == [[True, True], [False, False]]
    assert text.collate(unit)["query_id"].tolist() == [[2**32 - 8, 2**32 - 1], [9, 0]]


def test_the_features_of_pairs():
    query, target, negatives = pairs(Lengths(5, 7), 2, "first")
    assert [f.title for f in (query, target, negatives)] == [
        "query of 5 tokens", "target of 7 tokens", "2 negatives of 7 tokens"
    ]  # fmt: skip
    assert (negatives.query, negatives.positives, negatives.draw) == ("query", "target", "first")
    assert pairs(Lengths(5, 7), 2)[2].definition() == pairs(Lengths(5, 7), 0, "first")[2].definition()
    with pytest.raises(ConfigError, match="Texts.draw"):
        Texts("n", 3, draw="last")
