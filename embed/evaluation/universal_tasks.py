"""Instances of several domains found in one index: R@1 and mMP@5 as UnED defines them (arXiv:2309.01858), and mAP.

A hit is an image of the same label and domain. In the merged index the images of all domains compete, in a separate index those of
the query's own. A query that is in the index is not its own hit.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from embed.evaluation import pictures
from embed.evaluation.bootstrap import Sample
from embed.evaluation.embeddings import Items
from embed.evaluation.nearest import nearest_rows
from embed.evaluation.pictures import Panel
from embed.evaluation.tasks import Base, Scored, Vectors, mean
from embed.evaluation.views import View
from embed.types import Item, SearchFn

DEPTH = 5  # of mMP@5
MAP_DEPTH = 1000  # of the mean average precision, as in ILIAS (arXiv:2502.11748)
SPECIALISTS = "specialists"
DESCRIPTION = "each domain in a separate index, embedded by the model named after it; the domain of a query is given"


@dataclasses.dataclass(frozen=True)
class Domain:
    """The index of a domain and its labels. Without `queries` every image of the index is a query too.

    A query may have several labels: the images of each are hits. `own_rows` has for each of `queries` the row of the index with the
    same image, -1 for none.
    """

    index: Sequence[Item]
    index_labels: Sequence[str]
    queries: Sequence[Item] | None = None
    query_labels: Sequence[str | tuple[str, ...]] = ()
    own_rows: Sequence[int] | None = None

    @property
    def labels(self) -> list[tuple[str, ...]]:
        """The labels of each query."""
        labels = self.index_labels if self.queries is None else self.query_labels
        return [label if isinstance(label, tuple) else (label,) for label in labels]

    @property
    def excluded(self) -> np.ndarray:
        """The row of the index that is the query itself, which is not ranked; -1 for none."""
        if self.queries is None:
            return np.arange(len(self.index))
        return np.full(len(self.queries), -1) if self.own_rows is None else np.asarray(self.own_rows)

    @property
    def relevant(self) -> np.ndarray:
        """How many images each query should find."""
        counts = collections.Counter(self.index_labels)
        is_own = [row >= 0 and self.index_labels[row] in labels for row, labels in zip(self.excluded, self.labels)]
        return np.array([sum(counts[label] for label in set(labels)) for labels in self.labels]) - is_own

    @property
    def numbered(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers in place of the labels: int [N] of the index, and int [Q, L] of the queries.

        L is the largest number of labels of a query. Shorter rows end in -1, and a label that the index does not have is -1.
        """
        numbers: dict[str, int] = {}
        index = np.array([numbers.setdefault(label, len(numbers)) for label in self.index_labels])
        queries = np.full((len(self.labels), max(map(len, self.labels))), -1)
        for row, labels in enumerate(self.labels):
            queries[row, : len(labels)] = [numbers.get(label, -1) for label in labels]
        return index, queries


