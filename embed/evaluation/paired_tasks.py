"""Tasks that compare texts in pairs."""

import dataclasses

import numpy as np

from embed.evaluation import pairs
from embed.evaluation.bootstrap import Sample
from embed.evaluation.embeddings import Items
from embed.evaluation.tasks import Base, Scored, Vectors, mean
from embed.evaluation.views import View
from embed.types import Item, SearchFn


@dataclasses.dataclass(frozen=True)
class Sts(Base):
    """Pairs of sentences and how similar people found them."""

    type = "sts"
    first: list[str | Item]
    second: list[str | Item]
    gold: list[float]

    def parts(self) -> dict[str, Items]:
        return {"first": Items(self.first, self.prompt), "second": Items(self.second, self.prompt)}

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        first, second = view.queries(vectors("first")), view.documents(vectors("second"))
        similarities, (name, _, kind) = _similarities(first, second, view), self.main.rpartition("_")
        sample = Sample(kind, similarities[name], np.asarray(self.gold, np.float64))
        return Scored(pairs.sts_scores(similarities, self.gold), sample)


def _similarities(first: np.ndarray, second: np.ndarray, view: View) -> dict[str, np.ndarray]:
    return (pairs.bit_similarities if view.precision == "binary" else pairs.similarities)(first, second)


@dataclasses.dataclass(frozen=True)
class Summarization(Base):
    """Texts with summaries by people and by machines, and how good people found each of the latter."""

    type = "summarization"
    human: list[list[str]]
    machine: list[list[str]]
    gold: list[list[float]]

    def parts(self) -> dict[str, Items]:
        return {
            "human": Items([s for summaries in self.human for s in summaries], self.prompt),
            "machine": Items([s for summaries in self.machine for s in summaries], self.prompt),
        }

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        human = np.split(view.documents(vectors("human")), np.cumsum([len(x) for x in self.human])[:-1])
        machine = np.split(view.queries(vectors("machine")), np.cumsum([len(x) for x in self.machine])[:-1])
        values = pairs.summary_scores(human, machine, self.gold)
        # Texts that a model cannot tell apart keep their place, so that models are compared text by text.
        return Scored({n: mean(v[~np.isnan(v)]) for n, v in values.items()}, Sample("mean", values[self.main]))


@dataclasses.dataclass(frozen=True)
class PairClassification(Base):
    """Pairs of texts that do or do not belong together."""

    type = "pair_classification"
    first: list[str | Item]
    second: list[str | Item]
    labels: list[int]

    def parts(self) -> dict[str, Items]:
        return {"first": Items(self.first, self.prompt), "second": Items(self.second, self.prompt)}

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        first, second = view.queries(vectors("first")), view.documents(vectors("second"))
        similarities = _similarities(first, second, view)
        scores = pairs.pair_classification_scores(similarities, self.labels)
        name, _, measure = self.main.partition("_")
        if name == "max":
            name = max(pairs.SIMILARITIES, key=lambda n: scores[f"{n}_{measure}"])
        statistic = {"ap": "average_precision", "accuracy": "best_accuracy"}[measure]
        return Scored(scores, Sample(statistic, similarities[name], np.asarray(self.labels)))


@dataclasses.dataclass(frozen=True)
class Bitext(Base):
    """Sentences and their translations: line i of one side is line i of the other."""

    type = "bitext"
    sources: list[str]
    targets: list[str]

    def parts(self) -> dict[str, Items]:
        return {"sources": Items(self.sources, self.prompt), "targets": Items(self.targets, self.prompt)}

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        predicted = pairs.nearest(view.queries(vectors("sources")), view.documents(vectors("targets")))
        gold = np.arange(len(self.sources))
        return Scored(pairs.mining_scores(predicted, gold), Sample("weighted_f1", predicted, gold))
