"""Distinct texts on disk: in order, once each, found by number and by content."""

import numpy as np
import pytest

from embed.curation import collection
from embed.errors import DataError
from embed.sources.input_texts import Text
from embed.text import target_id


def texts(*pairs):
    return [Text("", text, title, f"file:{i}") for i, (text, title) in enumerate(pairs)]


GIVEN = texts(("a", ""), ("b", ""), ("a", ""), ("a", "title"), ("ü\n語", ""), ("b", ""), ("c", "title"))


@pytest.fixture
def collected(tmp_path):
    return collection.collect(tmp_path / "new", lambda: iter(GIVEN))


def test_each_text_is_kept_once_in_the_order_of_first_sight(collected):
    assert [(t.text, t.title) for t in collected] == [
        ("a", ""),
        ("b", ""),
        ("a", "title"),
        ("ü\n語", ""),
        ("c", "title"),
    ]
    assert [t.location for t in collected] == ["file:0", "file:1", "file:3", "file:4", "file:6"]
    assert [t.id for t in collected] == list("01234")
    assert len(collected) == 5


def test_texts_are_found_by_number_and_by_content(collected):
    assert [t.text for t in collected.read([3, 0, 3])] == ["ü\n語", "a", "ü\n語"]
    ids = np.array([target_id("c", "title"), target_id("a"), target_id("c", "title")])
    assert collected.find(ids).tolist() == [4, 0, 4]
    np.testing.assert_array_equal(collected.ids[collected.find(ids)], ids)


def test_it_is_the_same_when_it_is_opened_again(collected):
    again = collection.Collection(collected.folder)
    assert list(again) == list(collected)
    np.testing.assert_array_equal(again.ids, collected.ids)


def test_nothing_is_left_of_one_that_failed(tmp_path):
    def read():
        yield GIVEN[0]
        if (tmp_path / "new").exists():
            raise ValueError("the second time the file is gone")

    with pytest.raises(ValueError, match="second time"):
        collection.collect(tmp_path / "new", read)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: [*t, t[0]], lambda t: [*t[:2], t[6], *t[3:]]])
def test_texts_that_change_between_the_passes_are_refused(tmp_path, change):
    passes = [GIVEN, change(GIVEN)]
    with pytest.raises(DataError, match="the texts changed while they were read"):
        collection.collect(tmp_path / "new", lambda: iter(passes.pop(0)))
    with pytest.raises(DataError, match="no such file"):
        collection.verify(tmp_path / "new", "")


def test_a_collection_is_verified_before_it_is_taken(tmp_path):
    """Each file of it flipped, cut and gone; and that of another job."""
    folder = collection.collect(tmp_path, lambda: iter(GIVEN), "mine").folder
    assert list(collection.verify(folder, "mine"))[0].text == "a"
    with pytest.raises(DataError, match="belongs to another job"):
        collection.verify(folder, "other")
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for damaged in (None, whole[:-3], whole[:5] + bytes([whole[5] ^ 1]) + whole[6:]):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            with pytest.raises(DataError, match=path.name):
                collection.verify(folder, "mine")
            path.write_bytes(whole)
    collection.verify(folder, "mine")
