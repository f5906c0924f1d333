"""Plans of rows: every text in one row, whole; few shapes; hardly any padding."""

import numpy as np
import pytest

from embed.inference.plan import MAX_SEGMENTS, padded_tokens, plan, shapes


def log_normal(median: float, sigma: float, count: int, most: int = 2048, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed).lognormal(np.log(median), sigma, count)
    return np.clip(np.rint(draw), 1, most).astype(int)


def real_share(lengths, batches) -> float:
    return np.sum(lengths) / padded_tokens(batches)


@pytest.mark.parametrize("row_multiple", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 7, 9, 100, 1000])
def test_every_text_is_in_one_row_that_holds_it(count, row_multiple):
    lengths = log_normal(40, 1.0, count, seed=count)
    batches = plan(lengths, 1024 * row_multiple, row_multiple)
    assert sorted(i for b in batches for i in b.texts) == list(range(count))
    for b in batches:
        assert 1 <= len(b.rows) <= b.height and b.height % row_multiple == 0
        for row in b.rows:
            assert 1 <= len(row) <= MAX_SEGMENTS
            assert sum(lengths[i] for i in row) <= b.length


def test_the_arrays_of_a_batch_hold_the_tokens_of_its_texts():
    lengths = log_normal(30, 1.0, 200, most=400)
    random = np.random.default_rng(1)
    tokens = [random.integers(1, 99, n).astype(np.int32) for n in lengths]
    found = {}
    for b in plan(lengths, 512):
        ids, segment_ids = b.arrays(tokens, pad_id=7)
        assert ids.shape == segment_ids.shape == (b.height, b.length)
        assert np.all(ids[segment_ids == 0] == 7)
        for text, place in zip(b.texts, b.segment_index):
            r, s = divmod(int(place), MAX_SEGMENTS)
            found[int(text)] = ids[r][segment_ids[r] == s + 1]
            assert np.all(np.diff(np.flatnonzero(segment_ids[r] == s + 1)) == 1)  # one text's tokens stand together
    assert len(found) == 200
    assert all(np.array_equal(found[i], tokens[i]) for i in range(200))


def test_no_batch_is_larger_than_asked_unless_one_row_is():
    for row_multiple in (1, 8):
        for b in plan(log_normal(60, 1.2, 2000), 2048, row_multiple):
            assert b.length * b.height <= 2048 or b.height == row_multiple


def test_a_batch_of_long_rows_is_smaller_where_attention_is_limited():
    for b in plan(log_normal(60, 1.2, 2000), 2048, max_attention=2048 * 128):
        assert b.height * b.length**2 <= 2048 * 128 or b.height == 1


def test_a_plan_of_nothing_is_empty():
    assert plan(np.zeros(0, int), 1024) == []


def test_texts_longer_than_any_row_get_a_row_of_their_own_length():
    (batch,) = plan(np.array([20_001]), 8192)
    assert batch.rows == ((0,),) and batch.height == 1
    assert 20_001 <= batch.length <= 1.5 * 20_001


def test_one_short_text_runs_one_short_row():
    (batch,) = plan(np.array([20]), 8192, row_multiple=1)
    assert (batch.height, batch.length) == (1, 64)


@pytest.mark.slow
@pytest.mark.parametrize("attention", [330.0, 1500.0])  # of all-MiniLM-L6-v2 on a CPU and on other devices
@pytest.mark.parametrize("tokens_per_batch", [512, 1024, 8192])
@pytest.mark.parametrize("median, sigma, most", [(23, 1.0, 256), (60, 0.8, 256), (150, 0.6, 512), (400, 1.0, 2048)])
def test_mixed_lengths_take_few_shapes_and_a_twentieth_of_padding(median, sigma, most, tokens_per_batch, attention):
    lengths = log_normal(median, sigma, 4000, most)
    batches = plan(lengths, tokens_per_batch, attention=attention)
    assert len(shapes(batches)) <= 12
    assert real_share(lengths, batches) >= 0.95


@pytest.mark.parametrize(
    "lengths, least",
    [(np.full(3000, 100), 0.9), (np.random.default_rng(0).integers(129, 257, 3000), 0.85)],
    ids=["all the same", "all longer than half a row"],
)
def test_awkward_lengths_still_fill_rows(lengths, least):
    assert real_share(lengths, plan(lengths, 1024)) >= least


def test_shapes_do_not_multiply_with_the_texts():
    few, many = (shapes(plan(log_normal(60, 0.8, n), 8192)) for n in (4000, 20_000))
    assert len(many | few) <= len(few) + 4


def test_short_texts_are_not_put_into_long_rows():
    """Attention over other texts is wasted: eight texts of 16 tokens to a row of 128 is the most there should be."""
    batches = plan(np.full(2000, 16), 4096)
    assert max(b.length for b in batches) <= 128


def test_one_text_a_row_for_models_that_know_no_others():
    lengths = log_normal(40, 1.0, 300, most=400)
    batches = plan(lengths, 1024, max_segments=1)
    assert sorted(i for b in batches for i in b.texts) == list(range(300))
    assert all(len(row) == 1 and lengths[row[0]] <= b.length for b in batches for row in b.rows)
    assert all(np.array_equal(b.segment_index, np.arange(len(b.rows))) for b in batches)
