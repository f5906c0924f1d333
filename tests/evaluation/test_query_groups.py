"""Scores of queries that belong together by their ids, by hand."""

import numpy as np
import pytest

from embed.errors import DataError
from embed.evaluation import query_groups, ranking

RANKINGS = {
    "a_q1": {"x": 0.9, "y": 0.5},
    "a_q2": {"y": 0.8, "x": 0.1},
    "b_q1": {"y": 0.7, "x": 0.6},
    "b_q2": {"x": 0.5, "z": 0.4},
    "unjudged": {"x": 1.0},
}
JUDGED = {"a_q1": {"x": 1}, "a_q2": {"y": 1}, "b_q1": {"x": 1}, "b_q2": {"x": 1}, "c_q1": {}}


def test_a_pair_counts_when_both_queries_are_right():
    assert list(query_groups.values("paired_accuracy", RANKINGS, JUDGED, (1,))) == [1.0, 0.0]
    with pytest.raises(DataError, match="paired_accuracy needs the queries d_q1 and d_q2, and 'd_q2' is not judged"):
        query_groups.values("paired_accuracy", {"d_q1": {"x": 1.0}}, {"d_q1": {"x": 1}}, (1,))


def test_a_group_is_as_robust_as_its_worst_query():
    found = query_groups.values("robustness_at_10", RANKINGS, JUDGED, (10,))
    assert found == pytest.approx([1.0, 1 / np.log2(3)])


def test_queries_of_a_group_share_the_best_score_of_a_document():
    rankings = {"a_0": {"x": 0.9, "y": 0.2}, "a_1": {"z": 0.8, "y": 0.7, "x": 0.1}}
    judged = {"a_0": {"y": 1}, "a_1": {"y": 1}}
    name = f"{query_groups.SUBQUERIES}mrr_at_10"
    assert list(query_groups.values(name, rankings, judged, ranking.CUTS)) == [pytest.approx(1 / 3)]  # x, z, y


def test_names_are_those_that_the_cuts_allow():
    assert "robustness_at_10" not in query_groups.names((1, 5)) and "paired_accuracy" not in query_groups.names((10,))
    assert "max_over_subqueries_map_at_1000" in query_groups.names(ranking.CUTS)


# rules of rankings


def test_rules_shorten_a_ranking():
    found = {"q": 0.9, "a": 0.8, "b": 0.7, "c": 0.6}
    assert list(ranking.Rules((1, 3)).kept("q", found)) == ["q", "a", "b"]
    # The own document takes a place of the ranking before it is left out, as in MTEB.
    assert list(ranking.Rules((1, 3), ignore_identical_ids=True).kept("q", found)) == ["a", "b"]
    assert list(ranking.Rules((1, 3), ignore_identical_ids=True).kept("x", found)) == ["q", "a", "b"]
    assert list(ranking.Rules((1, 3), skip_first_result=True).kept("x", found)) == ["a", "b"]
    both = ranking.Rules((1, 3), ignore_identical_ids=True, skip_first_result=True)
    assert list(both.kept("q", found)) == ["b"]
