"""Rows that hold several texts: every text once and whole, few shapes, and how texts are told apart."""

import itertools

import numpy as np
import pytest

from embed.data.packing import Layout, Waiting, bucket_sizes, fill, row_length, write_rows


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


def added(sizes, weights, buckets):
    return sum(w * (min(b for b in buckets if b >= size) - size) for size, w in zip(sizes, weights))


@pytest.mark.parametrize("most", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(8))
def test_the_buckets_are_the_best_of_all(seed, most):
    random = np.random.default_rng(seed)
    sizes, weights = random.integers(1, 40, 9), random.random(9)
    found = bucket_sizes(sizes, weights, most, enough=0.0)
    assert len(found) <= most and found == tuple(sorted(found)) and found[-1] == sizes.max()
    steps = sorted(set(sizes.tolist()))
    every = (c for n in range(most) for c in itertools.combinations(steps[:-1], n))
    best = min(added(sizes, weights, (*c, steps[-1])) for c in every)
    assert added(sizes, weights, found) == pytest.approx(best, abs=1e-9)


def test_no_bucket_saves_next_to_nothing():
    assert bucket_sizes([98, 99, 100], [1, 1, 1], 6) == (100,)
    assert bucket_sizes([50, 99, 100], [1, 1, 1], 6) == (50, 100)


def test_sizes_past_the_largest_bucket_grow_by_eighths():
    layout = Layout(128, 16, (20, 32))
    assert [layout.bucket_size(n) for n in (1, 20, 21, 32, 33, 36, 37, 45)] == [20, 20, 32, 32, 36, 36, 40, 48]
    assert Layout(128, 16, (3,)).bucket_size(5) == 5


def test_written_rows_hold_every_text_at_its_place():
    texts = [np.full(n, n, np.int32) for n in (3, 5, 2, 7, 1)]
    rows = fill([len(x) for x in texts], 8, 2)
    tokens, segment_ids, places = write_rows(texts, rows, (len(rows) + 1, 8), 2, 9)
    assert tokens.shape == segment_ids.shape == (len(rows) + 1, 8)
    assert (tokens[segment_ids == 0] == 9).all() and np.count_nonzero(segment_ids) == 18
    for text, place in zip(texts, places.tolist(), strict=True):
        row, slot = divmod(place, 2)
        np.testing.assert_array_equal(tokens[row][segment_ids[row] == slot + 1], text)
