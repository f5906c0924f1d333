"""Texts to encode from files of every kind: ids, titles, and bad records that are named."""

import gzip
import hashlib
import json

import pytest

from embed.errors import DataError
from embed.sources.input_texts import read_images, read_texts


def test_kinds_of_input_give_the_same_texts(tmp_path):
    rows = [{"id": 5, "text": "eins"}, {"id": "b", "text": " zwei  "}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "a.tsv").write_text("id\ttext\n5\teins\nb\tzwei\n")
    (tmp_path / "a.txt").write_text("eins\nzwei\n")
    found = {k: [(t.id, t.text) for t in read_texts(tmp_path / f"a.{k}")] for k in ("jsonl", "tsv", "txt")}
    assert found["jsonl"] == found["tsv"] == [("5", "eins"), ("b", "zwei")]
    assert found["txt"] == [("0", "eins"), ("1", "zwei")]


@pytest.mark.parametrize(
    "name, content",
    [("a.json", '{"text": "eins"}\n{"text": "zwei"}\n'), ("a.csv", "text\neins\nzwei\n"), ("a.txt", "eins\nzwei\n")],
)
def test_files_may_be_packed_and_records_tell_where_they_stand(tmp_path, name, content):
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    found = list(read_texts(tmp_path / f"{name}.gz"))
    first = 2 if name == "a.csv" else 1  # below the header
    assert [t.text for t in found] == ["eins", "zwei"] and [t.id for t in found] == ["0", "1"]
    assert [t.location for t in found] == [f"{tmp_path}/{name}.gz:{first + i}" for i in range(2)]


def test_titles_are_read_from_their_field_alone(tmp_path):
    rows = [{"text": "a", "title": " One "}, {"text": "b", "title": None}, {"text": "c", "title": "  "}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert [t.title for t in read_texts(path)] == ["", "", ""]
    assert [t.title for t in read_texts(path, title_field="title")] == ["One", "", ""]


def test_records_lack_a_title_only_where_they_may(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b", "title": "B"}\n')
    assert [t.title for t in read_texts(path, title_field="title", titles_may_lack=True)] == ["", "B"]
    with pytest.raises(DataError, match=r"a.jsonl:1: no field 'title'"):
        list(read_texts(path, title_field="title"))


def test_texts_are_cleaned_unless_they_are_left_to_the_model(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": " Cafe\u0301 bar ", "title": " T "}) + "\n")
    (cleaned,) = read_texts(path, title_field="title")
    (left,) = read_texts(path, title_field="title", as_they_are=True)
    assert (cleaned.text, cleaned.title) == ("Caf\u00e9 bar", "T")
    assert (left.text, left.title) == (" Cafe\u0301 bar ", " T ")


def test_parquet_is_read(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"body": ["eins", "zwei"], "key": [7, 8]}), tmp_path / "a.parquet")
    found = list(read_texts(tmp_path / "a.parquet", text_field="body", id_field="key"))
    assert [(t.id, t.text) for t in found] == [("7", "eins"), ("8", "zwei")]


@pytest.mark.parametrize(
    "name, content, fields, message",
    [
        ("a.jsonl", '{"text": "a"}\n{"txt": "b"}\n', {}, r"a.jsonl:2: no field 'text'; did you mean 'txt'"),
        ("a.jsonl", '{"text": "a"}\n{"text": " "}\n', {}, r"a.jsonl:2: field 'text' is empty"),
        ("a.jsonl", '{"text": "a"}\n', {"id_field": "key"}, r"no field 'key'"),
        ("a.jsonl", '{"text": "a", "id": "b\\ud800"}\n', {}, r"a.jsonl:1: field 'id' holds a lone surrogate"),
        ("a.jsonl", '{"text": "a", "id": [1]}\n', {}, r"a.jsonl:1: field 'id' is list .*expected a text or a number"),
        ("a.jsonl", '{"text": "a", "id": true}\n', {}, r"a.jsonl:1: field 'id' is bool"),
        ("a.jsonl", '{"text": "a", "id": NaN}\n', {}, r"a.jsonl:1: field 'id' is float"),
        ("a.jsonl", '{"text": "a", "key": null}\n', {"id_field": "key"}, r"a.jsonl:1: field 'key' is NoneType"),
        ("a.jsonl", '{"text": "a", "title": 3}\n', {"title_field": "title"}, r"a.jsonl:1: field 'title' is int"),
        ("a.xml", "a", {}, r"not a kind of file that can be read; known: .jsonl"),
        ("a.parquet", None, {}, "no such file"),
        ("a.txt", None, {}, "a.txt"),
        ("a.txt", "a\n\nb\n", {}, r"a.txt:2: field 'text' is empty"),
    ],
)
def test_bad_input_is_named(name, content, fields, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        list(read_texts(tmp_path / name, **fields))


def test_images_come_with_a_digest_and_their_text_where_it_is_asked_for(tmp_path):
    (tmp_path / "png").mkdir()
    for name in "ab":
        (tmp_path / "png" / f"{name}.png").write_bytes(name.encode())
    rows = [{"id": name, "image": f"png/{name}.png", "caption": f"the letter {name}"} for name in "ab"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, two = read_images(tmp_path / "rows.jsonl", "image")
    assert (one.id, one.text, one.images) == ("a", None, (tmp_path / "png" / "a.png",))
    assert two.image_digests == (hashlib.sha256(b"b").hexdigest(),) != one.image_digests
    assert [t.text for t in read_images(tmp_path / "rows.jsonl", "image", "caption")] == [
        "the letter a",
        "the letter b",
    ]
    several = [{"image": ["png/a.png", "png/b.png"], "text": "both"}, {"image": [], "text": "none"}]
    (tmp_path / "several.jsonl").write_text("".join(json.dumps(row) + "\n" for row in several))
    both, none = read_images(tmp_path / "several.jsonl", "image", "text")
    assert [path.name for path in both.images] == ["a.png", "b.png"] and len(set(both.image_digests)) == 2
    assert (none.text, none.images, none.image_digests) == ("none", (), ())
    with pytest.raises(DataError, match="several.jsonl:2: field 'image' names no image; add one, or remove the record"):
        list(read_images(tmp_path / "several.jsonl", "image"))
    with pytest.raises(DataError, match="rows.jsonl:1: no field 'picture'"):
        list(read_images(tmp_path / "rows.jsonl", "picture"))
    (tmp_path / "png" / "b.png").unlink()
    with pytest.raises(DataError, match="rows.jsonl:2: the image .*b.png: No such file or directory; correct the path"):
        list(read_images(tmp_path / "rows.jsonl", "image"))
