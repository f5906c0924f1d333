"""Judgements are read in every published form; what could be two forms is refused, and no first judgement is lost."""

import gzip
import itertools

import pytest

from embed.errors import DataError
from embed.sources import lines, qrels

BEIR = [("q1", "d1", 1.0), ("q2", "d 2", 0.0), ("query-id", "corpus-id", 2.0)]


def parsed(text: str) -> list[tuple[str, str, float]]:
    lines = ((f"qrels.tsv:{n}", line) for n, line in enumerate(text.splitlines(), 1))
    return [judgement[1:] for judgement in qrels.parse(lines)]


def refused(text: str, *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        parsed(text)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 65
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "header", ["", "query-id\tcorpus-id\tscore\n", "qid\tdocid\trel\n", "Query ID\tDoc_No\tLabel\n"]
)
def test_beir_with_and_without_a_header(header):
    assert parsed(header + "q1\td1\t1\nq2\td 2\t0\nquery-id\tcorpus-id\t2\n") == BEIR


@pytest.mark.parametrize("separator", ["\t", " ", "  ", " \t"])
@pytest.mark.parametrize("iteration", ["0", "Q0", "q0", "4.5"])
def test_trec_has_an_iteration(separator, iteration):
    rows = [("7", iteration, "8", "1"), ("9", iteration, "10", "2")]
    text = "".join(separator.join(row) + "\n" for row in rows)
    if separator == " \t":
        text = text.replace(" \t", "\t")
    assert parsed(text) == [("7", "8", 1.0), ("9", "10", 2.0)]


