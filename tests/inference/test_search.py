"""Exact search against numpy, at sizes that do and do not fill blocks and query batches."""

import numpy as np
import pytest

from embed.errors import DataError, UsageError
from embed.inference import search


def unit(draw, count: int, dim: int) -> np.ndarray:
    x = draw.standard_normal((count, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def check(queries, corpus, k) -> None:
    """Compares with a full sort in float64. Places may differ only where two scores are equal but for rounding."""
    scores, places = search.top_k(queries, corpus, k)
    k = min(k, len(corpus))
    assert scores.shape == places.shape == (len(queries), k)
    exact = queries.astype(np.float64) @ corpus.astype(np.float64).T
    best = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    np.testing.assert_allclose(scores, np.take_along_axis(exact, best, 1), atol=1e-5)
    assert places.min(initial=0) >= 0 and places.max(initial=0) < max(len(corpus), 1)
    assert all(len(set(row)) == k for row in places.tolist())
    np.testing.assert_allclose(np.take_along_axis(exact, places.astype(int), 1), scores, atol=1e-5)
    assert np.all(np.diff(scores, axis=1) <= 0)


@pytest.mark.parametrize("count, k", [(1, 10), (50, 1), (51, 100), (99, 10), (260, 100), (777, 10), (777, 100)])
def test_top_k_is_exact(count, k):
    draw = np.random.default_rng(count)
    check(unit(draw, 7, 5), unit(draw, count, 5), k)


@pytest.mark.slow
@pytest.mark.parametrize(
    "block, rows, count", [(32, 3, 101), (64, 4, 1), (64, 4, 100), (128, 7, 450), (256, 1, 101), (300, 10, 450)]
)
def test_top_k_is_exact_over_many_blocks(monkeypatch, block, rows, count):
    monkeypatch.setattr(search, "_MOST", block)
    monkeypatch.setattr(search, "_QUERIES", rows)
    draw = np.random.default_rng(count + block)
    check(unit(draw, 10, 4), unit(draw, count, 4), 60)


def test_the_best_documents_may_all_lie_in_one_group(monkeypatch):
    monkeypatch.setattr(search, "_MOST", 64)
    size = search._group_size(64, 4)
    groups = 64 // size
    draw = np.random.default_rng(0)
    corpus = unit(draw, 300, 4) * 0.1
    corpus[64 + 3 : 128 : groups] = np.arange(1, size + 1)[:, None] * np.ones(4)
    assert size == 4
    check(np.abs(unit(draw, 5, 4)), corpus, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("block, row", [(32, 0), (32, 149), (32_768, 40)])
def test_a_row_that_is_not_finite_is_refused_with_its_number(monkeypatch, value, block, row):
    """NaN has no rank: it must neither come first nor hide others."""
    monkeypatch.setattr(search, "_MOST", block)
    draw = np.random.default_rng(0)
    queries, corpus = unit(draw, 150, 6), unit(draw, 150, 6)
    damaged = corpus.copy()
    damaged[row, 3] = value
    with pytest.raises(DataError, match=rf"row {row} of the corpus is not finite"):
        search.top_k(queries[:5], damaged, 10)
    with pytest.raises(DataError, match=rf"row {row} of the queries is not finite"):
        search.top_k(damaged, corpus, 10)
    damaged[row, 3] = 1e38  # large and finite: the sum of a block may overflow where no score does
    check(queries[:5] * np.float32(1e-3), damaged * np.float32(1e-3) if row else damaged * np.float32(1e-30), 10)


def test_scores_that_overflow_are_refused(monkeypatch):
    huge = np.full((3, 4), 1e38, np.float32)
    mixed = huge * np.array([1, -1, 1, -1], np.float32)
    for queries, corpus in ((huge, huge), (huge, -huge), (mixed, np.concatenate([mixed, huge]))):
        with pytest.raises(DataError, match="query 0 exceed what float32 holds"):
            search.top_k(queries, corpus, 2)
    with pytest.raises(DataError, match="row 1 of the corpus is not finite"):
        search.top_k(np.ones((1, 2)), np.array([[1.0, 2.0], [1e300, 0.0]]), 1)


@pytest.mark.parametrize(
    "k, message", [(True, "bool"), (2.0, "float"), ("3", "str"), (None, "NoneType"), (-1, "k = -1: at least 0")]
)
def test_what_is_no_number_of_results_is_refused(k, message):
    with pytest.raises(UsageError, match=message):
        search.top_k(np.ones((1, 2)), np.ones((3, 2)), k)


def test_lists_are_arrays_and_what_holds_no_numbers_is_refused():
    assert search.top_k([[1, 0]], [[0, 1], [1, 0]], np.int64(1))[1].tolist() == [[1]]
    for wrong, message in (
        (np.array([["a", "b"]]), "type <U1"),
        ([[1], [1, 2]], "different lengths"),
        (None, "type object"),
    ):
        with pytest.raises(DataError, match=f"the corpus are .*{message}"):
            search.top_k(np.ones((1, 2)), wrong, 1)
    with pytest.raises(DataError, match="the queries are of type complex128"):
        search.top_k(np.ones((1, 2), complex), np.ones((1, 2)), 1)


@pytest.mark.parametrize("few", [(), (1,), (2, 5)])
def test_top_k_is_exact_whatever_order_the_corpus_has(monkeypatch, few):
    """Blocks that hold little and blocks that hold much of the best take different ways to the same end."""
    monkeypatch.setattr(search, "_MOST", 128)
    monkeypatch.setattr(search, "_FEW", few)
    draw = np.random.default_rng(len(few))
    queries, corpus = unit(draw, 5, 6), unit(draw, 1500, 6)
    search._block_top_k.clear_cache()  # the block's program depends on what is set above
    best_last = np.argsort(corpus @ queries[0])
    for order in (slice(None), best_last, best_last[::-1]):
        check(queries, corpus[order], 20)


def test_documents_of_negative_scores_come_before_padding(monkeypatch):
    monkeypatch.setattr(search, "_MOST", 32)
    queries = np.ones((2, 3), np.float32)
    corpus = -np.arange(1, 61, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    scores, places = search.top_k(queries, corpus, 60)
    assert places.tolist() == [list(range(60))] * 2
    np.testing.assert_allclose(scores[0], -3.0 * np.arange(1, 61))


def test_equal_documents_are_all_found():
    corpus = np.ones((120, 3), np.float32)
    _, places = search.top_k(np.ones((1, 3), np.float32), corpus, 120)
    assert sorted(places[0]) == list(range(120))


def test_other_dtypes_are_searched_as_float32():
    draw = np.random.default_rng(0)
    queries, corpus = unit(draw, 3, 4), unit(draw, 70, 4)
    wanted = search.top_k(queries, corpus, 5)
    found = search.top_k(queries.astype(np.float64), np.asfortranarray(corpus.astype(np.float64)), 5)
    np.testing.assert_array_equal(found[1], wanted[1])
    assert found[0].dtype == np.float32


@pytest.mark.parametrize("queries, corpus, k", [((0, 4), (9, 4), 3), ((2, 4), (0, 4), 3), ((2, 4), (9, 4), 0)])
def test_nothing_to_search_gives_empty_results(queries, corpus, k):
    scores, places = search.top_k(np.zeros(queries, np.float32), np.zeros(corpus, np.float32), k)
    assert scores.shape == places.shape == (queries[0], min(k, corpus[0]))


@pytest.mark.parametrize("queries, corpus", [((2, 4), (9, 5)), ((4,), (9, 4)), ((2, 4), (9, 2, 4))])
def test_other_dimensions_are_refused(queries, corpus):
    with pytest.raises(DataError, match="same dimension") as caught:
        search.top_k(np.zeros(queries, np.float32), np.zeros(corpus, np.float32), 3)
    assert str(queries) in str(caught.value) and str(corpus) in str(caught.value)


def test_memory_of_a_search_does_not_hold_queries_times_corpus(monkeypatch):
    shapes = []
    run = search._block_top_k

    def watched(queries, block, *rest, **options):
        shapes.append((len(queries), len(block)))
        return run(queries, block, *rest, **options)

    monkeypatch.setattr(search, "_MOST", 64)
    monkeypatch.setattr(search, "_QUERIES", 4)
    monkeypatch.setattr(search, "_block_top_k", watched)
    draw = np.random.default_rng(0)
    check(unit(draw, 9, 4), unit(draw, 250, 4), 20)
    assert set(shapes) == {(4, 64)} and len(shapes) == 12


@pytest.mark.parametrize(
    "documents, dim", [(10**6, 768), (10**6, 64), (10**6, 4096), (1000, 768), (1, 5), (10**6, 10**8)]
)
def test_a_block_is_no_larger_than_memory_is_kept_for(documents, dim):
    size = search.block_size(documents, dim)
    assert size & (size - 1) == 0 and 1 <= size <= search._MOST
    assert size == 1 or size * dim * 4 <= search._BLOCK_BYTES
    assert size < 2 * documents


@pytest.mark.parametrize("k", [1, 10, 100, 1000, 10**6])
def test_little_is_sorted_of_a_block(k):
    block = 8192
    size = search._group_size(block, k)
    assert block % size == 0
    sorted_values = block // size + min(k, block // size) * size
    assert sorted_values <= min(2 * block, 4 * (block * k) ** 0.5)
