"""The documents of a corpus: their ids, what is kept of a row, and what is refused."""

import json

import pytest

from embed.errors import DataError
from embed.sources.corpus import read_corpus
from embed.types import Item


def corpus(folder, *rows):
    path = folder / "c.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_id_is_the_rows_or_where_it_was_harvested_or_where_it_stands(tmp_path):
    rows = [{"text": "a", "id": 7, "extra": [1]}, {"text": "b", "file": "x.py", "line": 3}, {"text": "c", "title": " "}]
    documents = list(read_corpus(corpus(tmp_path, *rows)))
    assert [d.id for d in documents] == ["7", "x.py:3", "c.jsonl:3"]
    assert [d.has_id for d in documents] == [True, True, False]
    assert [d.id for d in read_corpus(corpus(tmp_path, {"_id": "d1", "text": "a"}))] == ["d1"]
    assert documents[0].row["extra"] == [1] and documents[2].row["title"] == ""
    (tmp_path / "c.jsonl").write_text(json.dumps(rows[2:]))
    assert [d.id for d in read_corpus(tmp_path / "c.jsonl")] == ["c.jsonl[0]"]


def test_an_image_is_found_from_the_files_folder(tmp_path):
    (tmp_path / "i.png").write_bytes(b"")
    rows = [{"image": "i.png"}, {"image": "i.png", "text": "a", "title": "t"}, {"text": "a", "title": "t"}]
    image = tmp_path / "i.png"
    items = [d.item for d in read_corpus(corpus(tmp_path, *rows))]
    assert items == [Item(None, None, (image,)), Item("a", "t", (image,)), Item("a", "t")]


@pytest.mark.parametrize(
    "row, message",
    [
        ({"txt": "b"}, "c.jsonl:1: no field 'text'"),
        ({"text": "a", "title": 3}, "field 'title' is int, expected a text"),
        ({"image": "nowhere.png"}, "nowhere.png is not there; correct the path, or remove the line"),
        ({"text": "a", "id": [1]}, "field 'id' is list"),
        ({"text": "  "}, "c.jsonl:1"),
        (
            {"text": "a", "score": float("nan")},
            "c.jsonl:1: field 'score' holds nan, which is no JSON number; write null",
        ),
        ({"text": "a", "of": {"list": [1.0, float("inf")]}}, "c.jsonl:1: field 'list' holds inf"),
        ({"text": "a", "lone": "\ud800"}, "c.jsonl:1: field 'lone' holds a lone surrogate"),
        ({"text": "a", "of": {"lone\ud800": 1}}, "holds a lone surrogate"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, message):
    with pytest.raises(DataError) as refused:
        list(read_corpus(corpus(tmp_path, row)))
    assert message in str(refused.value)
