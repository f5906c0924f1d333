"""Compaction: removed documents leave the disk, everything else stays as it is; a kill at any moment loses nothing."""

import itertools
import pathlib
import types

import numpy as np
import pytest

from embed import files
from embed.errors import DataError, InUse, StorageError
from embed.index import compact, store
from embed.inference import bulk


def without(index, ids):
    store.commit(index.folder, store.with_removed(index, list(index.find(ids).values())))
    return store.open_index(index.folder)


def compacted(index):
    store.commit(index.folder, compact.describe(index))
    return store.open_index(index.folder)


def documents_of(index) -> dict[str, tuple[dict, bytes]]:
    """Returns {id: (document, bytes of its vector)} in the order of the index."""
    rows = list(index.documents())
    vectors = index.vectors.take(np.array([number for number, _ in rows]))
    return {row["id"]: (row, vector.tobytes()) for (_, row), vector in zip(rows, vectors, strict=True)}


def content(folder: pathlib.Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.fixture
def index(make_index, vectors):
    """Two segments, and three documents less."""
    index = make_index(vectors(40), vectors(7, seed=1), fields=lambda i: {"secret": f"secret {i * 1001}"})
    return without(index, ["a3", "a39", "b0"])


def test_what_was_removed_leaves_the_disk_and_the_rest_keeps_its_bits(index, vectors):
    before, queries = documents_of(index), vectors(5, seed=2)
    assert len(before) == 44 and "a3" not in before
    found = [[(score, index.row(n)["id"]) for score, n in best] for best in index.search(queries, 50)]
    gone = index.vectors.take(np.array([3]))[0].tobytes()
    assert b"secret 39039" in content(index.folder) and gone in content(index.folder)
    after = compacted(index)
    assert documents_of(after) == before and list(documents_of(after)) == list(before)
    assert [s["folder"] for s in after.description["segments"]] == ["segment-00002"] and not len(after.removed)
    assert [[(score, after.row(n)["id"]) for score, n in best] for best in after.search(queries, 50)] == found
    assert b"secret 39039" not in content(after.folder) and gone not in content(after.folder)
    assert sorted(p.name for p in after.folder.iterdir() if not p.name.startswith(".")) == [
        "index.json",
        "segment-00002",
    ]


def test_documents_are_added_and_removed_after_it(index, vectors, new_segment):
    after = compacted(index)
    path = store.segment_folder(after.folder, after.description)
    assert path.name == "segment-00003"
    segment = new_segment(path, vectors(4, seed=3), "c")
    store.commit(after.folder, {**after.description, "segments": [*after.description["segments"], segment]})
    grown = without(store.open_index(after.folder), ["c1", "a0"])
    assert len(grown) == 46
    again = compacted(grown)
    assert len(again) == 46 and [s["folder"] for s in again.description["segments"]] == ["segment-00004"]
    assert [row["id"] for _, row in itertools.islice(again.documents(), 3)] == ["a1", "a2", "a4"]


def test_shards_hold_their_own_vectors(index, monkeypatch):
    monkeypatch.setattr(compact, "_SHARD_SIZE", 6)
    before = documents_of(index)
    after = compacted(index)
    assert documents_of(after) == before
    assert len(bulk.open_shards(after.folder / "segment-00002")) == 8


def test_a_graph_is_not_kept(index):
    options = {"connectivity": 8, "expansion_add": 64, "expansion_search": 64}
    store.commit(index.folder, store.with_graph(index, options, lambda count: None))
    after = compacted(store.open_index(index.folder))
    assert after.lacks_graph and not list(after.folder.glob("graph-*"))


def test_its_documents_are_verified_like_encoded_ones(index):
    after = compacted(index)
    ids, found = bulk.read(after.folder / "segment-00002")
    assert ids == list(documents_of(after)) and found.shape == (44, 8)
    path = after.folder / "segment-00002" / "part-00000.npy"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="part-00000.npy is damaged"):
        store.open_index(after.folder)


class Stop(BaseException):
    """Stands for a kill."""


def killed(*_, **__):
    raise Stop


@pytest.mark.parametrize(
    "moment",
    ["in the vectors", "in the documents", "before index.json", "before the old ones go", "while the old ones go"],
)
def test_a_kill_leaves_the_index_and_the_next_one_goes_through(index, moment, monkeypatch):
    before, removed = documents_of(index), len(index.removed)
    with monkeypatch.context() as patched:
        if moment == "in the vectors":
            patched.setattr(bulk.Shards, "write", killed)
        if moment == "in the documents":
            patched.setattr(compact.rows, "write", killed)
        if moment == "before index.json":
            patched.setattr(store, "commit", killed)
        if moment == "before the old ones go":
            patched.setattr(store, "clean", killed)
        if moment == "while the old ones go":
            patched.setattr(store, "shutil", types.SimpleNamespace(rmtree=killed))
        with pytest.raises(Stop):
            description = compact.describe(index)
            store.commit(index.folder, description)
    left = store.open_index(index.folder)
    assert documents_of(left) == before
    if "old ones go" in moment:  # index.json was written
        store.clean(left.folder, left.description)
        after = left
    else:
        assert len(left.removed) == removed
        after = compacted(left)
    assert documents_of(after) == before
    assert sorted(p.name for p in after.folder.iterdir() if p.is_dir()) == ["segment-00002"]
    assert b"secret 39039" not in content(after.folder)


