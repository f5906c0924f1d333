"""Scores of queries that belong together by their ids, as three tasks of MTEB define them."""

from collections.abc import Mapping, Sequence

import numpy as np

from embed.errors import DataError
from embed.evaluation import ranking

Rankings = Mapping[str, Mapping[str, float]]  # query -> {document: score}, best first
Judgements = Mapping[str, Mapping[str, float]]
SUBQUERIES = "max_over_subqueries_"


def names(k_values: Sequence[int]) -> list[str]:
    """Returns the scores that `values` can compute with rankings cut at `k_values`."""
    grouped = [f"{SUBQUERIES}{name}" for name in ranking.score_names(k_values)]
    grouped += ["paired_accuracy"] if 1 in k_values else []
    return grouped + (["robustness_at_10"] if 10 in k_values else [])


def values(name: str, rankings: Rankings, judgements: Judgements, k_values: Sequence[int]) -> np.ndarray:
    """Returns the value of each group of queries for the score `name`, one of `names`."""
    judged = [q for q in rankings if judgements.get(q)]
    if name == "paired_accuracy":
        return _pairs(dict(zip(judged, ranking.scores(rankings, judgements, (1,))["recall_at_1"])))
    if name == "robustness_at_10":
        gains = dict(zip(judged, ranking.scores(rankings, judgements, (10,))["ndcg_at_10"]))
        groups = _groups(judged, lambda q: q.split("_")[0])
        return np.array([min(gains[q] for q in group) for group in groups.values()], np.float64)
    groups = _groups(judged, lambda q: "_".join(q.split("_")[:-1]))
    merged = {name: _merged([rankings[q] for q in group]) for name, group in groups.items()}
    # The queries of a group have the same judgements.
    shared = {name: judgements[group[-1]] for name, group in groups.items()}
    return ranking.scores(merged, shared, k_values)[name.removeprefix(SUBQUERIES)]


def _groups(queries: Sequence[str], key) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for query in queries:
        groups.setdefault(key(query), []).append(query)
    return groups


def _pairs(right: Mapping[str, float]) -> np.ndarray:
    """Returns for each pair of queries X_q1 and X_q2 whether both have all their relevant documents in the first place."""
    pairs = dict.fromkeys(q.split("_")[0] for q in right)
    for pair in pairs:
        for query in (f"{pair}_q1", f"{pair}_q2"):
            if query not in right:
                raise DataError(
                    f"paired_accuracy needs the queries {pair}_q1 and {pair}_q2, and {query!r} is not judged"
                )
    return np.array([float(right[f"{p}_q1"] == right[f"{p}_q2"] == 1) for p in pairs], np.float64)


def _merged(rankings: Sequence[Mapping[str, float]]) -> list[str]:
    """Returns the documents of all rankings by the highest of their scores."""
    best: dict[str, float] = {}
    for scores in rankings:
        for document, score in scores.items():
            best[document] = max(score, best.get(document, score))
    return ranking.ranked(list(best), list(best.values()))
