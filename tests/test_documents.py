"""JSON is read strictly: every way in which it is not what it should be is one line with the path."""

import json
from typing import TypedDict

import pytest

from embed import documents
from embed.errors import DataError
from embed.ranges import Count


class Shape(TypedDict):
    rows: Count
    names: list[str]


GOOD = {"rows": 3, "names": ["a"], "more": {"kept": True}}
BAD = {
    "missing": (None, "no such file"),
    "cut": (b'{"rows": 3', "not valid JSON"),
    "empty": (b"", "not valid JSON"),
    "not UTF-8": (b'{"rows": 3, "names": ["\xff"]}', "not valid JSON"),
    "nested too deep": (b"[" * 100_000, "nested too deeply"),
    "a key twice": (b'{"rows": 3, "rows": 4, "names": []}', "the key 'rows' stands twice"),
    "NaN": (b'{"rows": NaN, "names": []}', "NaN is no JSON number"),
    "infinite": (b'{"rows": 3, "names": [], "x": 1e999}', "the number 1e999 is too large"),
    "a list": (b"[1, 2]", "expected"),
    "out of range": (b'{"rows": 0, "names": []}', "expected an integer >= 1 at rows"),
    "another type": (b'{"rows": 3, "names": ["a", 5]}', "expected a text, got an integer at names[1]"),
    "a field missing": (b'{"rows": 3}', "names"),
    "two values": (b'{"rows": 3, "names": []} {}', "not valid JSON"),
    "an integer of many digits": (b'{"rows": ' + b"9" * 5000 + b', "names": []}', "not valid JSON"),
}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_what_is_right_is_read_with_all_its_keys(tmp_path, mark):
    path = tmp_path / "a.json"
    path.write_bytes(mark + json.dumps(GOOD).encode())
    assert documents.read_json(path, Shape) == GOOD


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_one_line(tmp_path, case):
    content, message = BAD[case]
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        documents.read_json(path, Shape)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_and_a_file_that_is_too_large_are_refused(tmp_path):
    with pytest.raises(DataError, match="not a file"):
        documents.read_json(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps({"a": "b" * 100}))
    with pytest.raises(DataError, match=r"109 bytes, more than the 50 that such a file may have"):
        documents.read_json(tmp_path / "a.json", max_bytes=50)
