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


def classification_scores(
    train: np.ndarray, train_labels: Sequence[str], test: np.ndarray, test_labels: Sequence[str], draws
) -> tuple[dict[str, float], np.ndarray]:
    """Returns (means over the experiments, share of the experiments that get each test row right).

    `train` holds the rows of all draws; logistic regression with at most 100 iterations, labels as numbers in their order.
    """
    from sklearn.linear_model import LogisticRegression

    known = sorted(set(train_labels) | set(test_labels))
    number = {label: i for i, label in enumerate(known)}
    y_train, y_test = (np.array([number[x] for x in side]) for side in (train_labels, test_labels))
    found, right = [], np.zeros(len(y_test))
    for rows in draws:
        if len(set(y_train[rows])) == 1:
            predicted = np.full(len(y_test), y_train[rows[0]])
        else:
            with _quiet():
                model = LogisticRegression(max_iter=100, random_state=SEED).fit(train[rows], y_train[rows])
            predicted = model.predict(test)
        found.append(_class_scores(y_test, predicted))
        right += predicted == y_test
    means = {name: float(np.mean([f[name] for f in found])) for name in found[0]}
    return means, right / len(draws)


def _class_scores(gold: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    from sklearn import metrics

    found = {"accuracy": metrics.accuracy_score(gold, predicted)}
    for average, suffix in (("macro", ""), ("weighted", "_weighted")):
        options = {"average": average, "zero_division": 0}
        found[f"f1{suffix}"] = metrics.f1_score(gold, predicted, **options)
        found[f"precision{suffix}"] = metrics.precision_score(gold, predicted, **options)
        found[f"recall{suffix}"] = metrics.recall_score(gold, predicted, **options)
    if len(np.unique(gold)) == 2 and set(np.unique(gold)) <= {0, 1}:
        found["ap"] = metrics.average_precision_score(gold, predicted)
    return {name: float(value) for name, value in found.items()}


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


def multilabel_scores(train, train_labels, test, test_labels, draws) -> tuple[dict[str, float], np.ndarray]:
    """Returns (means over the experiments, share of the experiments that get all labels of each test row right).

    The five nearest neighbours vote on every label that occurs in the test rows.
    """
    from sklearn import metrics
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import MultiLabelBinarizer

    binary = MultiLabelBinarizer()
    gold = binary.fit_transform(test_labels)
    found, right = [], np.zeros(len(gold))
    for rows in draws:
        with _quiet():
            wanted = binary.transform([train_labels[i] for i in rows])
        predicted = KNeighborsClassifier(n_neighbors=min(5, len(rows))).fit(train[rows], wanted).predict(test)
        exact = (predicted == gold).all(1)
        either = np.maximum(predicted, gold).sum(1)
        hamming = np.where(either == 0, 1.0, np.minimum(predicted, gold).sum(1) / np.maximum(either, 1))
        found.append(
            {
                "accuracy": float(exact.mean()),
                "lrap": float(metrics.label_ranking_average_precision_score(gold, predicted)),
                "f1": float(metrics.f1_score(gold, predicted, average="macro", zero_division=0)),
                "hamming": float(hamming.mean()),
            }
        )
        right += exact
    return {name: float(np.mean([f[name] for f in found])) for name in found[0]}, right / len(draws)


def clustering_scores(
    vectors: np.ndarray, labels: Sequence[Sequence[str]], draws: int = 10, size: int = 16_384, generator=None
) -> tuple[dict[str, float], np.ndarray]:
    """Returns (mean and deviation of V-measure and adjusted mutual information, the V-measure of every draw).

    Each draw takes `size` rows with replacement and clusters them by mini-batch k-means into as many clusters as there are
    labels; hierarchical labels are scored level by level. `generator` has drawn before when rows were sampled.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import adjusted_mutual_info_score, v_measure_score

    generator = generator or random.Random(SEED)
    found = {"v_measure": [], "ami": []}
    for level in range(max(map(len, labels))):
        kept = [i for i, own in enumerate(labels) if len(own) > level]
        gold, own = np.array([labels[i][level] for i in kept]), vectors[kept]
        means = MiniBatchKMeans(
            n_clusters=len(np.unique(gold)), batch_size=512, init="k-means++", n_init=1, random_state=SEED
        )
        for _ in range(draws):
            rows = generator.choices(range(len(own)), k=size)
            with _quiet():
                clusters = means.fit_predict(own[rows])
            found["v_measure"].append(float(v_measure_score(gold[rows], clusters)))
            found["ami"].append(float(adjusted_mutual_info_score(gold[rows], clusters)))
    scores = {name: float(np.mean(values)) for name, values in found.items()}
    return scores | {f"{n}_std": float(np.std(v)) for n, v in found.items()}, np.array(found["v_measure"])


@contextlib.contextmanager
def _quiet():
    """Leaves out scikit-learn's warnings: unfinished fits, unseen labels, clusters without a member."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
