"""BM25, the baseline every retrieval model has to face; by the library bm25s (extra [bm25])."""

import logging
import re
import unicodedata
from collections.abc import Sequence

from embed.errors import UsageError
from embed.evaluation import ranking
from embed.evaluation.ranked_tasks import Reranking, Retrieval
from embed.evaluation.tasks import Scored, Task

K1, B = 1.2, 0.75
# snake_case and camelCase are taken apart, so that code is searched by its words.
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")
DESCRIPTION = f"bm25s, k1 {K1}, b {B}, lower-cased words, identifiers taken apart, no stop words or stemming"


def words(text: str) -> list[str]:
    """Returns the lower-cased words and numbers of a text; combining marks belong to the word they stand in."""
    apart = _CAMEL.sub(" ", text)
    kept = (c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in apart)
    return "".join(kept).lower().split()


def applies(task: Task) -> bool:
    """Returns whether the task ranks texts by a text."""
    if isinstance(task, Retrieval):
        return all(isinstance(item, str) for item in (*task.queries, *task.corpus))
    return isinstance(task, Reranking)


def score(task: Retrieval | Reranking) -> Scored:
    """Returns BM25's scores; prompts play no part. Candidates of a reranking task are weighed within all candidates."""
    if isinstance(task, Reranking):
        everything = [c for candidates in task.candidates for c in candidates]
        values, start, scored = _values(everything, task.queries), 0, []
        for candidates, row in zip(task.candidates, values):
            scored.append(row[start : start + len(candidates)])
            start += len(candidates)
        return task.of_scores(scored)
    documents = [f"{t} {d}" for t, d in zip(task.titles, task.corpus)]
    index = {identity: k for k, identity in enumerate(task.corpus_ids)}
    rankings = {}
    for i, row in zip(task.asked, _values(documents, [task.queries[i] for i in task.asked])):
        query = task.query_ids[i]
        if task.candidates is None:
            ranked = sorted(range(len(documents)), key=lambda k, row=row: -row[k])[: task.rules.depth]
        else:
            ranked = [index[d] for d in dict.fromkeys(task.candidates.get(query, ()))]
        rankings[query] = ranking.scored([task.corpus_ids[k] for k in ranked], [row[k] for k in ranked])
    return task.of_rankings(rankings)


def _values(documents: Sequence[str], queries: Sequence[str]):
    """Yields the score of every document for each query."""
    try:
        import bm25s
    except ImportError as e:
        raise UsageError("the BM25 baseline needs a package; run: pip install 'embed[bm25]'") from e
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs its progress at the level of debugging
    vocabulary: dict[str, int] = {}
    corpus = [[vocabulary.setdefault(w, len(vocabulary)) for w in words(d)] for d in documents]
    if not vocabulary:
        yield from ([0.0] * len(documents) for _ in queries)
        return
    index = bm25s.BM25(k1=K1, b=B)
    index.index(bm25s.tokenization.Tokenized(ids=corpus, vocab=vocabulary), show_progress=False)
    for text in queries:
        known = [vocabulary[w] for w in words(text) if w in vocabulary]
        yield index.get_scores_from_ids(known) if known else [0.0] * len(documents)
