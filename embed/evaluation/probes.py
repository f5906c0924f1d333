"""Small models trained on frozen embeddings, as MTEB does: classification, several labels a text, clustering. scikit-learn.

Every draw follows MTEB's own generators from the same seed, so that the same embeddings give the same scores.
"""

import contextlib
import random
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

SEED = 42


def few_of_each_label(labels: Sequence[Any], per_label: int, order: list[int]) -> list[int]:
    """Returns the first `per_label` rows of every label in `order`, which is shuffled again in place before."""
    np.random.RandomState(SEED).shuffle(order)
    counts: dict[Any, int] = defaultdict(int)
    taken = []
    for i in order:
        if counts[labels[i]] < per_label:
            taken.append(i)
            counts[labels[i]] += 1
    return taken


def classification_draws(labels: Sequence[Any], per_label: int, experiments: int = 10) -> list[list[int]]:
    """Returns the training rows of each experiment; the order of one is shuffled on for the next."""
    order = list(range(len(labels)))
    return [few_of_each_label(labels, per_label, order) for _ in range(experiments)]


FOLDS = 5


def cross_validation_draws(labels: Sequence[Any], per_label: int) -> list[tuple[list[int], list[int]]]:
    """Returns (training rows, test rows) of each fold. The order that one fold's rows are shuffled into goes to the next."""
    from sklearn.model_selection import KFold

    folds, order = [], None
    for train, test in KFold(n_splits=FOLDS, shuffle=True, random_state=SEED).split(range(len(labels))):
        order = list(range(len(train))) if order is None else order
        taken = few_of_each_label([labels[i] for i in train], per_label, order)
        folds.append(([int(train[i]) for i in taken], [int(i) for i in test]))
    return folds


def label_numbers(*sides: Sequence[str]) -> list[np.ndarray]:
    """Returns the labels of all sides as numbers, in the order of the sorted labels."""
    number = {label: i for i, label in enumerate(sorted(set().union(*sides)))}
    return [np.array([number[label] for label in side], np.int64) for side in sides]


