"""Known positives of all files together, against a dictionary."""

import numpy as np
import pytest

from embed.curation.positives import Positives, text_ids
from embed.text import target_id


def part(*pairs):
    rows = [(target_id(query), *text_ids(text, title)) for query, text, title in pairs]
    columns = np.array(rows, np.int64)
    return columns[:, 0], columns[:, 1:]


def test_positives_of_one_query_come_from_all_files():
    known = Positives(
        [
            part(("who", "a", ""), ("who", "b", "t"), ("what", "c", "")),
            part(("who", "d", ""), ("who", "a", ""), ("when", "e", "")),
        ]
    )
    assert set(known.of(target_id("who"))) == {i for x in (("a", ""), ("b", "t"), ("d", "")) for i in text_ids(*x)}
    assert set(known.of(target_id("when"))) == {target_id("e")}
    assert len(known.of(target_id("nobody"))) == 0
    ids = np.array([target_id("what"), target_id("when")])
    assert known.max_count(ids) == 1 and known.max_count(np.array([target_id("who")])) == 3


def test_a_text_goes_by_its_title_in_every_form():
    assert text_ids("b", "t") == (target_id("b", "t"), target_id("b"), target_id("t b"))
    assert text_ids("b") == (target_id("b"),) * 3


@pytest.mark.parametrize("seed", range(5))
def test_as_a_dictionary_says(seed):
    draw = np.random.default_rng(seed)
    ids = np.iinfo(np.int64)
    queries = draw.choice([ids.min, -1, 0, 5, ids.max], 60)
    targets = np.repeat(draw.integers(0, 9, 60)[:, None], 3, 1)
    known = Positives([(queries[:20], targets[:20]), (queries[20:], targets[20:])])
    wanted = {q: set(targets[queries == q, 0].tolist()) for q in queries.tolist()}
    for query, positives in wanted.items():
        assert set(known.of(np.int64(query)).tolist()) == positives
    assert known.max_count(np.array(sorted(wanted))) == max(map(len, wanted.values()))
