"""Rows that hold several texts: every text once and whole, few heights, and how texts are told apart."""

import itertools

import numpy as np
import pytest

from embed.data.packing import Layout, Waiting, fill, ladder, lengths, row_length, texts


@pytest.mark.parametrize(
    ("longest", "length"), [(1, 64), (64, 64), (65, 128), (1025, 2048), (2048, 2048), (2049, 4096), (5000, 6144)]
)
def test_row_lengths(longest, length):
    assert row_length(longest) == length


@pytest.mark.parametrize("max_segments", [1, 3, 16])
@pytest.mark.parametrize("seed", range(5))
def test_every_text_is_in_one_row_that_holds_it(seed, max_segments):
    sizes = np.random.default_rng(seed).integers(1, 100, 57)
    rows = fill(sizes, 128, max_segments)
    assert sorted(itertools.chain(*rows)) == list(range(57))
    assert all(1 <= len(row) <= max_segments and sizes[list(row)].sum() <= 128 for row in rows)


def test_rows_are_nearly_full():
    sizes = np.random.default_rng(0).integers(4, 60, 400)
    assert sizes.sum() / (len(fill(sizes, 128, 16)) * 128) > 0.97


def test_a_text_longer_than_the_row_is_refused():
    with pytest.raises(ValueError, match="a text of 129 tokens does not fit a row of 128"):
        fill([3, 129], 128, 16)


def test_nothing_waits_when_there_is_nothing():
    assert not Waiting([])
    assert fill([], 64, 8) == []


def test_a_row_takes_the_longest_that_fits():
    waiting = Waiting([10, 50, 40, 30])
    assert waiting.longest == 50
    assert waiting.take_row(64, 16) == (1, 0)
    assert waiting.take_row(64, 16) == (2,)


def added(heights, weights, rungs):
    return sum(w * (min(r for r in rungs if r >= h) - h) for h, w in zip(heights, weights))


@pytest.mark.parametrize("most", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(8))
def test_the_ladder_is_the_best_of_all(seed, most):
    random = np.random.default_rng(seed)
    heights, weights = random.integers(1, 40, 9), random.random(9)
    found = ladder(heights, weights, most, enough=0.0)
    assert len(found) <= most and found == tuple(sorted(found)) and found[-1] == heights.max()
    steps = sorted(set(heights.tolist()))
    every = (c for n in range(most) for c in itertools.combinations(steps[:-1], n))
    best = min(added(heights, weights, (*c, steps[-1])) for c in every)
    assert added(heights, weights, found) == pytest.approx(best, abs=1e-9)


def test_the_ladder_has_no_rung_that_saves_next_to_nothing():
    assert ladder([98, 99, 100], [1, 1, 1], 6) == (100,)
    assert ladder([50, 99, 100], [1, 1, 1], 6) == (50, 100)


def test_heights_past_the_ladder_grow_by_eighths():
    layout = Layout(128, 16, (20, 32))
    assert [layout.height(n) for n in (1, 20, 21, 32, 33, 36, 37, 45)] == [20, 20, 32, 32, 36, 36, 40, 48]
    assert Layout(128, 16, (3,)).height(5) == 5


def test_the_texts_of_a_unit_and_their_lengths_agree():
    def example(q, t, negatives):
        return {
            "query": np.arange(q),
            "target": np.arange(t),
            "negatives": np.concatenate([np.full(n, n) for n in negatives]) if negatives else np.zeros(0, int),
            "negatives_lengths": np.array(negatives, int),
        }

    examples = [example(3, 4, [5, 6, 7]), example(1, 2, []), example(2, 2, [8])]
    table = np.array([[3, 4, 5, 6, 7], [1, 2, 0, 0, 0], [2, 2, 8, 0, 0]])
    for most, expected in ((0, []), (1, [5, 8]), (2, [5, 6, 8]), (3, [5, 6, 7, 8])):
        found = texts(examples, most)
        assert [len(x) for x in found] == lengths(table, most).tolist() == [3, 1, 2, 4, 2, 2, *expected]
        assert all(set(x) == {len(x)} for x in found[6:])
