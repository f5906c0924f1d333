"""R@k and MRR of queries of a text and images against loops, what a query is made of, and the folder they are read from."""

import numpy as np
import pytest

from embed.evaluation.mixed_tasks import MixedRetrieval, Query
from embed.evaluation.views import View
from embed.inference.search import top_k
from embed.types import Item

VIEW = View(8)


def drawn(random, count):
    x = random.normal(size=(count, 8)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def made():
    random = np.random.default_rng(3)
    gallery = [Item(images=(f"g{i}.png",)) for i in range(25)]
    queries = []
    for i in range(14):
        count = 1 + i % 2
        text = " ".join([f"word{i % 5}", *(f"[MASK_{k}]" for k in range(count))]) if i != 4 else "[MASK_0]"
        own = frozenset({int(random.integers(25))})
        targets = (
            frozenset(int(x) for x in random.choice(25, 1 + (i == 7), replace=False)) - own or frozenset({24}) - own
        )
        images = tuple(f"e{(i + k) % 6}.png" for k in range(count))
        queries.append(
            Query(Item(text, images=images), targets, own, f"named {i}" if i % 3 else None, {"kind": "ab"[i % 2]})
        )
    task = MixedRetrieval("t", "query", "r1", (), queries=queries, gallery=gallery)
    return task, {name: drawn(random, len(items)) for name, items in task.parts().items()}


def ranks(task, queries, gallery, keep_excluded=False):
    result = []
    for query, vector in zip(task.queries, queries):
        order = np.argsort(-(gallery @ vector), kind="stable").tolist()
        left = [x for x in order if keep_excluded or x not in query.excluded]
        result.append(min(left.index(t) for t in query.targets if t in left) + 1)
    return np.array(result)


def test_scores_are_those_of_loops(made):
    task, vectors = made
    scores = task.score(vectors.__getitem__, VIEW, top_k).scores
    gallery = vectors["gallery"]
    expected = ranks(task, vectors["queries"], gallery)
    for k in (1, 5, 10):
        assert scores[f"r{k}"] == pytest.approx(np.mean(expected <= k))
    assert scores["mrr"] == pytest.approx(np.mean(1 / expected))
    kept = ranks(task, vectors["queries"], gallery, keep_excluded=True)
    assert scores["unfiltered/mrr"] == pytest.approx(np.mean(1 / kept)) and not np.array_equal(kept, expected)
    images = list(dict.fromkeys(x for q in task.queries for x in q.item.images))
    texts = list(dict.fromkeys(f"word{i % 5}" for i in range(14) if i != 4))
    of_images = np.stack([sum(vectors["images"][images.index(x)] for x in q.item.images) for q in task.queries])
    of_images /= np.linalg.norm(of_images, axis=1, keepdims=True)
    of_texts = np.stack([vectors["texts"][texts.index(f"word{i % 5}")] if i != 4 else np.zeros(8) for i in range(14)])
    assert scores["images/mrr"] == pytest.approx(np.mean(1 / ranks(task, of_images, gallery)))
    assert scores["sum/mrr"] == pytest.approx(np.mean(1 / ranks(task, of_images + of_texts, gallery)))
    with_text = [i for i in range(14) if i != 4]
    assert scores["text/mrr"] == pytest.approx(np.mean(1 / ranks(task, of_texts, gallery)[with_text]))
    named = [i for i in range(14) if i % 3]
    of_names = np.zeros((14, 8), np.float32)
    of_names[named] = vectors["unmasked"]
    assert scores["unmasked/mrr"] == pytest.approx(np.mean(1 / ranks(task, of_names, gallery)[named]))
    one = np.array([i for i in range(14) if i % 2 == 0])
    assert scores["r1/1 image"] == pytest.approx(np.mean(expected[one] <= 1)) == scores["r1/kind a"]
    assert scores["images/r1/2 images"] == pytest.approx(np.mean(ranks(task, of_images, gallery)[one + 1] <= 1))


def test_the_parts_ask_for_each_item_once(made):
    parts = made[0].parts()
    assert [len(parts[name]) for name in ("queries", "images", "texts", "gallery")] == [14, 6, 5, 25]
    assert parts["texts"].items[0] == "word0" and parts["images"].items[0] == Item(images=("e0.png",))
