"""Files of lines, JSON and tables: each form is read as other writers write it, or refused with its line."""

import gzip
import itertools
import json
import re

import pytest
from source_files import PAIR, json_lines, refused, write

from embed import sources
from embed.errors import DataError
from embed.sources import lines, tables
from embed.sources.lines import read_json_lines, read_lines
from embed.sources.tables import read_table


def cells(path, **options):
    return [(row["q"], row["t"]) for _, row in read_table(path, **options)]


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


@pytest.mark.slow
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
        list(tables.read_table(tmp_path / "a.csv"))


def test_utf_16_without_a_mark_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\ntwo\n".encode("utf-16-le"))
    with pytest.raises(
        DataError, match=r"a.txt:1: holds a NUL character, as UTF-16 .* does; convert the file to UTF-8"
    ):
        list(lines.read_lines(tmp_path / "a.txt"))


def test_the_line_of_a_broken_array_counts_blank_lines(tmp_path):
    (tmp_path / "a.json").write_text('\n\n[\n\n{"a": 1},\n\n{"a": x}]\n')
    with pytest.raises(DataError, match=r"line 7.*; correct the array"):
        list(lines.read_json_lines(tmp_path / "a.json"))


GOOD = '{"q": "a", "t": "b"}'


@pytest.mark.parametrize("name", ["bad.jsonl", "bad.jsonl.gz"])
def test_bad_utf8_is_refused_with_its_byte(tmp_path, name):
    line = b'{"q": "\xc3\xa9 \xff", "t": "b"}'
    path = write(tmp_path / name, f"{GOOD}\n".encode() + line + b"\n")
    refused(
        sources.JsonLines(path, PAIR), f"{path}:2: not valid UTF-8 at byte {line.index(0xFF)} of the line", "convert"
    )
    path = write(tmp_path / name.replace("jsonl", "tsv"), b"q\tt\na\tb\xe9\n")
    refused(sources.TabSeparated(path, PAIR), f"{path}:2: not valid UTF-8 at byte 3 of the line", "convert")


def test_a_cut_gzip_stream_is_refused_with_its_place(tmp_path):
    import random

    texts = random.Random(0)
    rows = [{"q": str(texts.random()), "t": "b"} for _ in range(2000)]
    whole = gzip.compress(json_lines(*rows).encode())
    for name, data in {
        "cut": whole[: len(whole) // 2],
        "tail": whole[:-4],
        "flipped": whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:],
        "plain": b'{"q": "a", "t": "b"}\n',
    }.items():
        path = write(tmp_path / f"{name}.jsonl.gz", data, packed=False)
        message = refused(sources.JsonLines(path, PAIR), f"{path}:", "cut or damaged", "fetch the file again")
        assert re.match(r":\d+: ", message.removeprefix(path)), message
    path = write(tmp_path / "tail.jsonl.gz", whole[:-9], packed=False)
    found = itertools.islice(sources.JsonLines(path, PAIR).examples(), 5)
    assert [record["query"] for _, record in found] == [row["q"] for row in rows[:5]]


def test_what_is_written_is_read_back_and_depends_on_the_rows_alone(tmp_path):
    rows = [{"query": "\u00e9 \u2028 x", "target": 'quoted " and {b}'}, {"query": "c", "target": "d\te\nf"}]
    for name in ("one.jsonl.gz", "two.jsonl.gz"):
        lines.write_json_lines(tmp_path / name, rows)
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()
    assert [row for _, row in lines.read_json_lines(str(tmp_path / "one.jsonl.gz"))] == rows
    cells = [["1", 'say "hi"', "\u00e9"], ["2", "it's", "{x}"]]
    for name in ("one.tsv.gz", "two.tsv.gz"):
        lines.write_tsv(tmp_path / name, ["a", "b", "c"], cells)
    assert (tmp_path / "one.tsv.gz").read_bytes() == (tmp_path / "two.tsv.gz").read_bytes()
    assert [list(row.values()) for _, row in tables.read_table(str(tmp_path / "one.tsv.gz"))] == cells


def test_what_utf8_cannot_hold_is_written_escaped(tmp_path):
    rows = [{"query": "ü\u2028", "note": "half \ud800"}, {"query": "plain ü"}]
    lines.write_json_lines(tmp_path / "a.jsonl.gz", rows)
    assert [row for _, row in read_json_lines(str(tmp_path / "a.jsonl.gz"))] == rows
