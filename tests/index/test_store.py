"""An index against numpy over all of its documents: segments, removals, the graph; and every damage to its files."""

import json
import random
import shutil

import corruption
import numpy as np
import pytest

from embed.errors import DataError, EmbedError, UsageError
from embed.index import nearest, store

# As broad as the index is large, so that every document is found.
OPTIONS = {"connectivity": 8, "expansion_add": 512, "expansion_search": 512}


def by_numpy(index, parts, queries, k):
    """Returns the (id, cosine) of the nearest documents that are not removed, best first."""
    every = np.concatenate(parts)
    scores = queries @ every.T
    scores[:, index.removed] = -np.inf
    order = np.argsort(-scores, axis=1)[:, :k]
    return [[(int(n), float(s[n])) for n in row if np.isfinite(s[n])] for row, s in zip(order, scores)]


def check(index, parts, queries, k, **options):
    for best, expected in zip(index.search(queries, k, **options), by_numpy(index, parts, queries, k), strict=True):
        assert [n for _, n in best] == [n for n, _ in expected]
        np.testing.assert_allclose([s for s, _ in best], [s for _, s in expected], atol=1e-6)


def without(index, ids):
    numbers = index.find(ids)
    assert set(numbers) == set(ids)
    store.commit(index.folder, store.with_removed(index, list(numbers.values())))
    return store.open_index(index.folder)


def with_graph(index, options=OPTIONS, queries=None):
    store.commit(index.folder, store.with_graph(index, options, lambda count: None, queries))
    return store.open_index(index.folder)


def test_search_over_segments_and_removals_is_numpys(make_index, vectors):
    parts, queries = [vectors(40), vectors(7, seed=1)], vectors(5, seed=2)
    index = make_index(*parts)
    check(index, parts, queries, 6)
    assert [index.row(n)["id"] for n in (0, 39, 40, 46)] == ["a0", "a39", "b0", "b6"]
    first = index.row(index.search(queries[:1], 1)[0][0][1])["id"]
    index = without(index, [first, "b3"])
    assert len(index) == 45 and index.find([first, "b2"]) == {"b2": 42}
    check(index, parts, queries, 50)
    index = without(index, ["a1"])
    assert index.removed.tolist() == sorted(index.removed) and len(index.removed) == 3
    assert len(list(index.folder.glob("removed-*"))) == 1
    with pytest.raises(IndexError):
        index.row(47)


def test_the_graph_finds_the_same_and_takes_in_what_comes_later(make_index, vectors):
    parts, queries = [vectors(200), vectors(60, seed=1)], vectors(9, seed=2)
    index = make_index(*parts)
    with pytest.raises(UsageError, match="has no graph of all documents; run: embed index"):
        index.search(queries, 3, exact=False)
    index = with_graph(index)
    graph = index.description["graph"]
    assert graph["recall"] == 1.0 and graph["queries"] == 256 and graph["texts"] == 260
    check(index, parts, queries, 5)
    # The nearest of a query are removed: others come up in their places.
    gone = [index.row(n)["id"] for _, n in index.search(queries[:1], 40)[0]]
    index = without(index, gone)
    check(index, parts, queries, 5)
    check(index, parts, queries, 5, exact=True)
    index = with_graph(index, {**OPTIONS, "connectivity": 16}, queries)
    assert index.description["graph"]["queries"] == 9 and len(list(index.folder.glob("graph-*"))) == 1
    check(index, parts, queries, 5)


def test_a_graph_of_fewer_documents_is_completed(make_index, new_segment, vectors):
    index = with_graph(make_index(vectors(30)))
    path = store.segment_folder(index.folder, index.description)
    segment = new_segment(path, vectors(10, seed=3), "b")
    store.commit(index.folder, {**index.description, "segments": [*index.description["segments"], segment]})
    # As after a kill between the two: what was added is found, though the graph does not have it.
    index = store.open_index(index.folder)
    check(index, [vectors(30), vectors(10, seed=3)], vectors(10, seed=3), 1)
    with pytest.raises(UsageError, match="has no graph of all documents"):
        index.search(vectors(1), 1, exact=False)
    index = with_graph(index)
    assert index.description["graph"]["texts"] == 40
    check(index, [vectors(30), vectors(10, seed=3)], vectors(4, seed=2), 5)


def test_recall_is_measured_against_exact_search(make_index, vectors, monkeypatch):
    index = make_index(vectors(50))
    monkeypatch.setattr(nearest, "candidates", lambda graph, queries, k: np.zeros((len(queries), 1), int))
    assert store.with_graph(index, OPTIONS, lambda count: None)["graph"]["recall"] < 0.2
    # A graph that finds each document for itself, and nothing else, has found no neighbour.
    monkeypatch.setattr(nearest, "candidates", lambda graph, queries, k: np.arange(50)[:, None])
    assert store.with_graph(index, OPTIONS, lambda count: None)["graph"]["recall"] == 0.0


def test_an_index_that_is_not_there_or_not_finished(tmp_path, make_index, vectors):
    with pytest.raises(DataError, match="holds no index; run: embed index"):
        store.open_index(tmp_path)
    index = make_index(vectors(3))
    (index.folder / store.INDEX).unlink()
    with pytest.raises(DataError, match="is not finished; run the command that makes it again"):
        store.open_index(index.folder)


def test_files_are_hashed_once_and_again_when_they_change(make_index, vectors, monkeypatch):
    index = make_index(vectors(20))
    hashed = []
    check_files = store.digests.check_files
    monkeypatch.setattr(store.digests, "check_files", lambda *given: (hashed.append(1), check_files(*given)))
    store.open_index(index.folder)
    assert not hashed
    path = index.folder / "segment-00000" / "documents.jsonl"
    path.write_bytes(path.read_bytes())
    store.open_index(index.folder)
    assert hashed == [1]
    said = []
    copied = index.folder.with_name("copied")
    shutil.copytree(index.folder, copied)
    store.open_index(copied, said.append)
    assert hashed == [1, 1] and not said  # small


@pytest.mark.parametrize("seed", range(40))
def test_damage_is_an_error_or_changes_nothing(make_index, vectors, seed, tmp_path):
    parts, queries = [vectors(30), vectors(5, seed=1)], vectors(3, seed=2)
    index = with_graph(without(make_index(*parts), ["a4"]))
    other = make_index(vectors(30, seed=7), name="other")
    answers = [[(n, index.row(n)) for _, n in best] for best in index.search(queries, 4)]
    what = corruption.damage(index.folder, random.Random(seed), other.folder)
    try:
        again = store.open_index(index.folder)
        assert [[(n, again.row(n)) for _, n in best] for best in again.search(queries, 4)] == answers, what
    except EmbedError as e:
        assert str(index.folder) in str(e), what


def test_an_index_of_a_later_version_is_refused(make_index, vectors):
    index = make_index(vectors(3))
    path = index.folder / store.INDEX
    description = {**json.loads(path.read_text()), "format": 2}
    path.write_text(json.dumps(store.digests.sealed(description)))
    with pytest.raises(DataError):
        store.open_index(index.folder)
