"""BM25, the baseline every retrieval model has to face; by the library bm25s (extra [bm25])."""

import re
import unicodedata

from embed.errors import UsageError
from embed.evaluation import metrics
from embed.evaluation.runner import DEPTH
from embed.evaluation.suites import RetrievalTask

K1, B = 1.2, 0.75
# snake_case and camelCase are taken apart, so that code is searched by its words.
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")
DESCRIPTION = f"bm25s, k1 {K1}, b {B}, lower-cased words, identifiers taken apart, no stop words or stemming"


def words(text: str) -> list[str]:
    """Returns the lower-cased words and numbers of a text; combining marks belong to the word they stand in."""
    apart = _CAMEL.sub(" ", text)
    kept = (c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in apart)
    return "".join(kept).lower().split()


def score_bm25(task: RetrievalTask) -> dict[str, float]:
    """Returns BM25's scores on a retrieval task; prompts play no part."""
    try:
        import bm25s
    except ImportError as e:
        raise UsageError("the BM25 baseline needs a package; run: pip install 'embed[bm25]'") from e
    vocabulary: dict[str, int] = {}
    corpus = [
        [vocabulary.setdefault(w, len(vocabulary)) for w in words(f"{t} {d}")] for t, d in zip(task.titles, task.corpus)
    ]
    index = bm25s.BM25(k1=K1, b=B)
    index.index(bm25s.tokenization.Tokenized(ids=corpus, vocab=vocabulary), show_progress=False)
    rankings = {}
    asked = [(q, text) for q, text in zip(task.query_ids, task.queries) if task.qrels.get(q)]
    for query, text in asked:
        known = [vocabulary[w] for w in words(text) if w in vocabulary]
        scores = index.get_scores_from_ids(known) if known else [0.0] * len(corpus)
        best = sorted(range(len(corpus)), key=lambda i: -scores[i])[:DEPTH]
        rankings[query] = metrics.ranked([task.corpus_ids[i] for i in best], [scores[i] for i in best])
    return metrics.retrieval_scores(rankings, task.qrels)
