"""Scores of ranked lists, as trec_eval and MTEB compute them. Plain numpy; a relevance above zero is relevant."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

CUTS = (1, 3, 5, 10, 20, 100, 1000)


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a task of MTEB may say of its rankings, by the names of MTEB's attributes.

    `k_values` are the ranks that scores are cut at; rankings are as long as the largest. `ignore_identical_ids` takes the
    document out that has the query's own id, `skip_first_result` the first one. Both shorten the ranking, as in MTEB.
    """

    k_values: tuple[int, ...] = CUTS
    ignore_identical_ids: bool = False
    skip_first_result: bool = False

    @property
    def depth(self) -> int:
        """How many documents are ranked for each query."""
        return max(self.k_values)

    def kept(self, query: str, ranking: Mapping[str, float]) -> dict[str, float]:
        """Returns the documents and scores of a ranking, best first, that count."""
        items = list(ranking.items())[: self.depth]
        if self.ignore_identical_ids:
            items = [(identity, score) for identity, score in items if identity != query]
        return dict(items[1:] if self.skip_first_result else items)


def order(ids: Sequence[str], scores: Sequence[float]) -> list[int]:
    """Returns places by falling score; equal scores by falling id, as trec_eval does."""
    return [k for _, _, k in sorted(zip(map(float, scores), ids, range(len(ids))), reverse=True)]


def ranked(ids: Sequence[str], scores: Sequence[float]) -> list[str]:
    """Returns ids in that order."""
    return [ids[k] for k in order(ids, scores)]


def scored(ids: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
    """Returns {id: score} in that order."""
    return {ids[k]: float(scores[k]) for k in order(ids, scores)}


def relevant_ids(judged: Mapping[str, float]) -> set[str]:
    """Returns the relevant ones of a query's judged documents."""
    return {i for i, gain in judged.items() if gain > 0}


def ndcg(ranking: Sequence[str], judged: Mapping[str, float], k: int) -> float:
    """Returns DCG@k over the ideal DCG@k with linear gain: sum of relevance / log2(rank + 1)."""
    gains = [max(judged.get(i, 0), 0) for i in ranking[:k]]
    ideal = sorted((g for g in judged.values() if g > 0), reverse=True)[:k]
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = float(np.dot(ideal, discount[: len(ideal)]))
    return float(np.dot(gains, discount[: len(gains)])) / best if best else 0.0


def reciprocal_rank(ranking: Sequence[str], judged: Mapping[str, float], k: int) -> float:
    """Returns 1 / rank of the first relevant item among the first k, else 0."""
    return next((1 / rank for rank, i in enumerate(ranking[:k], 1) if judged.get(i, 0) > 0), 0.0)


def recall(ranking: Sequence[str], judged: Mapping[str, float], k: int) -> float:
    """Returns the share of the relevant items that are among the first k."""
    relevant = relevant_ids(judged)
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def precision(ranking: Sequence[str], judged: Mapping[str, float], k: int) -> float:
    """Returns the share of the first k places that hold a relevant item."""
    return len(relevant_ids(judged).intersection(ranking[:k])) / k


def average_precision(ranking: Sequence[str], judged: Mapping[str, float], k: int) -> float:
    """Returns the mean over all relevant items of the precision at their rank, 0 for those past rank k."""
    relevant, hits, total = relevant_ids(judged), 0, 0.0
    for rank, i in enumerate(ranking[:k], 1):
        if i in relevant:
            hits += 1
            total += hits / rank
    return total / len(relevant) if relevant else 0.0


def hit_rate(ranking: Sequence[str], judged: Mapping[str, float], k: int) -> float:
    """Returns whether a relevant item is among the first k."""
    return float(any(judged.get(i, 0) > 0 for i in ranking[:k]))


MEASURES = {
    "ndcg": ndcg,
    "map": average_precision,
    "recall": recall,
    "precision": precision,
    "mrr": reciprocal_rank,
    "hit_rate": hit_rate,
}


def score_names(k_values: Sequence[int] = CUTS) -> list[str]:
    """Returns the names of what `scores` gives."""
    names = [f"{name}_at_{k}" for name in MEASURES for k in k_values]
    return [*names, "accuracy"] if 1 in k_values else names


def scores(
    rankings: Mapping[str, Iterable[str]],
    judgements: Mapping[str, Mapping[str, float]],
    k_values: Sequence[int] = CUTS,
) -> dict[str, np.ndarray]:
    """Returns {'ndcg_at_10': values, ...}, a value for each query that has a judgement, in the order of `rankings`.

    Rankings hold ids, best first. A query whose judged documents are all irrelevant scores 0, as in MTEB; a relevant
    document that is not in the corpus is one that no ranking holds. MTEB calls the recall at 1 'accuracy' too.
    """
    judged = [q for q in rankings if judgements.get(q)]
    ranked_ids = {q: list(rankings[q]) for q in judged}
    values = {
        f"{name}_at_{k}": np.array([measure(ranked_ids[q], judgements[q], k) for q in judged], np.float64)
        for name, measure in MEASURES.items()
        for k in k_values
    }
    return values | ({"accuracy": values["recall_at_1"]} if 1 in k_values else {})


def rank_change(old: int, new: int) -> float:
    """Returns how far a document moved when the instruction turned against it, in (-1, 1); above 0 it sank.

    Source: p-MRR of arXiv:2403.15246: old >= new gives new / old - 1, else 1 - old / new.
    """
    return new / old - 1 if old >= new else 1 - old / new


def instruction_change(
    before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]], changed: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """Returns p-MRR of each query: the mean rank change of the documents that its new instruction makes irrelevant.

    Both are rankings by query; a document that is not in one counts as one place behind its last. A query whose new
    instruction changes nothing has no value.
    """
    values = []
    for query, documents in changed.items():
        if not documents:
            continue
        ranks = [{i: rank for rank, i in enumerate(ranking[query], 1)} for ranking in (before, after)]
        values.append(np.mean([rank_change(*(p.get(d, len(p) + 1) for p in ranks)) for d in documents]))
    return np.array(values, np.float64)


def answer_within(passages: Sequence[Sequence[str]], answers: Sequence[str], tokens: int) -> bool:
    """Returns whether one of `answers` stands in the first `tokens` words of the passages joined by spaces.

    Source: R@2kt and R@5kt of XOR-Retrieve, arXiv:2010.11856. `passages` are lists of words, best first.
    """
    words: list[str] = []
    for passage in passages:
        words += passage
        if len(words) >= tokens:
            break
    text = " ".join(words[:tokens])
    return any(answer in text for answer in answers)
