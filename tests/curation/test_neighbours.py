"""Neighbours in parts: those of one search, and of a search that was interrupted."""

import numpy as np
import pytest

from embed.curation import neighbours
from embed.curation.neighbours import Neighbours
from embed.errors import DataError
from embed.inference.search import top_k


@pytest.fixture
def vectors():
    random = np.random.default_rng(0)
    made = random.standard_normal((130 + 70, 8)).astype(np.float32)
    return made[:130], made[130:]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(neighbours, "PART", 50)


def test_each_query_has_the_neighbours_of_one_search(tmp_path, vectors):
    queries, corpus = vectors
    found = Neighbours(tmp_path, 130, 7)
    found.find(queries, corpus, top_k)
    scores, numbers = top_k(queries, corpus, 7)
    for i in (0, 129, 49, 50, 77, 3):
        np.testing.assert_array_equal(found[i][0], scores[i])
        np.testing.assert_array_equal(found[i][1], numbers[i])


@pytest.mark.parametrize("hosts", [2, 3, 4])
def test_hosts_share_the_parts(tmp_path, vectors, hosts):
    queries, corpus = vectors
    for host in range(hosts):
        Neighbours(tmp_path, 130, 7).find(queries, corpus, top_k, host, hosts)
    scores, _ = top_k(queries, corpus, 7)
    found = Neighbours(tmp_path, 130, 7)
    np.testing.assert_array_equal(np.stack([found[i][0] for i in range(130)]), scores)


def test_what_was_found_is_not_searched_again(tmp_path, vectors):
    queries, corpus = vectors
    searched, told = [], []

    def search(some, corpus, k):
        searched.append(len(some))
        if len(searched) == 2:
            raise KeyboardInterrupt
        return top_k(some, corpus, k)

    with pytest.raises(KeyboardInterrupt):
        Neighbours(tmp_path, 130, 7).find(queries, corpus, search)
    Neighbours(tmp_path, 130, 7).find(queries, corpus, search, progress=lambda n, before: told.append((n, before)))
    assert searched == [50, 50, 50, 30]
    assert told == [(50, True), (50, False), (30, False)]


@pytest.mark.parametrize("name", ["part-00001.npz", "part-00001.json"])
def test_a_damaged_part_is_searched_again(tmp_path, vectors, name):
    queries, corpus = vectors
    Neighbours(tmp_path, 130, 7).find(queries, corpus, top_k)
    whole = (tmp_path / name).read_bytes()
    for damaged in (None, whole[:-3], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        (tmp_path / name).unlink() if damaged is None else (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=name):
            Neighbours(tmp_path, 130, 7)[60]
        np.testing.assert_array_equal(Neighbours(tmp_path, 130, 7)[10][1], top_k(queries[10:11], corpus, 7)[1][0])
        lines, told = [], []
        Neighbours(tmp_path, 130, 7).find(
            queries, corpus, top_k, progress=lambda *x, t=told: t.append(x), say=lines.append
        )
        assert told == [(50, True), (50, False), (30, True)]
        assert [name in line and "searched again" in line for line in lines] == [True] * (
            damaged is not None or ".npz" in name
        )
        assert (tmp_path / name).read_bytes() == whole


def test_parts_of_another_search_are_searched_again(tmp_path, vectors):
    queries, corpus = vectors
    Neighbours(tmp_path, 130, 7, "one").find(queries, corpus, top_k)
    with pytest.raises(DataError, match="of another part or job"):
        Neighbours(tmp_path, 130, 7, "two")[0]
    lines = []
    Neighbours(tmp_path, 130, 7, "two").find(queries[::-1], corpus, top_k, say=lines.append)
    assert len(lines) == 3
    np.testing.assert_array_equal(Neighbours(tmp_path, 130, 7, "two")[0][1], top_k(queries[-1:], corpus, 7)[1][0])
