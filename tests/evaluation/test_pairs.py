"""Scores of paired texts against scipy, plain loops over every threshold, and values computed by hand."""

import math
import random

import numpy as np
import pytest
from scipy import stats

from embed.evaluation import pairs


def unit(seed: int, count: int = 50, dim: int = 6) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def ranks(values) -> np.ndarray:
    """Returns ranks from 1, ties sharing their mean."""
    values = np.asarray(values, float)
    return np.array([np.sum(values < v) + (np.sum(values == v) + 1) / 2 for v in values])


def plain_cosine(a, b) -> float:
    dot = sum(float(x) * float(y) for x, y in zip(a, b))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


# cosines and correlations


def test_cosines_do_not_depend_on_lengths():
    first, second = unit(0) * 3, unit(1) * np.linspace(0.1, 9, 50)[:, None]
    found = pairs.cosines(first, second)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [plain_cosine(a, b) for a, b in zip(first, second)], atol=1e-12)


def test_the_cosine_of_a_zero_vector_is_zero():
    assert list(pairs.cosines(np.zeros((2, 3)), unit(0, 2, 3))) == [0.0, 0.0]


@pytest.mark.parametrize("seed", range(5))
def test_sts_equals_scipy_and_the_definition(seed):
    first, second = unit(seed), unit(seed + 100)
    gold = np.round(np.random.default_rng(seed).uniform(0, 5, 50) * 2) / 2  # many ties
    alike = {
        "cosine": [plain_cosine(a, b) for a, b in zip(first, second)],
        "manhattan": [-sum(abs(float(x) - float(y)) for x, y in zip(a, b)) for a, b in zip(first, second)],
        "euclidean": [-math.dist(a.tolist(), b.tolist()) for a, b in zip(first, second)],
    }
    found = pairs.sts_scores(pairs.similarities(first, second), list(gold))
    assert len(found) == 6
    for name, predicted in alike.items():
        assert found[f"{name}_spearman"] == pytest.approx(stats.spearmanr(predicted, gold).statistic, abs=1e-9)
        assert found[f"{name}_spearman"] == pytest.approx(np.corrcoef(ranks(predicted), ranks(gold))[0, 1], abs=1e-9)
        # The similarities are float32, as MTEB's are.
        assert found[f"{name}_pearson"] == pytest.approx(stats.pearsonr(predicted, gold).statistic, abs=1e-6)
        assert found[f"{name}_pearson"] == pytest.approx(np.corrcoef(predicted, gold)[0, 1], abs=1e-6)


def test_a_perfect_order_scores_one():
    angles = np.linspace(0, np.pi / 2, 20)
    second = np.stack([np.cos(angles), np.sin(angles)], 1)
    first = np.tile([1.0, 0.0], (20, 1))
    for sign, gold in ((1, -(angles**3)), (-1, angles)):
        found = pairs.sts_scores(pairs.similarities(first, second), gold)
        for name in ("cosine", "manhattan", "euclidean"):
            assert found[f"{name}_spearman"] == pytest.approx(sign)


def test_a_constant_side_has_no_correlation_and_no_warning():
    same = np.tile(unit(3, 1, 64), (5, 1))
    for scores in (
        pairs.sts_scores(pairs.similarities(same, same), [1, 2, 3, 4, 5]),
        pairs.sts_scores(pairs.similarities(unit(0, 5), unit(1, 5)), [2.0] * 5),
    ):
        assert len(scores) == 6 and all(math.isnan(v) for v in scores.values())
    assert all(math.isnan(v) for v in pairs.correlations(np.array([0.3]), [1.0]))
    assert all(math.isnan(v) for v in pairs.correlations(np.array([]), []))


# thresholds


