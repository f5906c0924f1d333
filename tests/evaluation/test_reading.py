"""What the readers of tasks share: parts of a folder, texts that may be empty, columns, labels and numbers."""

import re

import pytest

from embed.errors import DataError
from embed.evaluation import reading


def test_the_first_of_several_names_is_taken_plain_before_packed(tmp_path):
    with pytest.raises(DataError) as caught:
        reading.part(tmp_path, "a task is a folder with qrels", "qrels.tsv", "qrels/dev.tsv")
    message = f"{tmp_path}: has no qrels.tsv or qrels/dev.tsv (.gz); a task is a folder with qrels"
    assert str(caught.value) == message
    (tmp_path / "qrels.tsv").mkdir()  # no file
    (tmp_path / "qrels").mkdir()
    for name in ("qrels/dev.tsv.gz", "qrels/dev.tsv", "qrels.tsv.gz"):  # each before those made so far
        (tmp_path / name).touch()
        assert reading.part(tmp_path, "", "qrels.tsv", "qrels/dev.tsv") == str(tmp_path / name)


@pytest.mark.parametrize(
    "value, expected",
    [("", ""), (" \n\u3000", ""), (" Cafe\u0301 ", " Cafe\u0301 "), ("x", "x")],
)
def test_a_text_may_be_empty_and_is_left_to_the_model(value, expected):
    assert reading.text_or_empty(value, "text", "f:1") == expected


@pytest.mark.parametrize("value", [None, 3, True, ["a"], {}, "half \ud83d"])
def test_what_is_no_text_is_refused_with_its_place(value):
    with pytest.raises(DataError, match="^f:1: field 'text' "):
        reading.text_or_empty(value, "text", "f:1")


def test_a_column_must_be_there():
    assert reading.column({"score": None, "a": 1}, "score", "f:2") is None
    with pytest.raises(DataError, match=re.escape("f:2: no column 'score'; did you mean 'scores'?")):
        reading.column({"scores": 1}, "score", "f:2")


@pytest.mark.parametrize(
    "values, label",
    [
        ([1, 1.0, True, "1"], "1"),
        ([0, 0.0, -0.0, False], "0"),
        ([-3, -3.0], "-3"),
        ([2.5], "2.5"),
        ([10**400], "1" + "0" * 400),
        ([1e300], str(int(1e300))),
        (["a b"], "a b"),
        ([""], ""),
    ],
)
def test_equal_numbers_are_one_label(values, label):
    assert {reading.label_of(value, "f:3") for value in values} == {label}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, [1], {}])
def test_what_is_no_label_is_refused_with_its_place(value):
    with pytest.raises(DataError) as caught:
        reading.label_of(value, "f:3")
    assert str(caught.value) == f"f:3: a label is {value!r}, expected a text or a number; correct the line"


def test_empty_texts_are_told_where_there_are_any():
    remark = "2 queries are empty; they are embedded as empty texts, as in MTEB"
    assert reading.remark_of_empty("queries", iter(["", "a", " ", ""])) == [remark]
    assert reading.remark_of_empty("queries", ["a"]) == reading.remark_of_empty("queries", []) == []


def test_no_rows_at_all_are_refused():
    rows = [None]
    assert reading.some(rows, "f") is rows
    with pytest.raises(DataError, match="^f: nothing in it; correct the suite$"):
        reading.some([], "f")


@pytest.mark.parametrize(
    "text, value", [("1", 1.0), (" -2.5e3 ", -2500.0), (3, 3.0), ("0", 0.0), (True, 1.0), (0.25, 0.25)]
)
def test_a_finite_number_is_read(text, value):
    found = reading.finite(text)
    assert found == value and type(found) is float


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "1e999", "1_000", "", "one", "0x10", float("nan")])
def test_what_is_no_finite_number_is_no_number(text):
    with pytest.raises(ValueError):
        reading.finite(text)
