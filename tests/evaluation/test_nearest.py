"""The nearest documents by rows and by ids, against sorts in float64; bits are ordered again by the query if the view says so."""

import numpy as np
import pytest

from embed.evaluation.nearest import nearest_rows, products, rankings_of
from embed.evaluation.views import RESCORED, View
from embed.inference.search import top_k


@pytest.fixture(scope="module")
def vectors():
    random = np.random.default_rng(2)
    drawn = [random.normal(size=(count, 12)).astype(np.float32) for count in (6, 70)]
    return [x / np.linalg.norm(x, axis=1, keepdims=True) for x in drawn]


def by_sorts(queries, corpus, precision):
    """Returns the rows of each query, best first, equal scores by rising row."""
    bits = [np.where(x > 0, 1, -1) for x in (queries, corpus)]
    result = []
    for query, query_bits in zip(queries.astype(np.float64), bits[0]):
        order = np.argsort(-(corpus.astype(np.float64) @ query), kind="stable")
        if precision != "float32":
            order = np.argsort(-(bits[1] @ query_bits), kind="stable")
        if precision == "binary-rescored":
            best = np.sort(order[:RESCORED])
            order[:RESCORED] = best[np.argsort(-(bits[1][best] @ query), kind="stable")]
        result.append(order)
    return np.array(result)


@pytest.mark.parametrize("precision", ["float32", "binary", "binary-rescored"])
def test_the_nearest_rows_are_those_of_sorts(vectors, precision):
    rows = nearest_rows(*vectors, View(12, precision), top_k, 70)
    np.testing.assert_array_equal(rows, by_sorts(*vectors, precision))


def test_rows_and_ids_agree_where_no_scores_are_equal(vectors):
    names = [f"d{i:02}" for i in range(70)]
    rankings = rankings_of([*"abcdef"], names, *vectors, View(12), top_k, 10)
    rows = nearest_rows(*vectors, View(12), top_k, 10)
    assert [list(ranking) for ranking in rankings.values()] == [[names[i] for i in row] for row in rows]


def test_equal_rows_have_equal_products(vectors):
    queries, corpus = vectors
    repeated = np.concatenate([corpus, corpus[::-1]])
    found = products(repeated, queries[0])
    np.testing.assert_array_equal(found[:70], found[70:][::-1])
    np.testing.assert_allclose(found[:70], corpus.astype(np.float64) @ queries[0].astype(np.float64), atol=1e-14)
