"""Texts joined into longer ones."""

import json

import pytest

from embed import sources
from embed.errors import ConfigError, DataError


def joined(tmp_path, rows, **options):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sources.Joined(sources.JsonLines(str(path)), **options)


ROWS = [{"q": "one", "a": ["two", "three"]}, {"q": "four", "a": []}, {"q": "one", "a": "five"}, {"q": "six", "a": None}]


def test_texts_stand_in_order_and_once_and_none_is_lost(tmp_path):
    found = list(joined(tmp_path, ROWS, texts=("q", "a"), characters=8, separator=" ").examples())
    assert [record["text"] for _, record in found] == ["one two three", "four five six"]
    assert [location.rpartition(":")[2] for location, _ in found] == ["1", "2"]


def test_the_rest_is_added_to_the_last_record(tmp_path):
    found = list(joined(tmp_path, ROWS, texts=("q", "a"), characters=14, separator=" ").examples())
    texts = [record["text"] for _, record in found]
    assert " ".join(texts) == "one two three four five six" and all(len(t.replace(" ", "")) >= 14 for t in texts)


def test_texts_may_stand_twice(tmp_path):
    found = list(joined(tmp_path, ROWS, texts=("q",), characters=4, separator=" ", unique=False).examples())
    assert [record["text"] for _, record in found] == ["one four", "one six"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"texts": ("q",), "characters": 100}, "all texts of q have 10 together; lower it"),
        ({"texts": ("q", "answer"), "characters": 3}, "no row has the field 'answer'; correct the name"),
    ],
)
def test_what_cannot_be_joined_is_one_line(options, message, tmp_path):
    with pytest.raises(DataError, match=message):
        list(joined(tmp_path, ROWS, **options).examples())


def test_fields_are_a_list(tmp_path):
    for texts, message in (("q", "expected a list, got a text"), ((), "is empty; name the fields that hold texts")):
        with pytest.raises(ConfigError, match=message):
            joined(tmp_path, ROWS, texts=texts)
