"""Stand-in models, a plain search, a runner for one task, and made-up results that several files use."""

import hashlib

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from embed.evaluation import runner
from embed.evaluation.embeddings import Embeddings
from embed.evaluation.suites import Suite
from embed.evaluation.views import View


@pytest.fixture(autouse=True)
def one_thread():
    """Fits of a few points are slower by many threads, and much slower beside another job."""
    with threadpool_limits(1):
        yield


class StandIn:
    """A model whose vectors depend on every input alone; it remembers what it was asked. `constant` gives all the same."""

    def __init__(self, dim: int = 12, constant: bool = False):
        self.dim, self._constant = dim, constant
        self.calls: list[tuple[list[str], str, list[str] | None]] = []  # texts, prompt, titles where there are any

    def vector(self, text: str, prompt: str, title: str = "") -> np.ndarray:
        content = "the same" if self._constant else f"{text}|{prompt}|{title}"
        seed = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")
        x = np.random.default_rng(seed).standard_normal(self.dim)
        return (x / np.linalg.norm(x)).astype(np.float32)

    def vectors(self, texts, prompt, titles=None) -> np.ndarray:
        titles = titles or [""] * len(texts)
        return np.array([self.vector(t, prompt, s) for t, s in zip(texts, titles)]).reshape(len(texts), self.dim)

    def __call__(self, items, *, prompt, progress):
        texts, titles = [item.text for item in items], [item.title or "" for item in items]
        self.calls.append((texts, prompt, titles if any(titles) else None))
        progress(len(texts))
        return self.vectors(texts, prompt, titles)


def plain_search(queries, corpus, k):
    """Returns the k largest inner products by a sort; of equal ones the first."""
    scores = np.array([[np.dot(c.astype(np.float64), q) for c in corpus] for q in queries]).reshape(len(queries), -1)
    places = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, places, 1), places


@pytest.fixture
def make_model():
    """The class of stand-in models."""
    return StandIn


@pytest.fixture
def search():
    """A plain exact search."""
    return plain_search


@pytest.fixture
def score():
    """A function that runs one task with a model and returns (scores, sample) of each view."""

    def scored(task, model, *views, search=plain_search):
        served = [v if isinstance(v, View) else View(v) for v in views or (model.dim,)]
        suite = Suite("made up", [task], {task.name: task.type}, "digest")
        found = runner.run(suite, Embeddings(model, lambda prompt: prompt), served, search)
        own = [(found.scores[task.name][v.name], found.samples[task.name][v.name]) for v in served]
        return own if len(own) > 1 else own[0]

    return scored


def made_up(ndcg: float) -> dict:
    return {"ndcg_at_10": ndcg, "mrr_at_10": ndcg / 2}


@pytest.fixture
def results() -> dict:
    """The content of a results.json: a model at three views, one that lacks a task, and BM25."""
    views = [
        {"name": "128", "dim": 128, "precision": "float32", "bytes": 512},
        {"name": "64", "dim": 64, "precision": "float32", "bytes": 256},
        {"name": "128 int8", "dim": 128, "precision": "int8", "bytes": 132},
        {"name": "64 int8", "dim": 64, "precision": "int8", "bytes": 68},
    ]
    foxes = {"128": 0.5, "64": 0.45, "128 int8": 0.4975, "64 int8": 0.44}
    pairs = {"128": 0.81234, "64": 0.8, "128 int8": -0.05, "64 int8": 0.7}
    means = {
        v: {
            "retrieval": foxes[v],
            "sts": pairs[v],
            "mean of the types": (foxes[v] + pairs[v]) / 2,
            "mean of the tasks": (foxes[v] + pairs[v]) / 2,
        }
        for v in foxes
    }
    return {
        "format": 3,
        "samples_digest": "0",
        "suite": "mine",
        "suite_digest": "d1a2b3c4",
        "command": ["embed", "evaluate", "small=runs/a b", "--suite=mine.json"],
        "environment": {
            "embed": "1.2.3",
            "python": "3.11.9",
            "platform": "Linux-6",
            "packages": {"jax": "0.10.1", "seqio": None},
            "devices": {"kind": "TPU v5e", "count": 4, "processes": 1},
        },
        "tasks": {
            "foxes": {
                "type": "retrieval",
                "group": "retrieval",
                "main": "ndcg_at_10",
                "languages": ["en"],
                "notes": [],
            },
            "pairs": {"type": "sts", "group": "sts", "main": "cosine_spearman", "languages": ["de"], "notes": []},
        },
        "models": {
            "small": {
                "model": "runs/a b",
                "digest": "0123456789abcdef0123456789",
                "dtype": "float32",
                "max_length": 256,
                "texts": {"all": 1234, "embedded_now": 0, "cut_at_max_length": 56},
                "prompts": {
                    "foxes": {
                        "queries": "task: search result | query: {content}",
                        "corpus": "title: {title} | {content}",
                    },
                    "pairs": {"first": "similar: {content}", "second": "similar: {content}"},
                },
                "views": views,
                "results": {
                    "foxes": {v: made_up(x) for v, x in foxes.items()},
                    "pairs": {v: {"cosine_spearman": x, "cosine_pearson": 0.3} for v, x in pairs.items()},
                },
                "intervals": {"foxes": {"128": [0.4, 0.6]}, "pairs": {"128": [0.75, 0.86]}},
                "means": means,
            },
            "a longer name": {
                "model": "runs/b",
                "views": views[:1],
                "results": {"foxes": {"128": made_up(0.6)}},
                "intervals": {"foxes": {"128": [0.5, 0.7]}},
                "means": {"128": {"retrieval": 0.6, "mean of the types": 0.6, "mean of the tasks": 0.6}},
            },
            "bm25": {
                "model": "bm25s, k1 1.2",
                "results": {"foxes": {"all": made_up(0.4)}},
                "means": {"all": {"retrieval": 0.4}},
            },
        },
    }
