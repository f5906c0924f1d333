"""Records to token ids: the prompts of a record before those of its task."""

import numpy as np

from embed.data.record_encoder import RecordEncoder
from embed.data.text_features import Lengths, pairs


class Letters:
    """One token a character."""

    def encode_batch(self, texts, max_length):
        rows = [np.array([ord(c) for c in text[:max_length]], np.int32) for text in texts]
        return rows, [len(text) > max_length for text in texts]


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
