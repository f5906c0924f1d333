"""Tasks that train on vectors, through the runner with stand-in models: what is embedded, direct computations, and chance."""

import dataclasses
import random

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from embed.evaluation import probes
from embed.evaluation.probe_tasks import (
    Classification,
    Clustering,
    MultilabelClassification,
    Regression,
    SetClustering,
)
from embed.evaluation.views import View


def cut(x: np.ndarray, dim: int) -> np.ndarray:
    x = x[:, :dim].astype(np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


class Telling:
    """A model that knows the label at the end of a text ('text 5 of red'), with some noise of its own."""

    dim = 8

    def __init__(self, model, noise: float = 0.05):
        self._model, self._noise = model, noise

    def __call__(self, items, *, prompt, progress):
        texts = [item.text for item in items]
        labels = [text.split(" of ")[1] for text in texts]
        x = self._model.vectors(labels, "label") + self._noise * self._model.vectors(texts, prompt)
        return x / np.linalg.norm(x, axis=1, keepdims=True)


def consistent(scores, sample, main: str) -> None:
    """The interval is of the score that stands for the task: the sample over all items gives that score."""
    assert sample.of(np.arange(len(sample))) == pytest.approx(scores[main], abs=1e-9)


# classification


def classification_task(per_label: int = 8, main: str = "accuracy", labels=("red", "green", "blue")) -> Classification:
    draw = random.Random(0)
    train_labels, test_labels = draw.choices(labels, k=120), list(labels) * 8
    return Classification(
        "c", "classification", main, ("en",),
        [f"text {i} of {x}" for i, x in enumerate(train_labels)], train_labels,
        [f"test {i} of {x}" for i, x in enumerate(test_labels)], test_labels, per_label,
    )  # fmt: skip


@pytest.mark.parametrize("per_label", [2, 8])
def test_classification_equals_a_direct_computation(make_model, score, per_label):
    task, model = classification_task(per_label), make_model()
    for dim, (scores, sample) in zip((12, 5), score(task, model, 12, 5)):
        train = cut(model.vectors(task.train, "classification"), dim)
        test = cut(model.vectors(task.test, "classification"), dim)
        order, right = list(range(120)), []
        for _ in range(10):
            np.random.RandomState(42).shuffle(order)
            rows = []
            for i in order:
                if [task.train_labels[j] for j in rows].count(task.train_labels[i]) < per_label:
                    rows.append(i)
            fit = LogisticRegression(max_iter=100, random_state=42)
            fit.fit(train[rows], [task.train_labels[i] for i in rows])
            right.append([x == y for x, y in zip(fit.predict(test), task.test_labels)])
        assert scores["accuracy"] == pytest.approx(np.mean(right), abs=1e-9)
        assert list(sample.values) == pytest.approx(np.mean(right, axis=0))
        consistent(scores, sample, "accuracy")


def test_only_the_training_texts_that_are_drawn_are_embedded(make_model, score):
    task, model = classification_task(1), make_model()
    score(task, model, 12, 4)
    (texts, prompt, _), *more = model.calls
    assert prompt == "classification" and not more
    used = [t for t in texts if t.startswith("text")]
    drawn = {i for rows in probes.classification_draws(task.train_labels, 1) for i in rows}
    assert set(used) == {task.train[i] for i in drawn} and len(used) < 40


def test_labels_that_the_vectors_tell_apart_are_all_found(make_model, score):
    scores, _ = score(classification_task(), Telling(make_model(8)))
    assert scores["accuracy"] == scores["f1"] == 1.0


@pytest.mark.parametrize("precision", ["float32", "int8", "binary"])
def test_a_constant_model_classifies_by_chance(make_model, score, precision):
    scores, _ = score(classification_task(), make_model(256, constant=True), View(256, precision))
    assert scores["accuracy"] == pytest.approx(1 / 3)


def test_a_label_that_only_the_test_has_lowers_the_score(make_model, score):
    task = classification_task()
    task.test.append("test 99 of black")
    task.test_labels.append("black")
    scores, sample = score(task, Telling(make_model(8)))
    assert scores["accuracy"] == pytest.approx(24 / 25) and sample.values[-1] == 0.0
    assert scores["recall"] == pytest.approx(3 / 4)


# several labels


def multilabel_task(per_label: int = 8) -> MultilabelClassification:
    draw = random.Random(3)
    kinds = [["red"], ["red", "green"], ["blue"]]
    train_labels, test_labels = draw.choices(kinds, k=90), kinds * 6
    return MultilabelClassification(
        "m", "classification", "accuracy", (),
        [f"text {i} of {'+'.join(x)}" for i, x in enumerate(train_labels)], train_labels,
        [f"test {i} of {'+'.join(x)}" for i, x in enumerate(test_labels)], test_labels, per_label,
    )  # fmt: skip


def test_multilabel_equals_a_direct_computation(make_model, score):
    task, model = multilabel_task(), make_model()
    names = ["blue", "green", "red"]
    binary = lambda labels: np.array([[int(n in own) for n in names] for own in labels])  # noqa: E731
    for dim, (scores, sample) in zip((12, 4), score(task, model, 12, 4)):
        train = cut(model.vectors(task.train, "classification"), dim)
        test = cut(model.vectors(task.test, "classification"), dim)
        generator, exact = np.random.default_rng(42), []
        for _ in range(10):
            order = list(np.arange(90))
            generator.shuffle(order)
            rows, counts = [], dict.fromkeys(names, 0)
            for i in order:
                if any(counts[x] < 8 for x in task.train_labels[i]):
                    rows.append(i)
                    for x in task.train_labels[i]:
                        counts[x] += 1
            said = KNeighborsClassifier(5).fit(train[rows], binary(task.train_labels)[rows]).predict(test)
            exact.append((said == binary(task.test_labels)).all(1))
        assert scores["accuracy"] == pytest.approx(np.mean(exact))
        assert list(sample.values) == pytest.approx(np.mean(exact, axis=0))
        consistent(scores, sample, "accuracy")


def test_labels_of_separate_groups_are_all_found(make_model, score):
    scores, _ = score(multilabel_task(), Telling(make_model(8)))
    assert scores == {"accuracy": 1.0, "lrap": 1.0, "f1": 1.0, "hamming": 1.0}


def test_a_constant_model_says_the_same_labels_of_every_text(make_model, score):
    scores, _ = score(multilabel_task(), make_model(64, constant=True))
    assert scores["accuracy"] <= 1 / 3 + 1e-9


# clustering


def clustering_task(fraction=None, count: int = 90) -> Clustering:
    labels = [[("red", "green", "blue")[i % 3]] for i in range(count)]
    return Clustering(
        "g", "clustering", "v_measure", (), [f"text {i} of {x}" for i, (x,) in enumerate(labels)], labels, fraction
    )


@pytest.fixture
def small_draws(monkeypatch):
    """Draws of 300 rows instead of 16384, for time."""
    scores = probes.clustering_scores
    monkeypatch.setattr(probes, "clustering_scores", lambda *own, **options: scores(*own, **{**options, "size": 300}))


def test_groups_are_found_and_a_constant_model_finds_none(make_model, score, small_draws):
    scores, sample = score(clustering_task(), Telling(make_model(8)))
    assert scores["v_measure"] > 0.9
    consistent(scores, sample, "v_measure")
    scores, _ = score(clustering_task(), make_model(256, constant=True))
    assert scores["v_measure"] == pytest.approx(0, abs=1e-9) and scores["ami"] == pytest.approx(0, abs=1e-9)


def test_a_fraction_is_drawn_before_the_rows_by_the_same_generator(make_model, score, small_draws):
    task, model = clustering_task(0.5), make_model()
    scores, sample = score(task, model)
    generator = random.Random(42)
    rows = generator.sample(range(90), k=45)
    assert model.calls == [([task.texts[i] for i in rows], "clustering", None)]
    vectors = model.vectors([task.texts[i] for i in rows], "clustering")
    wanted, values = probes.clustering_scores(vectors, [task.labels[i] for i in rows], generator=generator)
    assert scores == pytest.approx(wanted) and list(sample.values) == pytest.approx(values["v_measure"])
    assert [t.items for t in task.parts().values()] == [t.items for t in task.parts().values()]  # the same each time


# rules of MTEB


def test_cross_validation_gives_every_text_one_prediction(make_model, score):
    labels = ["x", "y", "z"] * 14 + ["x"]
    fields = {"train": [], "train_labels": [], "test": [f"text {i} of {x}" for i, x in enumerate(labels)]}
    task = Classification("c", "classification", "accuracy", (), **fields, test_labels=labels, cross_validated=True)
    scores, sample = score(task, Telling(make_model(8)))
    assert scores["accuracy"] > 0.9 and len(sample) == 43
    folds = probes.cross_validation_draws(labels, 2)
    assert sorted(i for _, test in folds for i in test) == list(range(43))
    for train, test in folds:
        assert not set(train) & set(test) and all([labels[i] for i in train].count(x) == 2 for x in "xyz")


def test_f1_may_stand_for_classification(make_model, score):
    labels = ["x", "y"] * 20
    fields = {"train": [f"{i} {x}" for i, x in enumerate(labels)], "train_labels": labels}
    fields |= {"test": [f"test {i} of {x}" for i, x in enumerate(labels)], "test_labels": labels}
    task = Classification("c", "classification", "f1", (), **fields, experiments=3)
    scores, sample = score(task, make_model(8))
    consistent(scores, sample, "f1")
    assert sample.values.shape == (40, 3)


def test_a_regression_learns_numbers(make_model, score):
    texts = [f"text {i}" for i in range(60)]
    model = make_model(8)
    values = [float(model.vector(t, "none")[0]) for t in texts]
    task = Regression("r", "none", "kendalltau", (), texts[:40], values[:40], texts[40:], values[40:])
    scores, sample = score(task, model)
    assert scores["kendalltau"] == pytest.approx(1) and scores["rmse"] < 1e-5 and scores["r2"] == pytest.approx(1)
    consistent(scores, sample, "kendalltau")


def test_sets_are_clustered_each_on_its_own(make_model, score):
    sets = [[f"text {i} of {x}" for i, x in enumerate("ab" * 15)], ["1 of x", "2 of x"]]
    task = SetClustering("s", "clustering", "v_measure", (), sets, [list("ab" * 15), ["x", "x"]])
    scores, sample = score(task, Telling(make_model(8)))
    assert sample.values[1] == 1.0 and scores["v_measure"] > 0.9
    consistent(scores, sample, "v_measure")


def test_clustering_takes_the_texts_levels_and_draws_that_it_is_told(make_model, score):
    task = dataclasses.replace(clustering_task(), max_document_to_embed=30, max_documents_per_cluster=50, max_depth=1)
    task = dataclasses.replace(task, labels=[[x, f"{x}{i % 2}"] for i, (x,) in enumerate(task.labels)])
    model = make_model(8)
    _, sample = score(task, model)
    rows = random.Random(42).sample(range(90), k=30)
    assert model.calls[0][0] == [task.texts[i] for i in rows] and len(sample) == 10
    _, sample = score(dataclasses.replace(task, max_depth=None), model)
    assert len(sample) == 20
    assert len(dataclasses.replace(task, max_document_to_embed=1000).parts()["texts"].items) == 90
