"""Scoring with stand-in encoders: the same numbers as a direct computation, each text encoded once."""

import hashlib

import numpy as np
import pytest
from scipy import stats

from embed.errors import NumericError
from embed.evaluation import metrics, runner, suites
from embed.inference import search

DIM = 12


def vector(text: str, prompt: str, title: str = "") -> np.ndarray:
    """Returns a unit vector that depends on every input alone."""
    seed = int.from_bytes(hashlib.sha256(f"{text}|{prompt}|{title}".encode()).digest()[:4], "big")
    x = np.random.default_rng(seed).standard_normal(DIM)
    return (x / np.linalg.norm(x)).astype(np.float32)


class Encode:
    """A stand-in model that remembers what it was asked."""

    def __init__(self, change=lambda texts, vectors: vectors):
        self.calls = []
        self._change = change

    def __call__(self, texts, *, prompt, titles=None):
        self.calls.append((list(texts), prompt, titles))
        titles = titles or [""] * len(texts)
        return self._change(
            texts, np.array([vector(t, prompt, s) for t, s in zip(texts, titles)]).reshape(len(texts), DIM)
        )


def plain_search(queries, corpus, k):
    scores = queries @ corpus.T
    places = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, places, 1), places


def retrieval_task(count: int = 130, asked: int = 20) -> suites.RetrievalTask:
    draw = np.random.default_rng(0)
    qrels = {
        f"q{i}": {f"d{j}": float(draw.integers(0, 3)) for j in draw.choice(count, 4, replace=False)}
        for i in range(asked)
    }
    qrels["q3"] = {"d1": 0.0}
    del qrels["q5"]
    return suites.RetrievalTask(
        name="r",
        prompt="code retrieval",
        query_ids=[f"q{i}" for i in range(asked)],
        queries=[f"query {i}" for i in range(asked)],
        corpus_ids=[f"d{j}" for j in range(count)],
        corpus=[f"text {j}" for j in range(count)],
        titles=[f"title {j}" if j % 2 else "" for j in range(count)],
        qrels=qrels,
    )


def sts_task() -> suites.StsTask:
    gold = np.random.default_rng(1).uniform(0, 5, 30)
    return suites.StsTask(
        "s", "sentence similarity", [f"a {i}" for i in range(30)], [f"b {i}" for i in range(30)], list(gold)
    )


def cut(x: np.ndarray, dim: int) -> np.ndarray:
    x = x[:, :dim].astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("find", [plain_search, search.top_k])
def test_retrieval_equals_a_direct_computation(find):
    task = retrieval_task()
    found = runner.score([task], Encode(), find, [DIM, 4, 1])["r"]
    assert list(found) == ["12", "4", "1"]
    judged = [q for q in task.query_ids if any(g > 0 for g in task.qrels.get(q, {}).values())]
    assert len(judged) == 18
    queries = np.stack([vector(f"query {q[1:]}", "code retrieval") for q in judged])
    corpus = np.stack([vector(c, "document", t) for c, t in zip(task.corpus, task.titles)])
    for dim in (DIM, 4):
        scores = cut(queries, dim) @ cut(corpus, dim).T
        rankings = {q: [f"d{j}" for j in np.argsort(-row)] for q, row in zip(judged, scores)}
        assert found[str(dim)] == pytest.approx(metrics.retrieval_scores(rankings, task.qrels), abs=1e-9)


def test_sts_equals_a_direct_computation():
    task = sts_task()
    found = runner.score([task], Encode(), plain_search, [DIM, 4])["s"]
    first, second = (np.stack([vector(t, "sentence similarity") for t in side]) for side in (task.first, task.second))
    for dim in (DIM, 4):
        cosine = np.sum(cut(first, dim) * cut(second, dim), 1)
        assert found[str(dim)]["cosine_spearman"] == pytest.approx(
            stats.spearmanr(cosine, task.gold).statistic, abs=1e-9
        )
        assert found[str(dim)]["cosine_pearson"] == pytest.approx(stats.pearsonr(cosine, task.gold).statistic, abs=1e-6)


def test_each_text_is_encoded_once_for_all_sizes():
    encode = Encode()
    runner.score([retrieval_task(), sts_task()], encode, plain_search, [DIM, 8, 4, 2])
    (queries, query_prompt, query_titles), (corpus, prompt, titles), first, second = encode.calls
    task = retrieval_task()
    assert query_prompt == "code retrieval" and not query_titles
    assert "query 3" not in queries and "query 5" not in queries and len(queries) == 18
    assert (corpus, prompt, titles) == (task.corpus, "document", task.titles)
    assert first[:2] == (sts_task().first, "sentence similarity") and second[:2] == (
        sts_task().second,
        "sentence similarity",
    )


def test_equal_scores_are_ranked_by_falling_id():
    task = suites.RetrievalTask("r", "query", ["q"], ["x"], ["a", "c", "b"], ["same"] * 3, [""] * 3, {"q": {"c": 1.0}})
    assert runner.score([task], Encode(), search.top_k, [DIM])["r"]["12"]["recall_at_1"] == 1.0
    task.qrels["q"] = {"a": 1.0}
    assert runner.score([task], Encode(), search.top_k, [DIM])["r"]["12"]["mrr_at_10"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["query 2", "text 7", "a 4", "b 4"])
def test_embeddings_that_are_not_finite_cannot_be_scored(bad, where):
    def spoil(texts, vectors):
        vectors[[t == where for t in texts], 5] = bad
        return vectors

    task = retrieval_task() if where.startswith(("query", "text")) else sts_task()
    with pytest.raises(NumericError, match=rf"'{task.name}': 1 of \d+ embeddings are not finite") as caught:
        runner.score([task], Encode(spoil), plain_search, [4])
    assert caught.value.exit_code == 70


def test_each_task_is_told_with_its_main_score():
    said = []
    found = runner.score([retrieval_task(), sts_task()], Encode(), plain_search, [DIM, 4], said.append)
    assert said == [
        f"r: ndcg_at_10 {found['r']['12']['ndcg_at_10']:.4f} at 12 dimensions",
        f"s: cosine_spearman {found['s']['12']['cosine_spearman']:.4f} at 12 dimensions",
    ]


def test_queries_left_out_are_counted():
    assert runner.unjudged(retrieval_task()) == 2
    assert runner.unjudged(sts_task()) == 0


def test_a_corpus_smaller_than_the_depth_is_ranked_whole():
    task = suites.RetrievalTask(
        "r", "query", ["q"], ["x"], ["a", "b"], ["t1", "t2"], ["", ""], {"q": {"a": 1.0, "b": 1.0}}
    )
    assert runner.score([task], Encode(), search.top_k, [DIM])["r"]["12"]["recall_at_10"] == 1.0
