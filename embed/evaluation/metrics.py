"""Scores on ranked lists and pairs, as MTEB computes them. Plain numpy, tested against loops and hand values."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

RECALL_AT = (1, 10, 100)


def ranked(ids: Sequence[str], scores: Sequence[float]) -> list[str]:
    """Returns ids by falling score; equal scores by falling id, as trec_eval does."""
    return [i for _, i in sorted(zip(map(float, scores), ids), reverse=True)]


def ndcg(ranking: Sequence[str], relevant: Mapping[str, float], k: int) -> float:
    """Returns DCG@k over the ideal DCG@k with linear gain: sum of relevance / log2(rank + 1)."""
    gains = [max(relevant.get(i, 0), 0) for i in ranking[:k]]
    ideal = sorted((g for g in relevant.values() if g > 0), reverse=True)[:k]
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = float(np.dot(ideal, discount[: len(ideal)]))
    return float(np.dot(gains, discount[: len(gains)])) / best if best else 0.0


def reciprocal_rank(ranking: Sequence[str], relevant: Mapping[str, float], k: int) -> float:
    """Returns 1 / rank of the first relevant item among the first k, else 0."""
    return next((1 / rank for rank, i in enumerate(ranking[:k], 1) if relevant.get(i, 0) > 0), 0.0)


def recall(ranking: Sequence[str], relevant: Mapping[str, float], k: int) -> float:
    """Returns the share of the relevant items that are among the first k."""
    wanted = {i for i, g in relevant.items() if g > 0}
    return len(wanted.intersection(ranking[:k])) / len(wanted) if wanted else 0.0


def retrieval_scores(
    rankings: Mapping[str, Sequence[str]], qrels: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """Returns mean nDCG@10, MRR@10 and Recall@{1,10,100} over the queries that have a relevant document."""
    judged = [q for q in rankings if any(g > 0 for g in qrels.get(q, {}).values())]

    def mean(function, k: int) -> float:
        return float(np.mean([function(rankings[q], qrels[q], k) for q in judged])) if judged else float("nan")

    return {
        "ndcg_at_10": mean(ndcg, 10),
        "mrr_at_10": mean(reciprocal_rank, 10),
        **{f"recall_at_{k}": mean(recall, k) for k in RECALL_AT},
    }


def sts_scores(first: np.ndarray, second: np.ndarray, gold: Sequence[float]) -> dict[str, float]:
    """Returns Spearman and Pearson correlation of the cosine of paired unit vectors [n, E] with the gold scores."""
    cosine = np.sum(np.asarray(first, np.float64) * np.asarray(second, np.float64), -1)
    if np.ptp(cosine) == 0 or np.ptp(gold) == 0:  # a constant side has no rank order; the correlation is undefined
        return {"cosine_spearman": float("nan"), "cosine_pearson": float("nan")}
    return {
        "cosine_spearman": float(stats.spearmanr(cosine, gold).statistic),
        "cosine_pearson": float(stats.pearsonr(cosine, gold).statistic),
    }


MAIN = {"retrieval": "ndcg_at_10", "sts": "cosine_spearman"}
