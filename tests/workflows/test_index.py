"""An index by a real tiny model: it answers as a search of the corpus does; adding, replacing, removing, a kill."""

import json
import shutil

import numpy as np
import pytest

from embed.errors import DataError, InUse, UsageError
from embed.index import compact as compaction
from embed.index import store
from embed.inference import bulk
from embed.workflows import index as indexes
from embed.workflows import search

QUERIES = ["c d", "a", "k l m"]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(start: int, count: int) -> list[dict]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [f"{letters[i % 26]} {letters[i * 7 % 26]} {letters[i * 3 % 26]}" for i in range(start, start + count)]
    return [{"id": f"n{start + i}", "text": text, "kept": i} for i, text in enumerate(texts)]


@pytest.fixture
def corpus(tmp_path):
    return write(tmp_path / "corpus.jsonl", rows_of(0, 30))


@pytest.fixture
def folder(bundle, corpus, tmp_path, capsys):
    indexes.create(bundle, corpus, tmp_path / "index", dims=8)
    return tmp_path / "index"


def same(results, expected):
    """Documents whose scores differ by rounding alone may change places."""
    for best, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose([r.score for r in best], [r.score for r in wanted], atol=1e-6)
        scores = {r.id: r.score for r in wanted}
        for ours, theirs in zip(best, wanted, strict=True):
            assert abs(scores.get(ours.id, wanted[-1].score) - theirs.score) < 1e-6, (ours, theirs)


def test_it_answers_as_a_search_of_the_corpus(folder, bundle, corpus):
    results = search.run_index(folder, QUERIES, top=7)
    same(results, search.run(bundle, QUERIES, corpus, top=7, dims=8))
    assert results[0][0].row["kept"] == int(results[0][0].id[1:])


def test_added_replaced_and_removed_documents(folder, bundle, tmp_path, capsys):
    more = write(tmp_path / "more.jsonl", [*rows_of(30, 4), {"id": "n3", "text": "z z z"}])
    with pytest.raises(
        DataError, match=r"more.jsonl:5: the index has the document 'n3' already \(1 of the corpus in all\)"
    ):
        indexes.add(folder, more)
    assert not (folder / "segment-00001").exists()
    before = {p.name: p.read_bytes() for p in (folder / "segment-00000").iterdir()}
    indexes.add(folder, more, replace=True)
    index = indexes.remove(folder, ["n0", "n33"])
    assert len(index) == 32
    assert {p.name: p.read_bytes() for p in (folder / "segment-00000").iterdir()} == before
    left = [r for r in [*rows_of(0, 30), *rows_of(30, 4)] if r["id"] not in ("n0", "n33", "n3")]
    whole = write(tmp_path / "whole.jsonl", [*left, {"id": "n3", "text": "z z z"}])
    same(search.run_index(folder, QUERIES, top=32), search.run(bundle, QUERIES, whole, top=32, dims=8))
    with pytest.raises(DataError, match="has no document 'n0' and 1 others; correct the ids"):
        indexes.remove(folder, ["n0", "n1", "none"])
    assert len(store.open_index(folder)) == 32
    with pytest.raises(DataError, match="all of its documents"):
        indexes.remove(folder, [r["id"] for r in left] + ["n3"])
    assert "32 documents of 8 values" in capsys.readouterr().out


def test_a_document_called_by_its_line_does_not_replace_another_files(bundle, tmp_path):
    for name, texts in (("a", "xyz"), ("b", "uv")):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "docs.jsonl", [{"text": text} for text in texts])
    indexes.create(bundle, tmp_path / "a" / "docs.jsonl", tmp_path / "index", dims=8)
    for replace in (False, True):
        with pytest.raises(
            DataError, match="b/docs.jsonl:1: has no id and is called 'docs.jsonl:1' by its line, as another"
        ):
            indexes.add(tmp_path / "index", tmp_path / "b" / "docs.jsonl", replace=replace)
    assert len(store.open_index(tmp_path / "index")) == 3


def test_a_graph_follows_what_is_added(folder, tmp_path, capsys):
    indexes.approximate(folder, {"connectivity": 8}, QUERIES)
    assert "recall@10 1.000 on 3 queries" in capsys.readouterr().out
    indexes.add(folder, write(tmp_path / "more.jsonl", rows_of(30, 4)))
    graph = store.open_index(folder).description["graph"]
    assert graph["texts"] == 34 and graph["connectivity"] == 8
    same(search.run_index(folder, QUERIES, top=5), search.run_index(folder, QUERIES, top=5, exact=True))


def test_a_compacted_one_answers_as_before(folder, tmp_path, capsys):
    indexes.compact(folder)
    assert "nothing was removed from it, and it has one segment; nothing was written" in capsys.readouterr().out
    indexes.approximate(folder, {"connectivity": 8})
    indexes.remove(folder, ["n0", "n5"])
    assert "2 removed ones still on disk until --compact" in capsys.readouterr().out
    expected = search.run_index(folder, QUERIES, top=28, exact=True)
    index = indexes.compact(folder)
    done, now = capsys.readouterr().out.splitlines()[-2:]
    assert (
        done.endswith("index: 2 removed documents have left the disk; segments: 1 before, 1 now")
        and "removed" not in now
    )
    assert len(index) == 28 and index.description["graph"]["connectivity"] == 8
    assert search.run_index(folder, QUERIES, top=28, exact=True) == expected
    indexes.add(folder, write(tmp_path / "more.jsonl", rows_of(30, 4)))
    assert len(store.open_index(folder)) == 32 and search.run_index(folder, QUERIES, top=3)


