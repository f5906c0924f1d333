"""Metrics against slow loops written from their definitions, and against values computed by hand."""

import math
import random
import warnings

import numpy as np
import pytest
from scipy import stats

from embed.evaluation import metrics

# Slow references


def slow_ndcg(ranking, relevant, k) -> float:
    def dcg(gains):
        total = 0.0
        for place, gain in enumerate(gains):
            if place < k:
                total += gain / math.log2(place + 2)
        return total

    best = dcg(sorted([g for g in relevant.values() if g > 0], reverse=True))
    return dcg([relevant.get(i, 0) if relevant.get(i, 0) > 0 else 0 for i in ranking]) / best if best > 0 else 0.0


def slow_reciprocal_rank(ranking, relevant, k) -> float:
    for place in range(min(k, len(ranking))):
        if relevant.get(ranking[place], 0) > 0:
            return 1.0 / (place + 1)
    return 0.0


def slow_recall(ranking, relevant, k) -> float:
    wanted = [i for i in relevant if relevant[i] > 0]
    found = [i for i in wanted if i in ranking[:k]]
    return len(found) / len(wanted) if wanted else 0.0


def random_case(seed: int):
    """Returns a ranking of some documents and graded judgements, zeros and negative grades among them."""
    draw = random.Random(seed)
    documents = [f"d{i}" for i in range(draw.randint(1, 40))]
    judged = draw.sample(documents, draw.randint(0, len(documents)))
    relevant = {d: draw.choice([-1, 0, 1, 1, 2, 3, 0.5]) for d in judged}
    relevant |= {f"unranked{i}": draw.choice([0, 1, 2]) for i in range(draw.randint(0, 4))}
    return draw.sample(documents, draw.randint(0, len(documents))), relevant


@pytest.mark.parametrize("seed", range(100))
def test_ranking_metrics_equal_the_slow_ones(seed):
    ranking, relevant = random_case(seed)
    for k in (1, 3, 10, 100):
        assert metrics.ndcg(ranking, relevant, k) == pytest.approx(slow_ndcg(ranking, relevant, k), abs=1e-12)
        assert metrics.reciprocal_rank(ranking, relevant, k) == slow_reciprocal_rank(ranking, relevant, k)
        assert metrics.recall(ranking, relevant, k) == slow_recall(ranking, relevant, k)


def test_hand_values():
    relevant = {"a": 1, "b": 2, "c": 1}
    ranking = ["x", "b", "y", "a"]
    # DCG = 2 / log2(3) + 1 / log2(5); ideal = 2 + 1 / log2(3) + 1 / log2(4)
    assert metrics.ndcg(ranking, relevant, 10) == pytest.approx(1.6925363 / 3.1309298, abs=1e-6)
    assert metrics.ndcg(ranking, relevant, 2) == pytest.approx(1.2618595 / 2.6309298, abs=1e-6)
    assert metrics.ndcg(["b", "a", "c"], relevant, 10) == 1.0
    assert metrics.reciprocal_rank(ranking, relevant, 10) == 0.5
    assert metrics.reciprocal_rank(ranking, relevant, 1) == 0.0
    assert metrics.recall(ranking, relevant, 10) == pytest.approx(2 / 3)
    assert metrics.recall(ranking, relevant, 2) == pytest.approx(1 / 3)


def test_gain_is_linear_in_the_grade():
    assert metrics.ndcg(["low", "high"], {"low": 1, "high": 3}, 10) == pytest.approx(
        (1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3))
    )


def test_nothing_relevant_scores_zero():
    for relevant in ({}, {"a": 0}, {"a": -1}):
        assert metrics.ndcg(["a"], relevant, 10) == metrics.recall(["a"], relevant, 10) == 0.0
        assert metrics.reciprocal_rank(["a"], relevant, 10) == 0.0


# ranked


def test_ties_go_by_falling_id():
    assert metrics.ranked(["a", "c", "b", "d"], [0.5, 0.5, 0.5, 0.7]) == ["d", "c", "b", "a"]
    assert metrics.ranked(["9", "10"], [1, 1]) == ["9", "10"]  # ids are texts
    assert metrics.ranked([], []) == []


