"""An index as a parquet table and as the projector's files, read by readers that are not ours."""

import csv
import json

import numpy as np
import pyarrow.parquet as parquet
import pytest

from embed.errors import DataError, StorageError, UsageError
from embed.index import store, tables

TEXTS = ["one\ttab", "two\nlines", 'a "quote', "", "ünï  spaces", "\u2028line"]


def fields(i):
    return {
        "text": TEXTS[i % len(TEXTS)] or None,
        "stars": i if i % 2 else i + 0.5,
        "year": 2000 + i,
        "good": i % 3 == 0,
        "tags": ["a", str(i)],
        "place": f"p{i}" if i % 4 else "",
        "never": None,
        "mixed": "1" if i % 2 else 1,
    }


@pytest.fixture
def index(make_index, vectors):
    """Two segments with 40 and 9 documents, of which three were removed."""
    index = make_index(vectors(40), vectors(9, seed=1), fields=fields)
    removed = index.find(["a0", "a39", "b3"])
    store.commit(index.folder, store.with_removed(index, list(removed.values())))
    return store.open_index(index.folder)


@pytest.fixture
def expected(vectors):
    """[(id, fields, vector)] of the documents that are left."""
    every = [
        (f"{p}{i}", fields(i), v)
        for p, part in zip("ab", (vectors(40), vectors(9, seed=1)))
        for i, v in enumerate(part)
    ]
    return [document for document in every if document[0] not in ("a0", "a39", "b3")]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(tables, "_BLOCK", 7)


def test_the_parquet_table(index, expected, tmp_path):
    seen = []
    tables.write(index, tmp_path / "new" / "t.parquet", "parquet", seen.append)
    assert sum(seen) == len(expected) == len(index)
    table = parquet.read_table(tmp_path / "new" / "t.parquet")
    assert table.column_names[:2] == ["id", "text"]
    assert set(table.column_names) == {"id", "text", "stars", "year", "good", "tags", "place", "mixed", "vector"}
    types = {field.name: str(field.type) for field in table.schema}
    assert (types["stars"], types["year"], types["good"], types["tags"]) == ("double", "int64", "bool", "string")
    assert types["vector"].startswith("fixed_size_list<") and types["vector"].endswith("[8]")
    rows = table.to_pylist()
    assert [r["id"] for r in rows] == [i for i, _, _ in expected]
    np.testing.assert_array_equal(np.array([r["vector"] for r in rows], np.float32), [v for _, _, v in expected])
    for row, (_, given, _) in zip(rows, expected, strict=True):
        for name in ("text", "stars", "year", "good", "place"):
            assert row[name] == given[name], name
        assert json.loads(row["tags"]) == given["tags"] and json.loads(row["mixed"]) == given["mixed"]


def test_the_projector_has_a_line_of_each_document(index, expected, tmp_path):
    tables.write(index, tmp_path / "points", "projector")
    # A tsv of the projector has no quoting: a quote is a letter.
    with open(tmp_path / "points" / "metadata.tsv", encoding="utf-8", newline="\n") as f:
        rows = list(csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows[0][:2] == ["id", "text"] and {len(r) for r in rows} == {len(rows[0])}
    assert [r[0] for r in rows[1:]] == [i for i, _, _ in expected]
    assert [r[1] for r in rows[1:]] == [" ".join((given["text"] or "").split()) for _, given, _ in expected]
    written = np.loadtxt(tmp_path / "points" / "vectors.tsv", delimiter="\t", dtype=np.float32)
    np.testing.assert_array_equal(written, [v for _, _, v in expected])


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, 2**53 + 1], "int64", [1, 2**53 + 1]),
        ([0.5, 3], "double", [0.5, 3.0]),
        ([0.5, 2**53 + 1], "string", ["0.5", "9007199254740993"]),  # float64 cannot hold it
        ([1, 2**70], "string", ["1", str(2**70)]),
        (["", ["a"]], "string", [None, '["a"]']),
        ([True, 1], "string", ["true", "1"]),
        (["", "b"], "string", [None, "b"]),
    ],
)
def test_columns_hold_the_values_exactly(make_index, vectors, tmp_path, values, kind, expected):
    index = make_index(vectors(2), fields=lambda i: {"value": values[i]})
    tables.write(index, tmp_path / "t.parquet", "parquet")
    column = parquet.read_table(tmp_path / "t.parquet")["value"]
    found = [None if value == "" else value for value in column.to_pylist()]
    assert str(column.type) == kind and found == expected


def test_fields_that_would_have_one_name_in_the_projector_are_refused(make_index, vectors, tmp_path):
    index = make_index(vectors(2), fields=lambda i: {"a b": 1, "a\tb": 2})
    with pytest.raises(DataError, match="fields of its documents differ in white space alone"):
        tables.write(index, tmp_path / "points", "projector")
    assert not (tmp_path / "points").exists()


def test_a_table_into_a_folder_is_refused(index, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="folder: a folder, and --export=parquet writes a file; name the file"):
        tables.write(index, tmp_path / "folder", "parquet")


def test_a_field_by_the_name_of_the_vectors_is_refused(make_index, vectors, tmp_path):
    index = make_index(vectors(3), fields=lambda i: {"vector": i})
    with pytest.raises(
        DataError, match="a document has the field 'vector', which is the table's column of the vectors"
    ):
        tables.write(index, tmp_path / "t.parquet", "parquet")
    assert not list(tmp_path.glob("*.parquet*"))
    tables.write(index, tmp_path / "points", "projector")


@pytest.mark.parametrize("format", tables.FORMATS)
def test_what_is_there_stays(index, tmp_path, format):
    (tmp_path / "there").write_text("mine")
    with pytest.raises(StorageError, match="there: already exists"):
        tables.write(index, tmp_path / "there", format)
    assert (tmp_path / "there").read_text() == "mine"