def test_what_a_killed_compaction_left_goes_with_any_later_change(index):
    """Its temporary folder has the number of a segment that was added since."""
    left = index.folder / ".segment-00001.tmp-77"
    left.mkdir()
    (left / "documents.jsonl").write_text("a copy of what was removed since")
    without(index, ["a1"])
    assert not left.exists()


def test_what_cannot_be_removed_is_said(index, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store, "shutil", types.SimpleNamespace(rmtree=refused))
    with pytest.raises(
        StorageError, match=r"segment-00000.old-\d+: cannot be removed \(Permission denied\), though the index"
    ):
        compacted(index)
    monkeypatch.undo()
    after = store.open_index(index.folder)
    assert len(after) == 44
    store.clean(after.folder, after.description)
    assert sorted(p.name for p in after.folder.iterdir() if p.is_dir()) == ["segment-00002"]


def test_what_another_command_has_changed_is_not_lost(index):
    """The second of two commands that both began with the same index."""
    stale = index.description
    after = compacted(index)
    with pytest.raises(InUse, match="another command has changed it meanwhile; run the command again"):
        store.commit(index.folder, {**stale, "removed": None})
    assert documents_of(store.open_index(index.folder)) == documents_of(after)


@pytest.mark.parametrize("touched", [False, True])
def test_one_that_is_compacted_while_it_is_read_is_told_from_a_damaged_one(index, vectors, touched):
    if touched:
        index.search(vectors(1), 3)
    compacted(store.open_index(index.folder))
    with pytest.raises(InUse, match="another command has changed it while it was read; run the command again"):
        with store.reading(index):
            index.search(vectors(1), 3)
            index.row(5)
    damaged = store.open_index(index.folder)
    assert damaged.row(5)
    (damaged.folder / "segment-00002" / "documents.jsonl").unlink()
    with pytest.raises(FileNotFoundError), store.reading(damaged):
        damaged.row(5)


def test_folders_are_compared_by_their_numbers(index):
    last = index.folder / "segment-100001"
    (index.folder / "segment-00001").rename(last)
    description = dict(index.description)
    description["segments"] = [description["segments"][0], {**description["segments"][1], "folder": last.name}]
    store.commit(index.folder, description)
    (index.folder / "segment-100000").mkdir()
    after = compacted(store.open_index(index.folder))
    assert sorted(p.name for p in after.folder.iterdir() if p.is_dir()) == ["segment-100002"]


def test_texts_that_were_cut_stay_counted(index):
    path = index.folder / "segment-00000" / bulk.SUMMARY
    summary = store.digests.read_sealed(path)
    store.digests.write_sealed(path, {**summary, "cut": 3})
    compacted(index)
    assert store.digests.read_sealed(index.folder / "segment-00002" / bulk.SUMMARY)["cut"] == 3


def test_documents_that_were_begun_to_be_added_are_not_lost(index):
    path = store.segment_folder(index.folder, index.description)
    path.mkdir()
    files.write_json(path / bulk.JOB, {"input": "of a corpus"})
    with pytest.raises(
        DataError, match="segment-00002: --add has begun it and not finished; run embed index .* --add=FILE again"
    ):
        compact.describe(index)
    without(index, ["a1"])
    assert path.exists()


@pytest.mark.parametrize("name", ["../elsewhere", "segment-1", "segment-00000/..", "/tmp/segment-00000"])
def test_a_segment_lies_in_the_folder_of_its_index(index, name):
    description = dict(index.description)
    description["segments"] = [{**description["segments"][0], "folder": name}]
    store.digests.write_sealed(index.folder / store.INDEX, description)
    with pytest.raises(DataError, match="segments"):
        store.open_index(index.folder)


def test_candidates_of_a_graph_that_is_built_again(index, vectors):
    after = compacted(index)
    options = {"connectivity": 8, "expansion_add": 512, "expansion_search": 512}
    store.commit(after.folder, store.with_graph(after, options, lambda count: None))
    after, queries = store.open_index(after.folder), vectors(5, seed=2)
    near, exact = after.search(queries, 6), after.search(queries, 6, exact=True)
    assert [[n for _, n in best] for best in near] == [[n for _, n in best] for best in exact]
