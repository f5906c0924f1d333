"""Tables of text files: written by the tools that users have, and read back as they were."""

import csv
import io

import pytest
from source_files import write

from embed.errors import ConfigError, DataError
from embed.sources import tables
from embed.sources.tables import read_table

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


def said(i):
    return f'"She said ""hello {i}"" to me"'


DAMAGED = {
    "a row too wide": [*(f"q{i}\t{said(i)}" for i in range(4)), "q4\tan extra\ttab"],
    "cut": [*(f"q{i}\t{said(i)}" for i in range(4)), 'q4\t"She said ""hel'],
    "a quote inside": [*(f"q{i}\t{said(i)}" for i in range(4)), 'q4\t"a "b" c"'],
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_bad_row_does_not_make_the_quotes_of_the_others_text(tmp_path, case):
    path = write(tmp_path / "a.tsv", "q\tt\n" + "\n".join(DAMAGED[case]) + "\n")
    with pytest.raises(DataError, match=r"a\.tsv:6: "):
        cells(path)
    refused = []
    read = [(row["q"], row["t"]) for _, row in read_table(path, refuse=refused.append)]
    assert read == [(f"q{i}", f'She said "hello {i}" to me') for i in range(4)] and len(refused) == 1


@pytest.mark.parametrize("quoting", ["csv", "none"])
def test_rows_that_cannot_be_read_are_left_out_one_at_a_time(tmp_path, quoting):
    rows = [b"a,b", b"caf\xe9,x", b"c,d", b"nul\x00,x", b"e,f"]
    if quoting == "csv":
        rows += [b'"g" ,x', b'"h\n\xff",x', b'"i\nj",k']
    name, separator = ("a.csv", b",") if quoting == "csv" else ("a.tsv", b"\t")
    path = write(tmp_path / name, b"q,t\n".replace(b",", separator) + b"\n".join(rows).replace(b",", separator) + b"\n")
    refused = []
    read = [(location.rpartition(":")[2], row["q"]) for location, row in read_table(path, quoting, refused.append)]
    expected = [("2", "a"), ("4", "c"), ("6", "e")]
    assert read == expected + ([("10", "i\nj")] if quoting == "csv" else [])
    assert [str(e).partition(": ")[0].rpartition(":")[2] for e in refused] == ["3", "5", "7", "9"][: len(refused)]
    assert len(refused) == (4 if quoting == "csv" else 2)


def test_a_quote_that_is_open_for_several_lines_ends_the_reading(tmp_path):
    path = write(tmp_path / "a.csv", 'q,t\n"a,b\nc,d\ne,f\n')
    with pytest.raises(DataError, match=r"a\.csv:2: a quote of the table is not closed"):
        list(read_table(path, refuse=lambda e: None))
    with pytest.raises(DataError, match=r"b\.csv:1: not valid UTF-8"):
        list(read_table(write(tmp_path / "b.csv", b"q,\xe9\na,b\n"), refuse=lambda e: None))


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


def test_the_separator_is_told_by_what_stands_outside_quotes(tmp_path):
    (tmp_path / "a.csv").write_text('"id";"text, long"\n"1";"a, b"\n')
    assert [row for _, row in tables.read_table(tmp_path / "a.csv")] == [{"id": "1", "text, long": "a, b"}]
