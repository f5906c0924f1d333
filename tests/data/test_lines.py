"""Files of lines, JSON and tables: each form is read as other writers write it, or refused with its line."""

import csv
import gzip
import io
import json

import pytest

from embed.data import lines
from embed.data.lines import read_json_lines, read_lines, read_table
from embed.errors import ConfigError, DataError

STRANGE = [
    ("plain", "text"),
    ('"Ulysses"', 'a book by "James" Joyce'),
    ('say "hi"', '""'),
    ("a\tb", "tab inside"),
    ("one, two", "comma; semicolon"),
    ("line one\nline two", "and\n\nmore"),
    ("\u2028 ends no line \x85", "nor\x0b this"),
    (" blanks ", "\u65e5\u672c\u8a9e \u05e2\u05d1\u05e8\u05d9\u05ea"),
    ("", "empty before"),
]


def written(rows, separator, quoting, end="\n") -> str:
    """A table as Python's csv module writes it, which is what pandas uses."""
    text = io.StringIO()
    csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=end).writerows([("q", "t"), *rows])
    return text.getvalue()


def write(path, content):
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def cells(path, **options):
    return [(row["q"], row["t"]) for _, row in read_table(path, **options)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize(
    ("name", "separator"), [("a.tsv", "\t"), ("a.tsv.gz", "\t"), ("a.csv", ","), ("a.csv", ";"), ("b.csv", "\t")]
)
def test_tables_of_other_writers_come_back(tmp_path, name, separator, quoting, mark, end):
    path = write(tmp_path / name, mark + written(STRANGE, separator, quoting, end))
    assert cells(path) == STRANGE


def test_locations_are_the_lines_where_rows_begin(tmp_path):
    path = write(
        tmp_path / "a.csv", written([("one\ntwo", "a"), ("three", "b\n\nc"), ("four", "d")], ",", csv.QUOTE_MINIMAL)
    )
    assert [location for location, _ in read_table(path)] == [f"{path}:2", f"{path}:4", f"{path}:7"]


RAW = [
    [('"Hello," he said', "x"), ("b", 'an "inner" one')],
    [('"Ulysses"', "a whole cell in quotes"), ("b", "c")],
    [('5" pipe', '6"'), ('"', '""')],
    [('"never closed', "x"), ("y", "z")],
]


@pytest.mark.parametrize("rows", RAW)
def test_tabs_without_quoting_keep_their_quotes(tmp_path, rows):
    path = write(tmp_path / "a.tsv", "q\tt\n" + "".join(f"{a}\t{b}\n" for a, b in rows))
    assert cells(path) == rows


def test_a_table_that_may_be_either_is_refused_until_somebody_says_which(tmp_path):
    path = write(tmp_path / "a.tsv", 'q\tt\n"a ""b"" c"\tx\n"d"\ty\n')
    with pytest.raises(DataError, match=r"a\.tsv:2: quotes that may be part of the text.*quoting = 'none' or 'csv'"):
        cells(path)
    assert cells(path, quoting="csv") == [('a "b" c', "x"), ("d", "y")]
    assert cells(path, quoting="none") == [('"a ""b"" c"', "x"), ('"d"', "y")]
    with pytest.raises(ConfigError, match="quoting = 'cvs'; did you mean 'csv'"):
        cells(path, quoting="cvs")


BROKEN = {
    "open quote": ("a.csv", 'q,t\na,b\n"c,d\n', r"a\.csv:3: a quote of the table is not closed"),
    "too few": ("a.csv", "q,t\na\n", r"a\.csv:2: 1 columns, the header has 2"),
    "too many": ("a.tsv", "q\tt\na\tb\tc\n", r"a\.tsv:2: 3 columns, the header has 2; put the cell"),
    "one column twice": ("a.tsv", "q\tq\na\tb\n", r"a\.tsv:1: two columns are called 'q'"),
    "blank inside": ("a.tsv", "q\tt\n\na\tb\n", r"a\.tsv:2: a blank line inside the table"),
    "not UTF-8": ("a.csv", b'q,t\na,"b\xff"\n', r"a\.csv:2: not valid UTF-8 at byte 4"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_table_names_its_line(tmp_path, case):
    name, content, message = BROKEN[case]
    with pytest.raises(DataError, match=message):
        list(read_table(write(tmp_path / name, content)))


def test_blank_lines_at_the_end_are_passed_over(tmp_path):
    assert cells(write(tmp_path / "a.tsv", "q\tt\na\tb\n\n\n")) == [("a", "b")]


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path):
    assert [line for _, line in read_lines(write(tmp_path / "a.txt", "\ufeffone\n\ufefftwo\n"))] == ["one", "\ufefftwo"]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_of_objects_is_read_as_its_objects(tmp_path, name, indent):
    rows = [{"q": "a"}, {"q": "b", "n": ["c"]}]
    path = write(tmp_path / name, "\ufeff" + json.dumps(rows, indent=indent))
    assert list(read_json_lines(path)) == [(f"{path}[0]", rows[0]), (f"{path}[1]", rows[1])]


BAD_JSON = {
    "a number in an array": ('[{"q": 1}, 2]', r"\[1\]: a JSON int, expected an object"),
    "an open array": ('[{"q": 1}', "not valid JSON"),
    "one object over lines": ('{\n "q": 1\n}\n', r":1: not valid JSON.*each record a line of its own"),
    "a key twice": ('{"q": "a", "q": "b"}\n', r":1: not valid JSON \(the key 'q' stands twice"),
    "a key twice in an array": ('[{"q": "a", "q": "b"}]', "the key 'q' stands twice"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_json_is_refused_with_its_place(tmp_path, case):
    content, message = BAD_JSON[case]
    with pytest.raises(DataError, match=message):
        list(read_json_lines(write(tmp_path / "a.json", content)))


def test_a_line_without_end_and_a_gzip_bomb_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE", 1000)
    with pytest.raises(DataError, match=r"a\.txt:2: the line is longer than 1,000 bytes"):
        list(read_lines(write(tmp_path / "a.txt", "a\n" + "b" * 2000)))
    monkeypatch.setattr(lines, "_MAX_UNCHECKED", 10_000)
    with pytest.raises(DataError, match=r"a\.txt\.gz:\d+: expands to more than 200 times its size"):
        list(read_lines(write(tmp_path / "a.txt.gz", "a\n" * 1_000_000)))


def test_line_ends_of_an_old_mac_are_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\rtwo\rthree\r")
    with pytest.raises(DataError, match=r"a.txt:1: holds a carriage return without a line feed"):
        list(lines.read_lines(tmp_path / "a.txt"))
    (tmp_path / "a.csv").write_bytes(b"a,b\r1,2\r")
    with pytest.raises(DataError, match=r"a.csv:1: holds a carriage return without a line feed"):
        list(lines.read_table(tmp_path / "a.csv"))


def test_utf_16_without_a_mark_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\ntwo\n".encode("utf-16-le"))
    with pytest.raises(
        DataError, match=r"a.txt:1: holds a NUL character, as UTF-16 .* does; convert the file to UTF-8"
    ):
        list(lines.read_lines(tmp_path / "a.txt"))


def test_the_separator_is_told_by_what_stands_outside_quotes(tmp_path):
    (tmp_path / "a.csv").write_text('"id";"text, long"\n"1";"a, b"\n')
    assert [row for _, row in lines.read_table(tmp_path / "a.csv")] == [{"id": "1", "text, long": "a, b"}]


def test_the_line_of_a_broken_array_counts_blank_lines(tmp_path):
    (tmp_path / "a.json").write_text('\n\n[\n\n{"a": 1},\n\n{"a": x}]\n')
    with pytest.raises(DataError, match=r"line 7.*; correct the array"):
        list(lines.read_json_lines(tmp_path / "a.json"))