def test_ms_marco_passages():
    assert parsed("1185869\t0\t0\t1\n1185868\t0\t16\t1\n") == [("1185869", "0", 1.0), ("1185868", "16", 1.0)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_a_header_says_the_order_of_the_columns(order):
    columns = [("query-id", "7", "9"), ("iteration", "0", "0"), ("corpus-id", "8", "0"), ("score", "1", "2")]
    text = "".join("\t".join(columns[i][line] for i in order) + "\n" for line in range(3))
    assert parsed(text) == [("7", "8", 1.0), ("9", "0", 2.0)]


def test_quoted_cells_of_pandas():
    # DataFrame.to_csv(sep="\t", quoting=csv.QUOTE_ALL), and QUOTE_MINIMAL for an id with a quote
    assert parsed('"query-id"\t"corpus-id"\t"score"\n"q1"\t"d1"\t"1"\n') == [("q1", "d1", 1.0)]
    assert parsed('q1\t"a ""b"""\t1\n') == [("q1", 'a "b"', 1.0)]
    assert parsed('q1\t"a\t1\n') == [("q1", '"a', 1.0)]


def test_an_index_with_a_header_is_left_out():
    assert parsed("\tquery-id\tcorpus-id\tscore\n0\tq1\td1\t1\n1\tq2\td2\t1\n") == [
        ("q1", "d1", 1.0),
        ("q2", "d2", 1.0),
    ]
    assert parsed("Unnamed: 0\tquery-id\tcorpus-id\tscore\n5\tq1\td1\t1\n") == [("q1", "d1", 1.0)]


@pytest.mark.parametrize(
    "number, value", [("1", 1), ("-1", -1), ("+2", 2), ("0.5", 0.5), (".5", 0.5), ("3.", 3), ("1e1", 10)]
)
def test_relevance_may_be_graded_or_a_fraction(number, value):
    assert parsed(f"q1\td1\t{number}\n") == [("q1", "d1", value)]


def test_byte_order_mark_windows_line_ends_blank_lines_and_gzip(tmp_path):
    text = "\ufeffquery-id\tcorpus-id\tscore\r\n\r\nq1\td1\t1\r\nq2\td2\t1"
    for name, encode in (("q.tsv", bytes), ("q.tsv.gz", gzip.compress)):
        path = tmp_path / name
        path.write_bytes(encode(text.encode()))
        found = list(qrels.parse(lines.read_lines(str(path))))
        assert found == [(f"{path}:3", "q1", "d1", 1.0), (f"{path}:4", "q2", "d2", 1.0)]
    assert parsed("\ufeffq1\td1\t1\n") == [("q1", "d1", 1.0)]


@pytest.mark.parametrize("text", ["", "\n \n", "query-id\tcorpus-id\tscore\n"])
def test_a_file_without_judgements_gives_none(text):
    assert parsed(text) == []


@pytest.mark.parametrize(
    "text, parts",
    [
        ("q1\td1\tone\n", ["qrels.tsv:1", "neither a judgement", "no column for the query", "query-id, corpus-id and score"]),
        ("query-id\tcorpus-id\n", ["qrels.tsv:1", "no column for the relevance"]),
        ("query-id\tqid\tcorpus-id\tscore\n", ["qrels.tsv:1", "more than one column for the query"]),
        ("query-id\tcorpus-id\tscore\tyear\nq\td\t1\t1999\n", ["qrels.tsv:1", "no column 'year'", "leave it out"]),
        ("query-id,corpus-id,score\nq1,d1,1\n", ["qrels.tsv:1", "neither a judgement"]),
        ("q1 1\n", ["qrels.tsv:1", "2 columns", "TREC's query"]),
        ("q 0 d 1 7\n", ["qrels.tsv:1", "5 columns"]),
        ("q1\td1\t1\nq2\td2\n", ["qrels.tsv:2", "2 columns, the first line has 3"]),
        ("q1\td1\t1\nq2\td2\t1\t\n", ["qrels.tsv:2", "4 columns, the first line has 3"]),
        ("q1\td1\t1\nq2\td2\tmany\n", ["qrels.tsv:2", "'many' is not a number"]),
        ("q1\td1\t1\nq2\td2\tnan\n", ["qrels.tsv:2", "'nan'"]),
        ("q1\td1\t1\nq2\td2\t1e999\n", ["qrels.tsv:2", "'1e999'"]),
        ("q1\td1\t1\nq2\td2\t1_0\n", ["qrels.tsv:2", "'1_0'"]),
        ("q1\td1\t1\n\td2\t1\n", ["qrels.tsv:2", "the id of the query is empty"]),
        ("q1\td1\t1\nq2\t \t1\n", ["qrels.tsv:2", "the id of the document is empty"]),
        ("q1\td1\td2\t1\n", ["qrels.tsv:1", "the second is 'd1', not an iteration"]),
        ("0\t7\t8\t1\n1\t9\t10\t1\n", ["qrels.tsv", "higher number in every line", "index=False"]),
        ("1\t2\t2\t1\n2\t3\t3\t1\n3\t5\t4\t0\n", ["qrels.tsv", "higher number in every line"]),
        ("5\t7\t8\t1\n9\t9\t10\t1\n", ["qrels.tsv", "higher number in every line"]),
        ("7 0 8\n9 0 10\n", ["qrels.tsv", "in every line, as TREC's iteration is", "add the relevance"]),
        ("7 Q0 8\n9 Q0 10\n", ["qrels.tsv", "is Q0 in every line"]),
    ],
)  # fmt: skip
def test_other_forms_are_refused_with_the_line(text, parts):
    refused(text, *parts)


def test_what_looks_like_another_form_but_is_well_defined_is_read():
    assert parsed("0\t0\t8\t1\n1\t0\t10\t1\n") == [("0", "8", 1.0), ("1", "10", 1.0)]  # queries 0 and 1 of TREC
    assert parsed("query-id\tcorpus-id\tscore\n7\t0\t8\n9\t0\t10\n") == [("7", "0", 8.0), ("9", "0", 10.0)]
    assert parsed("7\t0\t8\n9\t1\t10\n") == [("7", "0", 8.0), ("9", "1", 10.0)]
