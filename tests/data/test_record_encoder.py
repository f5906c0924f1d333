"""Records to token ids: what is encoded, cut and counted, and the prompts of a record before those of its task."""

import numpy as np
from encoded_pairs import Letters

from embed.data.record_encoder import RecordEncoder
from embed.data.text_features import Lengths, pairs
from embed.text import content_id


def words(tokens) -> str:
    return "".join(map(chr, tokens))


def test_a_prompt_of_a_record_takes_the_place_of_the_tasks():
    encoder = RecordEncoder(pairs(Lengths(100, 100)), Letters(), "ask: {content}", "{title} | {content}")
    records = [
        {"query": "a", "target": "b", "title": "T", "negatives": ["n"]},
        {"query": "a", "target": "b", "query_prompt": "find: {content}", "target_prompt": "", "negatives": ["n"]},
        {"query": "a", "target": "b", "target_prompt": "passage: {content}", "negatives": ["n"]},
    ]
    first, second, third = encoder(records)
    assert [words(x["query"]) for x in (first, second, third)] == ["ask: a", "find: a", "ask: a"]
    assert [words(x["target"]) for x in (first, second, third)] == ["T | b", "none | b", "passage: b"]
    assert [words(x["negatives"]) for x in (first, second, third)] == ["none | n", "none | n", "passage: n"]
    assert first["query_id"] == second["query_id"]  # prompts do not decide what an item is


def test_encoded_pairs_by_hand():
    encoder = RecordEncoder(pairs(Lengths(6, 9)), Letters(), "q:{content}", "{title}|{content}")
    rows = encoder(
        [
            {
                "query": "abcd",
                "target": "long target",
                "title": "T",
                "negatives": ["n", "much longer"],
                "target_key": "",
            },
            {"query": "abcde", "target": "x"},
            {"query": "f", "target": "x", "title": "U", "negatives": ["last"], "target_key": "label:1"},
        ]
    )
    letters = lambda text: [ord(c) for c in text]  # noqa: E731
    wanted = [
        ("q:abcd", "T|long ta", ["none|n", "none|much"], [0, 1, 1], "abcd", "T\nlong target"),
        ("q:abcd", "none|x", [], [1, 0, 0], "abcde", "\nx"),
        ("q:f", "U|x", ["none|last"], [0, 0, 0], "f", "label:1"),
    ]
    for row, (query, target, negatives, truncated, asked, key) in zip(rows, wanted, strict=True):
        assert row["query"].tolist() == letters(query)
        assert row["target"].tolist() == letters(target)
        assert row["negatives"].tolist() == letters("".join(negatives))
        assert row["negatives_lengths"].tolist() == [len(n) for n in negatives]
        assert [row[f"{name}_truncated"] for name in ("query", "target", "negatives")] == truncated
        assert (row["query_id"].tolist(), row["target_id"].tolist()) == ([content_id(asked)], [content_id(key)])
        assert all(row[k].dtype == np.int32 for k in ("query", "target", "negatives", "negatives_lengths"))
