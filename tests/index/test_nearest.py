"""The graph alone: what is written is read, candidates are near, and a file that is none is refused."""

import sys

import numpy as np
import pytest

from embed.errors import DataError, UsageError
from embed.index import nearest

OPTIONS = {"connectivity": 8, "expansion_add": 64, "expansion_search": 64}


def test_a_written_graph_gives_the_same_candidates(tmp_path, vectors):
    corpus, queries = vectors(300), vectors(20, seed=1)
    graph, counted = nearest.empty(8, **OPTIONS), []
    nearest.add(graph, corpus, 0, counted.append)
    assert sum(counted) == 300
    nearest.write(graph, tmp_path / "g")
    exact = np.argsort(-(queries @ corpus.T), axis=1)[:, :10]
    for again in (graph, nearest.opened(tmp_path / "g", OPTIONS, 8)):
        candidates = nearest.candidates(again, queries, 20)
        assert candidates.shape == (20, 20)
        assert np.mean([np.isin(e, c).mean() for e, c in zip(exact, candidates)]) > 0.95


def test_more_than_there_are_is_all(vectors):
    graph = nearest.empty(8, **OPTIONS)
    nearest.add(graph, vectors(3), 0, lambda count: None)
    assert sorted(nearest.candidates(graph, vectors(1), 10)[0].tolist()) == [0, 1, 2]


def test_what_is_no_graph_is_refused(tmp_path):
    (tmp_path / "g").write_bytes(b"something else")
    with pytest.raises(DataError, match="usearch cannot read it"):
        nearest.opened(tmp_path / "g", OPTIONS, 8)


def test_without_the_package_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(UsageError, match=r"pip install 'embed\[search\]'"):
        nearest.empty(8, **OPTIONS)
