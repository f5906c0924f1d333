"""Tasks that train small models on the vectors, or group them."""

import dataclasses
import random
from collections.abc import Sequence

from embed.evaluation import probes
from embed.evaluation.bootstrap import Sample
from embed.evaluation.embeddings import Texts
from embed.evaluation.tasks import Base, Scored, Vectors
from embed.evaluation.views import View
from embed.types import SearchFn


@dataclasses.dataclass(frozen=True)
class Classification(Base):
    """Texts with a label each, a few of which a logistic regression learns from."""

    type = "classification"
    train: list[str]
    train_labels: list[str]
    test: list[str]
    test_labels: list[str]
    per_label: int = 8

    def _draws(self) -> list[list[int]]:
        return probes.classification_draws(self.train_labels, self.per_label)

    def parts(self) -> dict[str, Texts]:
        used = _used(self._draws())
        return {"train": Texts([self.train[i] for i in used], self.prompt), "test": Texts(self.test, self.prompt)}

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        draws = self._draws()
        used, draws = _renumbered(draws)
        labels = [self.train_labels[i] for i in used]
        found, right = probes.classification_scores(
            view.documents(vectors("train")), labels, view.documents(vectors("test")), self.test_labels, draws
        )
        return Scored(found, Sample("mean", right))


@dataclasses.dataclass(frozen=True)
class MultilabelClassification(Base):
    """Texts with any number of labels, a few of which nearest neighbours vote by."""

    type = "multilabel_classification"
    train: list[str]
    train_labels: list[list[str]]
    test: list[str]
    test_labels: list[list[str]]
    per_label: int = 8

    def _draws(self) -> list[list[int]]:
        return probes.multilabel_draws(self.train_labels, self.per_label)

    def parts(self) -> dict[str, Texts]:
        used = _used(self._draws())
        return {"train": Texts([self.train[i] for i in used], self.prompt), "test": Texts(self.test, self.prompt)}

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        used, draws = _renumbered(self._draws())
        labels = [self.train_labels[i] for i in used]
        found, right = probes.multilabel_scores(
            view.documents(vectors("train")), labels, view.documents(vectors("test")), self.test_labels, draws
        )
        return Scored(found, Sample("mean", right))


def _used(draws: Sequence[Sequence[int]]) -> list[int]:
    return sorted({i for rows in draws for i in rows})


def _renumbered(draws) -> tuple[list[int], list[list[int]]]:
    """Returns the rows that are used, and the draws as places among them."""
    used = _used(draws)
    place = {row: i for i, row in enumerate(used)}
    return used, [[place[row] for row in rows] for rows in draws]


@dataclasses.dataclass(frozen=True)
class Clustering(Base):
    """Texts with a label, or labels from coarse to fine, that k-means has to find again."""

    type = "clustering"
    texts: list[str]
    labels: list[list[str]]
    fraction: float | None = None  # of the texts that is embedded; MTEB's own tasks say 0.04, local files all

    def _sampled(self) -> tuple[list[int], random.Random]:
        generator = random.Random(probes.SEED)
        if self.fraction is None:
            return list(range(len(self.texts))), generator
        return generator.sample(range(len(self.texts)), k=int(self.fraction * len(self.texts))), generator

    def parts(self) -> dict[str, Texts]:
        return {"texts": Texts([self.texts[i] for i in self._sampled()[0]], self.prompt)}

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        rows, generator = self._sampled()
        found, values = probes.clustering_scores(
            view.documents(vectors("texts")), [self.labels[i] for i in rows], generator=generator
        )
        return Scored(found, Sample("mean", values))