@pytest.mark.parametrize("other", ["compact", "add"])
def test_what_happens_while_a_model_is_loaded_is_not_lost(folder, tmp_path, monkeypatch, other):
    """`--add` opens the index, loads the model, and then waits for its turn."""
    indexes.remove(folder, ["n0"])
    open_model = indexes.open_model

    def open_later(index, model=None):
        monkeypatch.setattr(indexes, "open_model", open_model)
        if other == "compact":
            indexes.compact(folder)
        else:
            indexes.add(folder, write(tmp_path / "others.jsonl", rows_of(60, 3)))
        return open_model(index, model)

    monkeypatch.setattr(indexes, "open_model", open_later)
    indexes.add(folder, write(tmp_path / "more.jsonl", [*rows_of(30, 4), {"id": "n7", "text": "z"}]), replace=True)
    index = store.open_index(folder)
    ids = {row["id"] for _, row in index.documents()}
    assert ids == {f"n{i}" for i in range(1, 34)} | ({f"n{i}" for i in range(60, 63)} if other == "add" else set())
    assert next(row["text"] for _, row in index.documents() if row["id"] == "n7") == "z"


def test_without_usearch_an_index_with_a_graph_stays_as_it_is(folder, monkeypatch):
    indexes.approximate(folder, {"connectivity": 8})
    indexes.remove(folder, ["n0"])
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def missing():
        raise UsageError("approximate search needs usearch")

    monkeypatch.setattr(indexes.nearest, "_usearch", missing)
    with pytest.raises(UsageError, match="needs usearch"):
        indexes.compact(folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_what_a_kill_left_goes_when_there_is_nothing_else_to_do(folder, monkeypatch, capsys):
    indexes.remove(folder, ["n0"])
    with monkeypatch.context() as patched:
        patched.setattr(store, "clean", lambda *_: None)
        indexes.compact(folder)
    assert (folder / "segment-00000").exists()
    indexes.compact(folder)
    assert "nothing was written" in capsys.readouterr().out
    assert not (folder / "segment-00000").exists() and len(store.open_index(folder)) == 29


def test_adding_goes_on_after_a_compaction_that_was_killed(folder, tmp_path):
    indexes.remove(folder, ["n0"])
    compaction.describe(store.open_index(folder))
    assert (folder / "segment-00001").is_dir()
    indexes.add(folder, write(tmp_path / "more.jsonl", rows_of(30, 4)))
    assert len(store.open_index(folder)) == 33


class Stop(BaseException):
    """Stands for a kill."""


def test_one_that_was_stopped_goes_on(bundle, corpus, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(indexes, "_SHARD_SIZE", 8)
    write_shard, written = bulk.Shards.write, []

    def write_two(self, number, *rest):
        if len(written) == 2:
            raise Stop
        written.append(number)
        write_shard(self, number, *rest)

    monkeypatch.setattr(bulk.Shards, "write", write_two)
    with pytest.raises(Stop):
        indexes.create(bundle, corpus, tmp_path / "again", dims=8)
    with pytest.raises(DataError, match="is not finished; run the command that makes it again"):
        store.open_index(tmp_path / "again")
    other = write(tmp_path / "other.jsonl", rows_of(9, 30))
    with pytest.raises(DataError, match="another corpus was begun there and not finished; finish it with that corpus"):
        indexes.create(bundle, other, tmp_path / "again", dims=8)
    monkeypatch.setattr(
        bulk.Shards, "write", lambda self, number, *rest: (written.append(number), write_shard(self, number, *rest))
    )
    indexes.create(bundle, corpus, tmp_path / "again", dims=8)
    assert written == [0, 1, 2, 3]
    same(search.run_index(tmp_path / "again", QUERIES), search.run_index(folder, QUERIES))


def test_only_its_own_model_is_used(folder, bundle, tmp_path, write_tiny_other):
    moved = tmp_path / "moved"
    shutil.copytree(bundle, moved)
    same(search.run_index(folder, QUERIES, model=moved), search.run_index(folder, QUERIES))
    with pytest.raises(DataError, match="is not the model that .* was made with"):
        search.run_index(folder, QUERIES, model=write_tiny_other)
    description = store.digests.read_sealed(folder / store.INDEX)
    store.commit(folder, {**description, "model": str(tmp_path / "nowhere")})
    with pytest.raises(DataError, match="its model is not at .*nowhere any more; say where it is by --model"):
        search.run_index(folder, QUERIES)


@pytest.fixture
def write_tiny_other(tokenizer, tmp_path):
    from tiny_models import write_model

    return write_model(tmp_path / "other", tokenizer, seed=1, vocab_size=64)


def test_outputs_that_are_taken_and_corpora_that_are_empty(folder, bundle, corpus, tmp_path):
    with pytest.raises(UsageError, match="is an index already; add documents by --add"):
        indexes.create(bundle, corpus, folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(Exception, match="already exists; choose another output"):
        indexes.create(bundle, corpus, tmp_path / "full")
    with pytest.raises(DataError, match="no texts in it"):
        indexes.add(folder, write(tmp_path / "empty.jsonl", []))
    with pytest.raises(DataError, match="has no line with anything in it"):
        indexes.lines_of(write(tmp_path / "ids.txt", []))
    twice = write(tmp_path / "twice.jsonl", [{"id": "x", "text": "a"}, {"id": "x", "text": "b"}])
    with pytest.raises(DataError, match="twice.jsonl:2"):
        indexes.add(folder, twice)
    with indexes.files.FolderLock(folder), pytest.raises(InUse):
        indexes.remove(folder, ["n1"])