def classified(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Returns what a logistic regression with at most 100 iterations predicts for the rows of `test`."""
    from sklearn.linear_model import LogisticRegression

    if len(set(labels.tolist())) == 1:
        return np.full(len(test), labels[0])
    with quiet():
        return LogisticRegression(max_iter=100, random_state=SEED).fit(train, labels).predict(test)


def classification_experiments(
    train: np.ndarray, train_labels: Sequence[str], test: np.ndarray, test_labels: Sequence[str], draws
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (predictions [test rows, experiments], test labels [test rows]), labels as numbers in their order.

    `train` holds the rows of all draws.
    """
    y_train, y_test = label_numbers(train_labels, test_labels)
    return np.stack([classified(train[rows], y_train[rows], test) for rows in draws], axis=1), y_test


def classification_scores(predicted: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """Returns the means over the experiments of accuracy, F1, precision and recall, and of average precision for 0 and 1."""
    scores = [class_scores(gold, one) for one in predicted.T]
    return {name: float(np.mean([s[name] for s in scores])) for name in scores[0]}


def cross_validation(
    vectors: np.ndarray, labels: Sequence[str], folds
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Returns (means over the folds, predictions [rows, 1], labels [rows]). Every row is a test row of one fold."""
    (y,) = label_numbers(labels)
    predicted, scores = np.zeros((len(y), 1), np.int64), []
    for train, test in folds:
        predicted[test, 0] = classified(vectors[train], y[train], vectors[test])
        scores.append(class_scores(y[test], predicted[test, 0]))
    # A fold whose test rows are not of two labels has no average precision.
    names = dict.fromkeys(name for fold_scores in scores for name in fold_scores)
    return (
        {n: float(np.mean([fold_scores[n] for fold_scores in scores if n in fold_scores])) for n in names},
        predicted,
        y,
    )


def class_scores(gold: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Returns accuracy, F1, precision and recall of predicted labels, and average precision where labels are 0 and 1."""
    from sklearn import metrics

    scores = {"accuracy": metrics.accuracy_score(gold, predicted)}
    for average, suffix in (("macro", ""), ("weighted", "_weighted")):
        options = {"average": average, "zero_division": 0}
        scores[f"f1{suffix}"] = metrics.f1_score(gold, predicted, **options)
        scores[f"precision{suffix}"] = metrics.precision_score(gold, predicted, **options)
        scores[f"recall{suffix}"] = metrics.recall_score(gold, predicted, **options)
    if len(np.unique(gold)) == 2 and set(np.unique(gold)) <= {0, 1}:
        scores["ap"] = metrics.average_precision_score(gold, predicted)
    return {name: float(value) for name, value in scores.items()}


def multilabel_draws(labels: Sequence[Sequence[Any]], per_label: int, experiments: int = 10) -> list[list[int]]:
    """Returns the training rows of each experiment: those with a label that still lacks examples."""
    generator = np.random.default_rng(SEED)
    draws = []
    for _ in range(experiments):
        order = list(np.arange(len(labels)))
        generator.shuffle(order)
        counts: dict[Any, int] = defaultdict(int)
        taken = []
        for i in order:
            if any(counts[x] < per_label for x in labels[i]):
                taken.append(int(i))
                for x in labels[i]:
                    counts[x] += 1
        draws.append(taken)
    return draws


def multilabel_experiments(train, train_labels, test, test_labels, draws) -> tuple[np.ndarray, np.ndarray]:
    """Returns (predictions [test rows, experiments, labels], gold [test rows, labels]) of 0 and 1.

    The five nearest neighbours vote on every label that occurs in the test rows.
    """
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import MultiLabelBinarizer

    binary = MultiLabelBinarizer()
    gold, predicted = binary.fit_transform(test_labels), []
    for rows in draws:
        with quiet():
            train_gold = binary.transform([train_labels[i] for i in rows])
        predicted.append(KNeighborsClassifier(n_neighbors=min(5, len(rows))).fit(train[rows], train_gold).predict(test))
    return np.stack(predicted, axis=1).astype(np.int8), gold.astype(np.int8)


def multilabel_scores(predicted: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """Returns the means over the experiments of accuracy (all labels right), LRAP, macro F1 and the Hamming score."""
    scores = [_multilabel_scores(predicted[:, i], gold) for i in range(predicted.shape[1])]
    return {name: float(np.mean([s[name] for s in scores])) for name in scores[0]}


def _multilabel_scores(predicted: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    from sklearn import metrics

    either = np.maximum(predicted, gold).sum(1)
    hamming = np.where(either == 0, 1.0, np.minimum(predicted, gold).sum(1) / np.maximum(either, 1))
    return {
        "accuracy": float((predicted == gold).all(1).mean()),
        "lrap": float(metrics.label_ranking_average_precision_score(gold, predicted)),
        "f1": float(metrics.f1_score(gold, predicted, average="macro", zero_division=0)),
        "hamming": float(hamming.mean()),
    }


def regression_scores(
    train: np.ndarray, train_values, test: np.ndarray, test_values
) -> tuple[dict[str, float], np.ndarray]:
    """Returns (scores, predictions [test rows]) of a linear regression.

    MTEB fits it ten times on the same rows, as long as there are no more than 2,048.
    """
    from scipy.stats import kendalltau
    from sklearn import metrics
    from sklearn.linear_model import LinearRegression

    predicted = LinearRegression().fit(train, train_values).predict(test)
    squared = float(metrics.mean_squared_error(test_values, predicted))
    scores = {
        "kendalltau": float(kendalltau(test_values, predicted).statistic),
        "mae": float(metrics.mean_absolute_error(test_values, predicted)),
        "mse": squared,
        "rmse": float(np.sqrt(squared)),
        "r2": float(metrics.r2_score(test_values, predicted)),
    }
    return scores, predicted


def clustering_scores(
    vectors: np.ndarray,
    labels: Sequence[Sequence[str]],
    draws: int = 10,
    size: int = 16_384,
    generator=None,
    max_depth: int | None = None,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Returns (mean and deviation of V-measure and adjusted mutual information, both of every draw).

    Each draw takes `size` rows with replacement and clusters them by mini-batch k-means into as many clusters as there are
    labels; hierarchical labels are scored level by level, down to `max_depth` levels. `generator` has drawn before when rows
    were sampled.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import adjusted_mutual_info_score, v_measure_score

    generator = generator or random.Random(SEED)
    results = {"v_measure": [], "ami": []}
    deepest = max(map(len, labels))
    for level in range(deepest if max_depth is None else min(max_depth, deepest)):
        kept = [i for i, path in enumerate(labels) if len(path) > level]
        gold, level_vectors = np.array([labels[i][level] for i in kept]), vectors[kept]
        k_means = MiniBatchKMeans(
            n_clusters=len(np.unique(gold)), batch_size=512, init="k-means++", n_init=1, random_state=SEED
        )
        for _ in range(draws):
            rows = generator.choices(range(len(level_vectors)), k=size)
            with quiet():
                clusters = k_means.fit_predict(level_vectors[rows])
            results["v_measure"].append(float(v_measure_score(gold[rows], clusters)))
            results["ami"].append(float(adjusted_mutual_info_score(gold[rows], clusters)))
    values = {name: np.array(scores) for name, scores in results.items()}
    means = {name: float(np.mean(scores)) for name, scores in values.items()}
    return means | {f"{name}_std": float(np.std(scores)) for name, scores in values.items()}, values


def set_clustering_scores(
    sets: Sequence[np.ndarray], labels: Sequence[Sequence[str]]
) -> tuple[dict[str, float], np.ndarray]:
    """Returns (mean and deviation of the V-measure, the V-measure of every set), each set clustered on its own.

    A set of one label scores 1. Source: MTEB's AbsTaskClusteringLegacy.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import v_measure_score

    values = []
    for vectors, gold in zip(sets, labels, strict=True):
        number = len(set(gold))
        if number > 1:
            means = MiniBatchKMeans(n_clusters=number, batch_size=500, n_init="auto", random_state=SEED)
            with quiet():
                values.append(float(v_measure_score(gold, means.fit(vectors).labels_)))
        else:
            values.append(1.0)
    return {"v_measure": float(np.mean(values)), "v_measure_std": float(np.std(values))}, np.array(values)


def one_clustering(vectors: np.ndarray, gold: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """Returns (scores, clusters) of one mini-batch k-means with as many clusters as there are labels.

    Source: MTEB's AbsTaskClusteringLegacy of images.
    """
    from sklearn import metrics
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(n_clusters=len(np.unique(gold)), batch_size=500, n_init="auto", random_state=SEED)
    with quiet():
        predicted = means.fit(vectors).labels_
    scores = {
        "nmi": metrics.normalized_mutual_info_score(gold, predicted),
        "v_measure": metrics.v_measure_score(gold, predicted),
        "ari": metrics.adjusted_rand_score(gold, predicted),
        "cluster_accuracy": np.mean(best_names(predicted, gold) == gold),
    }
    return {name: float(value) for name, value in scores.items()}, predicted


def best_names(predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Returns clusters named by labels, one each, so that most rows get their own label."""
    from scipy.optimize import linear_sum_assignment

    size = int(max(predicted.max(), gold.max())) + 1
    counts = np.zeros((size, size), np.int64)
    np.add.at(counts, (predicted, gold), 1)
    clusters, labels = linear_sum_assignment(counts, maximize=True)
    return labels[np.argsort(clusters)][predicted]


@contextlib.contextmanager
def quiet():
    """Leaves out scikit-learn's warnings: unfinished fits, unseen labels, clusters without a member."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
