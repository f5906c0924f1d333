"""Scores a model on tasks: each text is encoded once, every Matryoshka size is cut from the same vectors."""

from collections.abc import Callable, Sequence

import numpy as np

from embed.errors import NumericError
from embed.evaluation import metrics
from embed.evaluation.suites import RetrievalTask, StsTask, Task
from embed.types import EncodeFn, SearchFn
from embed.vectors import truncate_numpy

Scores = dict[str, dict[str, float]]  # dimension (as text) -> metric -> value
DEPTH = 100


def _checked(vectors: np.ndarray, task: Task) -> np.ndarray:
    if not np.all(np.isfinite(vectors)):
        bad = int(np.sum(~np.all(np.isfinite(vectors), axis=1)))
        raise NumericError(
            f"task {task.name!r}: {bad} of {len(vectors)} embeddings are not finite; the model cannot be scored"
        )
    return vectors


def score_retrieval(task: RetrievalTask, encode: EncodeFn, search: SearchFn, dims: Sequence[int]) -> Scores:
    """Returns the scores of exact cosine search at every size. Queries without a relevant document are left out, as in MTEB."""
    asked = [i for i, q in enumerate(task.query_ids) if any(g > 0 for g in task.qrels.get(q, {}).values())]
    queries = _checked(encode([task.queries[i] for i in asked], prompt=task.prompt), task)
    corpus = _checked(encode(task.corpus, prompt="document", titles=task.titles), task)
    scores = {}
    for dim in dims:
        found, places = search(truncate_numpy(queries, dim), truncate_numpy(corpus, dim), DEPTH)
        rankings = {
            task.query_ids[i]: metrics.ranked([task.corpus_ids[p] for p in row_places], row)
            for i, row, row_places in zip(asked, found, places)
        }
        scores[str(dim)] = metrics.retrieval_scores(rankings, task.qrels)
    return scores


def score_sts(task: StsTask, encode: EncodeFn, search: SearchFn, dims: Sequence[int]) -> Scores:
    """Returns the correlation of cosines with the gold scores at every size."""
    del search
    first, second = (_checked(encode(side, prompt=task.prompt), task) for side in (task.first, task.second))
    return {str(d): metrics.sts_scores(truncate_numpy(first, d), truncate_numpy(second, d), task.gold) for d in dims}


_SCORERS = {"retrieval": score_retrieval, "sts": score_sts}


def score(
    tasks: Sequence[Task],
    encode: EncodeFn,
    search: SearchFn,
    dims: Sequence[int],
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Scores]:
    """Returns {task: {dimension: {metric: value}}}."""
    found = {}
    for task in tasks:
        found[task.name] = _SCORERS[task.type](task, encode, search, dims)
        main = metrics.MAIN[task.type]
        say(f"{task.name}: {main} {found[task.name][str(dims[0])][main]:.4f} at {dims[0]} dimensions")
    return found


def main_metric(task: Task) -> str:
    """Returns the metric that stands for a task of this type, as in MTEB."""
    return metrics.MAIN[task.type]


def unjudged(task: Task) -> int:
    """Returns how many queries have no relevant document and are left out."""
    if task.type != "retrieval":
        return 0
    return sum(not any(g > 0 for g in task.qrels.get(q, {}).values()) for q in task.query_ids)
