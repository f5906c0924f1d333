"""Tasks that train small models on the vectors, or group them."""

import dataclasses
import random
from collections.abc import Sequence

import numpy as np

from embed.evaluation import probes
from embed.evaluation.bootstrap import Sample
from embed.evaluation.embeddings import Items
from embed.evaluation.tasks import Base, Scored, Vectors
from embed.evaluation.views import View
from embed.types import Item, SearchFn


def _sample(main: str, f1: str, predicted: np.ndarray, gold: np.ndarray) -> Sample:
    """Returns what accuracy or `f1`, the name of a statistic, is computed from: predictions of all experiments."""
    if main == "f1":
        return Sample(f1, predicted, gold)
    right = predicted == (gold[:, None] if predicted.ndim == 2 else gold[:, None, :])
    return Sample("mean", (right if right.ndim == 2 else right.all(2)).mean(1))


@dataclasses.dataclass(frozen=True)
class Classification(Base):
    """Items with a label each, a few of which a logistic regression learns from.

    `cross_validated`: there are test texts alone, which are split into folds; each fold is classified by the others.
    """

    type = "classification"
    train: list[str | Item]
    train_labels: list[str]
    test: list[str | Item]
    test_labels: list[str]
    per_label: int = 8
    experiments: int = 10
    cross_validated: bool = False

    def _draws(self) -> list[list[int]]:
        if self.cross_validated:
            return []
        return probes.classification_draws(self.train_labels, self.per_label, self.experiments)

    def parts(self) -> dict[str, Items]:
        used = _used(self._draws())
        return {"train": Items([self.train[i] for i in used], self.prompt), "test": Items(self.test, self.prompt)}

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        test = view.documents(vectors("test"))
        if self.cross_validated:
            folds = probes.cross_validation_draws(self.test_labels, self.per_label)
            scores, predicted, gold = probes.cross_validation(test, self.test_labels, folds)
        else:
            used, draws = _renumbered(self._draws())
            labels = [self.train_labels[i] for i in used]
            train = view.documents(vectors("train"))
            predicted, gold = probes.classification_experiments(train, labels, test, self.test_labels, draws)
            scores = probes.classification_scores(predicted, gold)
        return Scored(scores, _sample(self.main, "macro_f1", predicted, gold))


@dataclasses.dataclass(frozen=True)
class MultilabelClassification(Base):
    """Items with any number of labels, a few of which nearest neighbours vote by."""

    type = "multilabel_classification"
    train: list[str]
    train_labels: list[list[str]]
    test: list[str]
    test_labels: list[list[str]]
    per_label: int = 8
    experiments: int = 10

    def _draws(self) -> list[list[int]]:
        return probes.multilabel_draws(self.train_labels, self.per_label, self.experiments)

    def parts(self) -> dict[str, Items]:
        used = _used(self._draws())
        return {"train": Items([self.train[i] for i in used], self.prompt), "test": Items(self.test, self.prompt)}

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        used, draws = _renumbered(self._draws())
        labels = [self.train_labels[i] for i in used]
        train, test = view.documents(vectors("train")), view.documents(vectors("test"))
        predicted, gold = probes.multilabel_experiments(train, labels, test, self.test_labels, draws)
        return Scored(probes.multilabel_scores(predicted, gold), _sample(self.main, "labels_f1", predicted, gold))


@dataclasses.dataclass(frozen=True)
class Regression(Base):
    """Items with a number each, which a linear regression learns to predict."""

    type = "regression"
    train: list[str]
    train_values: list[float]
    test: list[str]
    test_values: list[float]

    def parts(self) -> dict[str, Items]:
        return {"train": Items(self.train, self.prompt), "test": Items(self.test, self.prompt)}

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        train, test = view.documents(vectors("train")), view.documents(vectors("test"))
        scores, predicted = probes.regression_scores(train, self.train_values, test, self.test_values)
        return Scored(scores, Sample("kendall", predicted, np.asarray(self.test_values, np.float64)))


def _used(draws: Sequence[Sequence[int]]) -> list[int]:
    return sorted({i for rows in draws for i in rows})


def _renumbered(draws) -> tuple[list[int], list[list[int]]]:
    """Returns the rows that are used, and the draws as places among them."""
    used = _used(draws)
    index_of = {row: i for i, row in enumerate(used)}
    return used, [[index_of[row] for row in rows] for rows in draws]


@dataclasses.dataclass(frozen=True)
class Clustering(Base):
    """Items with a label, or labels from coarse to fine, that k-means has to find again.

    `fraction` or `max_document_to_embed` of the texts are embedded; MTEB's own tasks say 0.04, local files all. Each draw has
    `max_documents_per_cluster` texts, and `max_depth` levels of labels are scored.
    """

    type = "clustering"
    texts: list[str]
    labels: list[list[str]]
    fraction: float | None = None
    max_document_to_embed: int | None = None
    max_documents_per_cluster: int = 16_384
    max_depth: int | None = None

    def _sampled(self) -> tuple[list[int], random.Random]:
        generator, count = random.Random(probes.SEED), len(self.texts)
        if self.fraction is None and self.max_document_to_embed is None:
            return list(range(count)), generator
        kept = self.max_document_to_embed if self.fraction is None else int(self.fraction * count)
        return generator.sample(range(count), k=min(kept, count)), generator

    def parts(self) -> dict[str, Items]:
        return {"texts": Items([self.texts[i] for i in self._sampled()[0]], self.prompt)}

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        rows, generator = self._sampled()
        scores, values = probes.clustering_scores(
            view.documents(vectors("texts")),
            [self.labels[i] for i in rows],
            size=self.max_documents_per_cluster,
            generator=generator,
            max_depth=self.max_depth,
        )
        return Scored(scores, Sample("mean", values[self.main]))


@dataclasses.dataclass(frozen=True)
class SetClustering(Base):
    """Sets of texts with a label each, every set clustered on its own: MTEB's older protocol."""

    type = "clustering"
    sets: list[list[str]]
    labels: list[list[str]]

    def parts(self) -> dict[str, Items]:
        return {"texts": Items([text for texts in self.sets for text in texts], self.prompt)}

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        ends = np.cumsum([len(texts) for texts in self.sets])[:-1]
        scores, values = probes.set_clustering_scores(np.split(view.documents(vectors("texts")), ends), self.labels)
        return Scored(scores, Sample("mean", values))