@pytest.mark.parametrize("seed", range(10))
def test_the_order_found_in_does_not_matter(seed):
    draw = random.Random(seed)
    pairs = [(f"d{i}", draw.choice([0.1, 0.2, 0.3])) for i in range(30)]
    wanted = [i for i, _ in sorted(sorted(pairs, reverse=True), key=lambda p: -p[1])]
    draw.shuffle(pairs)
    ids, scores = zip(*pairs)
    assert metrics.ranked(ids, np.array(scores, np.float32)) == wanted


# retrieval_scores


def test_scores_are_means_over_the_judged_queries():
    cases = {f"q{i}": random_case(i) for i in range(60)}
    rankings = {q: ranking for q, (ranking, _) in cases.items()}
    qrels = {q: relevant for q, (_, relevant) in cases.items() if q != "q7"}
    judged = [q for q in rankings if any(g > 0 for g in qrels.get(q, {}).values())]
    assert 0 < len(judged) < 60
    found = metrics.retrieval_scores(rankings, qrels)
    mean = lambda function, k: sum(function(rankings[q], qrels[q], k) for q in judged) / len(judged)  # noqa: E731
    assert found == pytest.approx(
        {
            "ndcg_at_10": mean(slow_ndcg, 10),
            "mrr_at_10": mean(slow_reciprocal_rank, 10),
            "recall_at_1": mean(slow_recall, 1),
            "recall_at_10": mean(slow_recall, 10),
            "recall_at_100": mean(slow_recall, 100),
        },
        abs=1e-12,
    )


def test_queries_without_a_relevant_document_do_not_count():
    rankings = {"q1": ["a"], "q2": ["a"], "q3": ["a"], "q4": ["a"]}
    found = metrics.retrieval_scores(rankings, {"q1": {"a": 1}, "q2": {"a": 0}, "q3": {}})
    assert found["ndcg_at_10"] == found["mrr_at_10"] == found["recall_at_1"] == 1.0


def test_no_judged_query_at_all_is_not_a_number():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics.retrieval_scores({"q1": ["a"]}, {"q1": {"a": 0}})
    assert all(math.isnan(v) for v in found.values())


# sts_scores


def unit(seed: int, count: int = 50, dim: int = 6) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def ranks(values) -> np.ndarray:
    """Returns ranks from 1, ties sharing their mean."""
    values = np.asarray(values, float)
    return np.array([np.sum(values < v) + (np.sum(values == v) + 1) / 2 for v in values])


@pytest.mark.parametrize("seed", range(5))
def test_sts_equals_scipy_and_the_definition(seed):
    first, second = unit(seed), unit(seed + 100)
    gold = np.round(np.random.default_rng(seed).uniform(0, 5, 50) * 2) / 2  # many ties
    cosine = [float(np.dot(a.astype(np.float64), b)) for a, b in zip(first, second)]
    found = metrics.sts_scores(first, second, list(gold))
    assert found["cosine_spearman"] == pytest.approx(stats.spearmanr(cosine, gold).statistic, abs=1e-9)
    assert found["cosine_pearson"] == pytest.approx(stats.pearsonr(cosine, gold).statistic, abs=1e-6)
    assert found["cosine_pearson"] == pytest.approx(np.corrcoef(cosine, gold)[0, 1], abs=1e-6)
    assert found["cosine_spearman"] == pytest.approx(np.corrcoef(ranks(cosine), ranks(gold))[0, 1], abs=1e-9)


def test_a_perfect_order_scores_one():
    angles = np.linspace(0, np.pi / 2, 20)
    second = np.stack([np.cos(angles), np.sin(angles)], 1)
    first = np.tile([1.0, 0.0], (20, 1))
    assert metrics.sts_scores(first, second, -(angles**3))["cosine_spearman"] == pytest.approx(1)
    assert metrics.sts_scores(first, second, angles)["cosine_spearman"] == pytest.approx(-1)


def test_constant_input_has_no_correlation():
    same = np.tile([1.0, 0.0], (5, 1))
    for scores in (
        metrics.sts_scores(same, same, [1, 2, 3, 4, 5]),
        metrics.sts_scores(unit(0, 5), unit(1, 5), [2.0] * 5),
    ):
        assert all(math.isnan(v) for v in scores.values())


def test_the_main_metric_of_each_type_is_computed():
    assert metrics.MAIN["retrieval"] in metrics.retrieval_scores({"q": ["a"]}, {"q": {"a": 1}})
    assert metrics.MAIN["sts"] in metrics.sts_scores(unit(0), unit(1), list(range(50)))
