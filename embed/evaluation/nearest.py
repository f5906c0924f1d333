"""The documents nearest to each query, as an index of a view gives them."""

from collections.abc import Sequence

import numpy as np

from embed.evaluation import ranking
from embed.evaluation.views import RESCORED, View
from embed.types import SearchFn


def rankings_of(
    query_ids: Sequence[str],
    corpus_ids: Sequence[str],
    queries: np.ndarray,
    corpus: np.ndarray,
    view: View,
    search: SearchFn,
    depth: int,
) -> dict[str, dict[str, float]]:
    """Returns each query's `depth` nearest documents and their scores, best first; equal scores by falling id, as trec_eval does.

    `queries` [Q, E] and `corpus` [N, E] are vectors before the view.
    """
    query_vectors, stored, scores, rows = _searched(queries, corpus, view, search, depth)
    rankings = {}
    for query, vector, values, row in zip(query_ids, query_vectors, scores, rows):
        order = ranking.order([corpus_ids[p] for p in row], values)
        best = [int(row[k]) for k in order[:RESCORED]] if view.rescores else []
        rankings[query] = ranking.scored([corpus_ids[p] for p in best], products(stored[best], vector))
        # What is not scored again follows, below every cosine.
        below = 2 * view.dim if view.rescores else 0.0
        rankings[query] |= {corpus_ids[row[k]]: float(values[k]) - below for k in order[len(best) :]}
    return rankings


def nearest_rows(queries: np.ndarray, corpus: np.ndarray, view: View, search: SearchFn, depth: int) -> np.ndarray:
    """Returns the rows [Q, depth] of the nearest documents, best first; equal scores by rising row.

    `queries` [Q, E] and `corpus` [N, E] are vectors before the view. Which of several documents with the score of the last one are
    there is left to `search`.
    """
    query_vectors, stored, scores, rows = _searched(queries, corpus, view, search, depth)
    rows = np.take_along_axis(rows, np.lexsort((rows, -scores)), 1)
    if view.rescores:
        for row, vector in zip(rows, query_vectors):
            best = np.sort(row[:RESCORED])
            row[:RESCORED] = best[np.argsort(-products(stored[best], vector), kind="stable")]
    return rows


def _searched(queries: np.ndarray, corpus: np.ndarray, view: View, search: SearchFn, depth: int):
    """Returns the queries and documents as the view has them, and the scores and rows [Q, depth] of its index."""
    query_vectors, stored = view.queries(queries), view.documents(corpus)
    # Bits are compared as +-1: their products are whole numbers, so that equal distances are equal scores.
    compared = (np.sign(view.documents(queries)), np.sign(stored)) if view.is_binary else (query_vectors, stored)
    scores, rows = search(*compared, depth)
    return query_vectors, stored, np.asarray(scores), np.array(rows)


def products(documents: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Returns the inner product of each row with the query, in float64: equal rows have equal products, wherever they stand."""
    return np.einsum("nd,d->n", documents.astype(np.float64), query.astype(np.float64))
