"""Scores of paired texts: semantic similarity, summaries, pair classification and bitext mining, as MTEB computes them."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

_NAN = float("nan")


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the cosine of each pair of rows, in float64."""
    first, second = (np.asarray(x, np.float64) for x in (first, second))
    norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return np.sum(first * second, -1) / np.maximum(norms, 1e-12)


def correlations(predicted: np.ndarray, gold: Sequence[float]) -> tuple[float, float]:
    """Returns (Spearman, Pearson); not a number where one side is constant, for it has no order."""
    gold = np.asarray(gold, np.float64)
    if len(gold) < 2 or np.ptp(predicted) == 0 or np.ptp(gold) == 0:
        return _NAN, _NAN
    return float(stats.spearmanr(predicted, gold).statistic), float(stats.pearsonr(predicted, gold).statistic)


def sts_scores(similarities: Mapping[str, np.ndarray], gold: Sequence[float]) -> dict[str, float]:
    """Returns the correlations of cosine, Manhattan and Euclidean `similarities` with the gold scores."""
    scores = {}
    for name in ("cosine", "manhattan", "euclidean"):
        scores[f"{name}_spearman"], scores[f"{name}_pearson"] = correlations(similarities[name], gold)
    return scores


def summary_scores(
    human: Sequence[np.ndarray], machine: Sequence[np.ndarray], gold: Sequence[Sequence[float]]
) -> dict[str, np.ndarray]:
    """Returns the correlation, text by text, of each machine summary's best cosine with a human one and its grade.

    Texts whose grades or cosines are all equal have no value (nan); MTEB leaves them out of the mean.
    """
    scores = {"cosine_spearman": [], "cosine_pearson": []}
    for people, machines, grades in zip(human, machine, gold, strict=True):
        best = np.array([cosines(np.broadcast_to(m, people.shape), people).max() for m in machines])
        has_order = len(set(grades)) > 1 and len(set(best.tolist())) > 1
        for name, value in zip(scores, correlations(best, grades) if has_order else (_NAN, _NAN)):
            scores[name].append(value)
    return {name: np.array(values, np.float64) for name, values in scores.items()}


SIMILARITIES = ("cosine", "manhattan", "euclidean", "dot")


def similarities(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the similarities of paired rows, larger for more alike, in the float32 of MTEB's: equal pairs tie in both."""
    from sklearn.metrics import pairwise

    first, second = (np.asarray(x, np.float32) for x in (first, second))
    return {
        "cosine": 1 - pairwise.paired_cosine_distances(first, second),
        "manhattan": -pairwise.paired_manhattan_distances(first, second),
        "euclidean": -pairwise.paired_euclidean_distances(first, second),
        "dot": np.array([np.dot(a, b) for a, b in zip(first, second)], np.float32),
    }


def bit_similarities(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the same of unit vectors of bits, from the number of bits that differ: pairs as far apart tie exactly."""
    size = first.shape[1]
    differ = np.count_nonzero((first > 0) != (second > 0), axis=1)
    cosine = 1 - 2 * differ / size
    return {
        "cosine": cosine,
        "manhattan": -2 * differ / np.sqrt(size),
        "euclidean": -2 * np.sqrt(differ / size),
        "dot": cosine,
    }


def threshold_scores(similarity: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns average precision, and accuracy and F1 (with its precision and recall) at the best threshold.

    A threshold lies between two different similarities: equal ones are not told apart by their order.
    """
    from sklearn.metrics import average_precision_score

    labels = np.asarray(labels, np.int64)
    order = np.argsort(-similarity, kind="stable")
    ordered, hits = similarity[order], np.cumsum(labels[order] == 1)
    splits = np.flatnonzero(ordered[:-1] != ordered[1:])
    above, correct, positives = splits + 1, hits[splits], int(labels.sum())
    negatives_below = (len(labels) - positives) - (above - correct)
    scores = {"accuracy": 0.0, "f1": 0.0, "precision": 0.0, "recall": 0.0}
    if len(splits):
        scores["accuracy"] = float(((correct + negatives_below) / len(labels)).max())
        precision, recall = correct / above, correct / max(positives, 1)
        f1 = np.where(correct > 0, 2 * precision * recall / np.maximum(precision + recall, 1e-300), 0.0)
        best = int(np.argmax(f1))
        if f1[best] > 0:
            scores |= {"f1": float(f1[best]), "precision": float(precision[best]), "recall": float(recall[best])}
    return {**scores, "ap": float(average_precision_score(labels, similarity))}


def pair_classification_scores(similarities: Mapping[str, np.ndarray], labels: Sequence[int]) -> dict[str, float]:
    """Returns `threshold_scores` of all `similarities`, and the best of each as max_*."""
    labels = np.asarray(labels, np.int64)
    scores, best = {}, {}
    for name, similarity in similarities.items():
        for measure, value in threshold_scores(similarity, labels).items():
            scores[f"{name}_{measure}"] = value
            best[f"max_{measure}"] = max(value, best.get(f"max_{measure}", -1.0))
    return {**scores, **best}


def nearest(sources: np.ndarray, targets: np.ndarray, block: int = 1024) -> np.ndarray:
    """Returns the row of `targets` with the largest cosine for each row of `sources`; of equal ones the first."""
    sources, targets = (
        (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)).astype(np.float32) for x in (sources, targets)
    )
    # Equal rows need not give equal products, wherever BLAS puts them: each row is looked up where it stands first.
    _, first, same = np.unique(targets, axis=0, return_index=True, return_inverse=True)
    indices = [(sources[i : i + block] @ targets.T).argmax(1) for i in range(0, len(sources), block)]
    return first[same.reshape(-1)[np.concatenate(indices)]]


def mining_scores(predicted: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """Returns F1, precision and recall weighted by the gold rows, and accuracy, of mined translations."""
    from sklearn import metrics

    options = {"average": "weighted", "zero_division": 0}
    return {
        "f1": float(metrics.f1_score(gold, predicted, **options)),
        "precision": float(metrics.precision_score(gold, predicted, **options)),
        "recall": float(metrics.recall_score(gold, predicted, **options)),
        "accuracy": float(np.mean(np.asarray(gold) == np.asarray(predicted))),
    }