def slow_thresholds(similarity, labels):
    """Returns (best accuracy, best F1, [(precision, recall) at every threshold with that F1], average precision)."""
    distinct = sorted(set(similarity), reverse=True)
    accuracy = f1 = 0.0
    at_best = []
    for high, low in zip(distinct, distinct[1:]):
        middle = (high + low) / 2
        said = [s > middle for s in similarity]
        hits = sum(1 for s, y in zip(said, labels) if s and y)
        accuracy = max(accuracy, sum(1 for s, y in zip(said, labels) if s == bool(y)) / len(labels))
        precision, recall = hits / sum(said), hits / max(sum(labels), 1)
        own = 2 * precision * recall / (precision + recall) if hits else 0.0
        if own > f1 + 1e-12:
            f1, at_best = own, []
        if own and abs(own - f1) <= 1e-12:
            at_best.append((precision, recall))
    ap = before = 0.0
    for value in distinct:
        hits = sum(1 for s, y in zip(similarity, labels) if s >= value and y)
        precision, recall = hits / sum(1 for s in similarity if s >= value), hits / sum(labels)
        ap += (recall - before) * precision
        before = recall
    return accuracy, f1, at_best, ap


@pytest.mark.parametrize("different", [2, 3, 8, 1000])
@pytest.mark.parametrize("seed", range(10))
def test_the_best_threshold_equals_a_loop_over_all_of_them(seed, different):
    draw = random.Random(seed * 10 + different)
    count = draw.randint(2, 60)
    labels = [1, 0] + [draw.randint(0, 1) for _ in range(count - 2)]
    similarity = [draw.randrange(different) / different + (0.2 * y if seed % 2 else 0) for y in labels]
    accuracy, f1, at_best, ap = slow_thresholds(similarity, labels)
    found = pairs.threshold_scores(np.array(similarity), np.array(labels))
    assert set(found) == {"accuracy", "f1", "precision", "recall", "ap"}
    assert found["accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert found["f1"] == pytest.approx(f1, abs=1e-12)
    assert found["ap"] == pytest.approx(ap, abs=1e-12)
    if f1:
        assert any((found["precision"], found["recall"]) == pytest.approx(both, abs=1e-12) for both in at_best)
    else:
        assert found["precision"] == found["recall"] == 0.0


def test_equal_similarities_are_not_told_apart_by_their_order():
    for labels in ([1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1]):
        found = pairs.threshold_scores(np.full(7, 0.3), np.array(labels))
        assert found["ap"] == pytest.approx(3 / 7)
        assert found["accuracy"] == found["f1"] == found["precision"] == found["recall"] == 0.0


def test_the_order_of_the_pairs_does_not_matter():
    draw = np.random.default_rng(0)
    similarity, labels = draw.integers(0, 4, 80) / 4, draw.integers(0, 2, 80)
    wanted = pairs.threshold_scores(similarity, labels)
    for _ in range(5):
        order = draw.permutation(80)
        assert pairs.threshold_scores(similarity[order], labels[order]) == pytest.approx(wanted)


def test_threshold_hand_values():
    # Above 0.5: two of three right; above 0.35: all three positives, one wrong.
    found = pairs.threshold_scores(np.array([0.9, 0.8, 0.6, 0.4, 0.3]), np.array([1, 1, 0, 1, 0]))
    assert found == pytest.approx(
        {"accuracy": 4 / 5, "f1": 6 / 7, "precision": 3 / 4, "recall": 1.0, "ap": (1 + 1 + 3 / 4) / 3}
    )


def test_similarities_are_those_of_the_definitions():
    first, second = unit(0, 30) * 2, unit(1, 30)
    found = pairs.similarities(first, second)
    assert list(found) == ["cosine", "manhattan", "euclidean", "dot"]
    a, b = first.astype(np.float64), second.astype(np.float64)
    np.testing.assert_allclose(found["cosine"], [plain_cosine(x, y) for x, y in zip(first, second)], atol=1e-6)
    np.testing.assert_allclose(found["manhattan"], -np.abs(a - b).sum(1), atol=1e-5)
    np.testing.assert_allclose(found["euclidean"], -np.sqrt(((a - b) ** 2).sum(1)), atol=1e-5)
    np.testing.assert_allclose(found["dot"], (a * b).sum(1), atol=1e-5)


def test_the_best_of_all_similarities_is_reported():
    first, second = unit(0) * np.linspace(0.1, 3, 50)[:, None], unit(1)
    labels = np.random.default_rng(0).integers(0, 2, 50)
    found = pairs.pair_classification_scores(pairs.similarities(first, second), list(labels))
    names = ("cosine", "manhattan", "euclidean", "dot")
    assert len(found) == 5 * 5
    for name, similarity in pairs.similarities(first, second).items():
        accuracy, f1, _, ap = slow_thresholds(similarity.tolist(), labels.tolist())
        assert [found[f"{name}_{m}"] for m in ("accuracy", "f1", "ap")] == pytest.approx([accuracy, f1, ap])
    for measure in ("accuracy", "f1", "precision", "recall", "ap"):
        assert found[f"max_{measure}"] == max(found[f"{name}_{measure}"] for name in names)
    assert len({found[f"{name}_ap"] for name in names}) > 2  # the vectors differ in length, so the similarities do


def test_a_constant_model_finds_no_pairs():
    same = np.tile(unit(2, 1, 256), (21, 1))
    found = pairs.pair_classification_scores(pairs.similarities(same, same), [1] * 7 + [0] * 14)
    for name in ("cosine", "manhattan", "euclidean", "dot", "max"):
        assert found[f"{name}_ap"] == pytest.approx(1 / 3)
        assert found[f"{name}_accuracy"] == found[f"{name}_f1"] == 0.0


# summaries


def test_each_summary_is_compared_with_the_nearest_human_one():
    human = [unit(i, 2 + i) for i in range(4)]
    machine = [unit(10 + i, 5) for i in range(4)]
    gold = [list(np.random.default_rng(i).permutation(5).astype(float)) for i in range(4)]
    found = pairs.summary_scores(human, machine, gold)
    for i in range(4):
        best = [max(plain_cosine(m, h) for h in human[i]) for m in machine[i]]
        assert found["cosine_spearman"][i] == pytest.approx(stats.spearmanr(best, gold[i]).statistic)
        assert found["cosine_pearson"][i] == pytest.approx(stats.pearsonr(best, gold[i]).statistic)


def test_texts_with_equal_grades_or_equal_cosines_have_no_value():
    human = [unit(0, 2), unit(1, 2), unit(2, 2)]
    machine = [unit(3, 4), unit(4, 4), np.tile(unit(5, 1), (4, 1))]
    found = pairs.summary_scores(human, machine, [[3, 3, 3, 3], [1, 2, 3, 4], [1, 2, 3, 4]])
    best = [max(plain_cosine(m, h) for h in human[1]) for m in machine[1]]
    wanted = [math.nan, stats.spearmanr(best, [1, 2, 3, 4]).statistic, math.nan]
    assert list(found["cosine_spearman"]) == pytest.approx(wanted, nan_ok=True)
    assert list(np.isnan(found["cosine_pearson"])) == [True, False, True]


# bitext


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_the_nearest_target_has_the_largest_cosine(block):
    sources = unit(0, 40) * np.linspace(0.5, 2, 40)[:, None]
    targets = unit(1, 33) * np.linspace(3, 0.1, 33)[:, None]  # a dot product alone would favour the long ones
    wanted = [max(range(33), key=lambda j, s=s: plain_cosine(s, targets[j])) for s in sources]
    assert list(pairs.nearest(sources, targets, block)) == wanted


@pytest.mark.parametrize("dim", [4, 64, 256, 768])
@pytest.mark.parametrize("count", [3, 17, 33, 50])
def test_of_equally_near_targets_the_first_is_taken(dim, count):
    same = np.tile(unit(dim, 1, dim), (count, 1))
    assert list(pairs.nearest(same, same)) == [0] * count


def test_mining_hand_values():
    # Row 0 has precision 1/2 and recall 1, row 1 is never found, row 2 is right.
    found = pairs.mining_scores(np.array([0, 0, 2]), np.array([0, 1, 2]))
    assert found == pytest.approx(
        {"f1": (2 / 3 + 0 + 1) / 3, "precision": (1 / 2 + 0 + 1) / 3, "recall": 2 / 3, "accuracy": 2 / 3}
    )


def test_mining_all_or_nothing():
    gold = np.arange(5)
    assert set(pairs.mining_scores(gold, gold).values()) == {1.0}
    assert set(pairs.mining_scores((gold + 1) % 5, gold).values()) == {0.0}
