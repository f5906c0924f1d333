"""R@1 and mMP@5 against loops, in a merged and in separate indexes; a query does not find itself."""

import numpy as np
import pytest

from embed.evaluation.universal_tasks import Domain, UniversalRetrieval, of_specialists
from embed.evaluation.views import PRECISIONS, View
from embed.inference.search import top_k
from embed.types import Item

SIZES = {"cars": (9, None, 3), "food": (14, 6, 4), "toys": (7, None, 2)}


def drawn(random, count):
    x = random.normal(size=(count, 8)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def made():
    """Three domains with equal labels in all of them: a task and the vectors of its parts."""
    random, domains, vectors = np.random.default_rng(4), {}, {}
    for name, (count, queries, labels) in SIZES.items():
        items = [Item(images=(f"{name}{i}.png",)) for i in range(count)]
        of_index = [f"label {x}" for x in random.integers(0, labels, count)]
        vectors[f"index {name}"] = drawn(random, count)
        given = ()
        if queries:
            of_queries = [f"label {x}" for x in random.integers(0, labels + 1, queries)]
            of_queries[2] = ("label 0", "label 2", "in no index")  # a query of several
            vectors[f"queries {name}"] = drawn(random, queries)
            given = (items[:queries], of_queries)
        domains[name] = Domain(items, of_index, *given)
    return UniversalRetrieval("t", "none", "r1", (), domains=domains), vectors


def by_loops(task, vectors, merged: bool):
    """Returns {domain: (R@1, mMP@5, AP of each query)} of queries with something to find."""
    index = [(d, i) for d, domain in task.domains.items() for i in range(len(domain.index))]
    result = {}
    for name, domain in task.domains.items():
        itself = domain.queries is None
        queries = vectors[f"index {name}" if itself else f"queries {name}"]
        r1, mmp, ap = [], [], []
        for q, labels in enumerate(domain.labels):
            others = [(d, i) for d, i in index if (merged or d == name) and not (itself and (d, i) == (name, q))]
            values = [float(np.float64(queries[q]) @ vectors[f"index {d}"][i]) for d, i in others]
            ranked = [others[k] for k in np.argsort(-np.array(values), kind="stable")]
            is_hit = [d == name and task.domains[d].index_labels[i] in labels for d, i in ranked]
            if sum(is_hit):
                count = min(sum(is_hit), 5)
                r1.append(float(is_hit[0]))
                mmp.append(sum(is_hit[:count]) / count)
                ap.append(sum(sum(is_hit[: k + 1]) / (k + 1) for k, hit in enumerate(is_hit) if hit) / sum(is_hit))
        result[name] = (r1, mmp, ap)
    return result


@pytest.mark.parametrize("merged", [True, False])
def test_the_scores_are_those_of_loops(made, merged):
    task, vectors = made
    scores = task.score(vectors.__getitem__, View(8), top_k).scores
    expected, suffix = by_loops(task, vectors, merged), "" if merged else "_separate"
    for number, metric in enumerate(("r1", "mmp_at_5", "map_at_1000")):
        of_domains = {name: np.mean(values[number]) for name, values in expected.items()}
        assert scores[f"{metric}{suffix}"] == pytest.approx(np.mean(list(of_domains.values())), abs=1e-12)
        for name, value in of_domains.items():
            assert scores[f"{metric}{suffix}/{name}"] == pytest.approx(value, abs=1e-12)


@pytest.mark.slow
def test_specialists_are_each_in_their_own_index(made):
    task, vectors = made
    scores = {}
    for seed, name in enumerate(task.domains):
        random = np.random.default_rng(seed)
        turned = {part: x @ np.linalg.qr(random.normal(size=(8, 8)))[0][:, :4] for part, x in vectors.items()}
        scores[name] = task.score(turned.__getitem__, View(4), top_k).scores
    found = of_specialists(list(task.domains), scores)
    own = [scores[name][f"r1_separate/{name}"] for name in task.domains]
    assert found["r1"] == found["r1_separate"] == pytest.approx(np.mean(own)) and found["r1/food"] == own[1]
    assert found["map_at_1000"] != found["r1"]


@pytest.mark.slow
def test_the_merged_index_never_finds_more(made):
    task, vectors = made
    scores = task.score(vectors.__getitem__, View(8), top_k).scores
    assert scores["r1"] <= scores["r1_separate"] and scores["mmp_at_5"] <= scores["mmp_at_5_separate"]


@pytest.mark.slow
def test_the_sample_is_the_mean_of_the_domains(made):
    task, vectors = made
    scored = task.score(vectors.__getitem__, View(8), top_k)
    assert scored.sample.of(np.arange(len(scored.sample))) == pytest.approx(scored.scores["r1"], abs=1e-12)
    ((panel,),) = scored.pictures()
    assert panel.png.startswith(b"\x89PNG") and "cars, food, toys" in panel.label and " for " in panel.text


@pytest.mark.slow
def test_a_query_with_the_same_image_as_the_index_does_not_find_it(made):
    """Naming every image of an index as a query is the same as naming none; a few of them are asked like those."""
    task, vectors = made
    cars, rows = task.domains["cars"], [3, 0, 5]
    asked = Domain(cars.index, cars.index_labels, cars.index, cars.index_labels, range(len(cars.index)))
    vectors = {**vectors, "queries cars": vectors["index cars"]}
    scores = task.score(vectors.__getitem__, View(8), top_k).scores
    named = UniversalRetrieval("t", "none", "r1", (), domains={**task.domains, "cars": asked})
    assert named.score(vectors.__getitem__, View(8), top_k).scores == scores
    # A query that is not in the index beside one that is: the first hits of either are its own.
    few = [cars.index_labels[row] for row in rows]
    mixed = Domain(cars.index, cars.index_labels, [cars.index[row] for row in rows], few, [3, -1, 5])
    apart = [Domain(cars.index, cars.index_labels, mixed.queries, few, own) for own in ([3, 0, 5], [-1, -1, -1])]
    vectors["queries cars"] = vectors["index cars"][rows]
    found = []
    for domain in (mixed, *apart):
        one = UniversalRetrieval("t", "none", "r1", (), domains={**task.domains, "cars": domain})
        scored = one.score(vectors.__getitem__, View(8), top_k)
        found.append(scored.sample.values[: len(rows)])
    assert list(found[0]) == [found[1][0], found[2][1], found[1][2]]


def test_bits_rescored_are_ordered_by_the_query_in_float32():
    """Of images whose bits are equally far from the query's, the nearest by the float32 query comes first, not the first one."""
    index = {"a": np.array([[-0.1, 0.7, 0.7], [0.8, 0.5, -0.1]]), "b": -np.ones((2, 3))}
    queries = np.array([[0.9, 0.3, 0.3]])
    unit = lambda x: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)  # noqa: E731
    images = [Item(images=("0.png",)), Item(images=("1.png",))]
    domains = {"a": Domain(images, ["far", "near"], images[:1], ["near"]), "b": Domain(images, ["x", "x"])}
    task = UniversalRetrieval("t", "none", "r1", (), domains=domains)
    vectors = {"index a": unit(index["a"]), "queries a": unit(queries), "index b": unit(index["b"])}
    scores = {p: task.score(vectors.__getitem__, View(3, p), top_k).scores["r1/a"] for p in PRECISIONS}
    assert scores == {"float32": 1, "int8": 1, "binary": 0, "binary-rescored": 1}