@dataclasses.dataclass(frozen=True)
class UniversalRetrieval(Base):
    """Images of several domains, each with its own labels.

    `r1` is the share of queries whose nearest image of the merged index is a hit, `mmp_at_5` the mean over queries of the share of
    hits among the first min(n, 5), of a query with n images to be found, and `map_at_1000` the mean average precision, the sum of
    the precisions at the hits among the first 1,000 over n; all are means of the domains' means. `r1_separate` and the like are
    those of separate indexes, and `r1/DOMAIN` and `r1_separate/DOMAIN` those of one domain. Queries with nothing to be found are
    left out.
    """

    type = "universal_retrieval"
    domains: Mapping[str, Domain]

    def parts(self) -> dict[str, Items]:
        parts = {}
        for name, domain in self.domains.items():
            parts[f"index {name}"] = Items(domain.index, "none")
            if domain.queries is not None:
                parts[f"queries {name}"] = Items(domain.queries, "none")
        return parts

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        names = list(self.domains)
        indexes = [vectors(f"index {name}") for name in names]
        starts = np.cumsum([0, *map(len, indexes)])
        merged = np.concatenate(indexes)
        numbered = [domain.numbered for domain in self.domains.values()]
        index_labels = np.concatenate([labels for labels, _ in numbered])
        of_domain = np.repeat(np.arange(len(names)), [len(index) for index in indexes])
        scores: dict[str, float] = {}
        values: dict[str, list[np.ndarray]] = {}
        confusion = np.zeros((len(names), len(names)))
        for number, (name, domain) in enumerate(self.domains.items()):
            part = f"index {name}" if domain.queries is None else f"queries {name}"
            queries = vectors(part)
            right, excluded = domain.relevant, domain.excluded
            asked = np.flatnonzero(right > 0)
            for kind, corpus, start in (("", merged, 0), ("_separate", indexes[number], starts[number])):
                own_rows = np.where(excluded < 0, -1, excluded + starts[number] - start)[asked]
                rows = _nearest(queries[asked], corpus, view, search, own_rows)
                rows = np.where(rows < 0, -1, rows + start)
                is_label = (index_labels[rows][..., None] == numbered[number][1][asked][:, None]).any(-1)
                hits = (rows >= 0) & (of_domain[rows] == number) & is_label
                values.setdefault(f"r1{kind}", []).append(hits[:, 0].astype(float))
                values.setdefault(f"mmp_at_5{kind}", []).append(_precision(hits, right[asked]))
                values.setdefault(f"map_at_1000{kind}", []).append(_average_precision(hits, right[asked]))
                if not kind:
                    np.add.at(confusion[number], of_domain[rows[:, 0]], 1.0)
        for metric, of_domains in values.items():
            scores[metric] = mean(np.array([mean(one) for one in of_domains if len(one)]))
        for metric, of_domains in values.items():
            scores |= {f"{metric}/{name}": mean(one) for name, one in zip(names, of_domains) if len(one)}
        groups = np.repeat(np.arange(len(names)), list(map(len, values["r1"])))
        sample = Sample("macro_mean", np.concatenate(values[self.main]), groups)
        return Scored(scores, sample, lambda: [self._row(confusion)])

    def _row(self, confusion: np.ndarray) -> list[Panel]:
        """Returns the picture of which domain the nearest image is of, and its shares in words."""
        shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
        names = list(self.domains)
        wrong = [
            f"{names[i]} for {names[j]}: {shares[i, j]:.0%}"
            for i in range(len(names))
            for j in range(len(names))
            if i != j and shares[i, j] >= 0.005
        ]
        panel = pictures.of_depths(1 - shares, 0.0, 1.0)
        text = "; ".join(wrong[:8]) or "no query finds another domain first"
        return [Panel(f"domain of the query (rows) and of what it finds: {', '.join(names)}", panel, text)]


def _nearest(queries: np.ndarray, corpus: np.ndarray, view: View, search: SearchFn, own_rows: np.ndarray) -> np.ndarray:
    """Returns the rows of the nearest images [n, MAP_DEPTH], fewer where the index has fewer, without the query's own row.

    -1 stands at the end of a row with fewer images than others.
    """
    depth = min(MAP_DEPTH + int((own_rows >= 0).any()), len(corpus))
    rows = nearest_rows(queries, corpus, view, search, depth)
    is_own = rows == own_rows[:, None]
    order = np.argsort(is_own, axis=1, kind="stable")  # the own row last
    return np.take_along_axis(np.where(is_own, -1, rows), order, 1)[:, :MAP_DEPTH]


def _precision(hits: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns the share of hits among the first min(n, 5) results of each query, where n is `right`."""
    counted, hits = np.minimum(right, DEPTH), hits[:, :DEPTH]
    is_counted = np.arange(hits.shape[1])[None] < counted[:, None]
    return (hits & is_counted).sum(1) / counted


def _average_precision(hits: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns the average precision of each query: the sum of the precisions at its hits over `right`, the relevant images."""
    precisions = np.cumsum(hits, 1) / np.arange(1, hits.shape[1] + 1)
    return (precisions * hits).sum(1) / right


def of_specialists(domains: Sequence[str], scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Returns the scores of a system that embeds each domain by the model named after it and searches it in a separate index.

    `scores` are those of each model. A domain without a relevant image is left out. There is no merged index: `r1` is
    `r1_separate`, and so on.
    """
    result = {}
    for metric in ("r1", "mmp_at_5", "map_at_1000"):
        key = f"{metric}_separate"
        of_domain = {name: scores[name][f"{key}/{name}"] for name in domains if f"{key}/{name}" in scores[name]}
        result[metric] = result[key] = mean(np.array(list(of_domain.values())))
        result |= {f"{kind}/{name}": value for kind in (metric, key) for name, value in of_domain.items()}
    return result
