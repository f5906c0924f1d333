"""Every kind of source gives the right records, and every bad input is one line with its place and what to do."""

import gzip
import itertools
import json

import pytest
from source_files import PAIR, json_lines, parquet_file, records, refused, write

from embed import sources
from embed.data import seqio_tasks
from embed.data.tasks import Task
from embed.data.text_features import Lengths, pairs
from embed.errors import ConfigError, DataError, EmbedError
from embed.sources.fields import BadRecords


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines_are_mapped_cleaned_and_placed(tmp_path, name):
    rows = [
        {"q": "  e\u0301 ", "t": "x\n", "n": ["n1", " n2 "], "h": " Title ", "other": 1},
        {"q": "{braces}", "t": "\U0001f600", "n": "single"},
        {"q": "b", "t": "c", "n": None, "h": None},
    ]
    path = write(tmp_path / name, json_lines(*rows[:2]) + "\n  \n" + json_lines(rows[2]))
    fields = {"query": "q", "target": "t", "negatives": "n", "title": "h"}
    assert list(sources.JsonLines(path, fields).examples()) == [
        (f"{path}:1", {"query": "\u00e9", "target": "x", "negatives": ["n1", "n2"], "title": "Title"}),
        (f"{path}:2", {"query": "{braces}", "target": "\U0001f600", "negatives": ["single"], "title": ""}),
        (f"{path}:5", {"query": "b", "target": "c", "negatives": [], "title": ""}),
    ]


def test_the_default_fields_are_query_and_target(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"query": "a", "target": "b", "x": "c"}\r\n{"query": "d", "target": "e"}')
    assert records(sources.JsonLines(path)) == [{"query": "a", "target": "b"}, {"query": "d", "target": "e"}]


def test_line_separators_of_unicode_end_no_line(tmp_path):
    row = {"query": "a\u2028b\u0085c", "target": "d"}
    path = write(tmp_path / "a.jsonl", json_lines(row, row))
    assert [location for location, _ in sources.JsonLines(path).examples()] == [f"{path}:1", f"{path}:2"]


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_tab_separated_columns_without_quoting(tmp_path, name):
    path = write(tmp_path / name, 'q\tt\tu\n"a\tb"\tc\n d \t{e}\t\r\n')
    assert list(sources.TabSeparated(path, PAIR).examples()) == [
        (f"{path}:2", {"query": '"a', "target": 'b"'}),
        (f"{path}:3", {"query": "d", "target": "{e}"}),
    ]


def test_parquet_columns(tmp_path):
    count = 2500  # more than one batch of rows
    columns = {
        "q": [f" query {i} " for i in range(count)],
        "t": [f"target {i}" for i in range(count)],
        "n": [[f"n{i}"] * (i % 3) if i % 5 else None for i in range(count)],
        "h": [None if i % 2 else "H" for i in range(count)],
    }
    path = parquet_file(tmp_path / "a.parquet", columns)
    fields = {"query": "q", "target": "t", "negatives": "n", "title": "h"}
    found = list(sources.Parquet(path, fields).examples())
    assert [location for location, _ in found] == [f"{path}:{i + 1}" for i in range(count)]
    assert [record for _, record in found] == [
        {
            "query": f"query {i}",
            "target": f"target {i}",
            "negatives": [f"n{i}"] * (i % 3) if i % 5 else [],
            "title": "" if i % 2 else "H",
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("kind", [sources.JsonLines, sources.TabSeparated, sources.Parquet, sources.LabelledTexts])
def test_a_missing_file_is_named_with_the_setting_to_correct(tmp_path, kind):
    for path in (str(tmp_path / "absent.jsonl"), str(tmp_path / "*.absent")):
        refused(kind(path), f"{path}: no such file", f"correct {kind.__name__}.path")
        with pytest.raises(DataError, match="no such file"):
            kind(path).fingerprint()


def test_one_missing_file_among_several_is_not_passed_over(tmp_path):
    there = write(tmp_path / "there.jsonl", json_lines({"query": "a", "target": "b"}))
    absent = str(tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match="no such file") as caught:
        sources.JsonLines([there, absent]).paths()
    assert "absent.jsonl" in str(caught.value)


def test_a_fingerprint_follows_the_content(tmp_path):
    path = write(tmp_path / "a.jsonl", "one")
    before = sources.JsonLines(path).fingerprint()
    assert before == sources.JsonLines(path, PAIR).fingerprint()
    write(tmp_path / "a.jsonl", "two")
    assert sources.JsonLines(path).fingerprint() != before


GOOD = '{"q": "a", "t": "b"}'


BAD_LINES = {
    "not json": ('{"q": "a", "t": }', "not valid JSON", "correct or remove the line"),
    "cut json": ('{"q": "a", "t": "b', "not valid JSON", "correct or remove the line"),
    "two objects": (GOOD + GOOD, "not valid JSON", "correct or remove the line"),
    "a list": ('["a", "b"]', "a JSON list", "expected an object"),
    "a text": ('"a"', "a JSON str", "expected an object"),
    "a null": ("null", "a JSON NoneType", "expected an object"),
    "nested too deep": ("[" * 200_000, "not valid JSON"),
    "no field": ('{"q": "a", "tt": "b"}', "no field 't' (mapped to target)", "did you mean 'tt'?"),
    "no field near": ('{"q": "a", "xyz": "b"}', "no field 't' (mapped to target)", "known: q, xyz"),
    "a number": ('{"q": 5, "t": "b"}', "field 'q' is int", "expected a text"),
    "a list of numbers": ('{"q": "a", "t": [5]}', "field 't' is int", "expected a text"),
    "an empty list": ('{"q": "a", "t": []}', "field 't' is an empty list", "remove the record or fill it"),
    "a list with an empty text": ('{"q": "a", "t": ["b", " "]}', "field 't' is empty", "remove the record or fill it"),
    "null": ('{"q": "a", "t": null}', "field 't' is missing or null", "expected a text"),
    "empty": ('{"q": "", "t": "b"}', "field 'q' is empty", "remove the record or fill it"),
    "white space": ('{"q": "a", "t": " \\t\\n\\u00a0"}', "field 't' is empty", "remove the record or fill it"),
    "lone surrogate": ('{"q": "x\\ud800y", "t": "b"}', "field 'q' holds a lone surrogate", "remove it"),
    "empty negative": ('{"q": "a", "t": "b", "n": ["c", " "]}', "field 'n' is empty", "remove the record or fill it"),
    "number in negatives": ('{"q": "a", "t": "b", "n": ["c", 1]}', "field 'n' is int", "expected a text"),
    "number as negatives": ('{"q": "a", "t": "b", "n": 7}', "field 'n' is int", "expected"),
    "true as negatives": ('{"q": "a", "t": "b", "n": true}', "field 'n' is bool", "expected"),
    "object as negatives": ('{"q": "a", "t": "b", "n": {"c": 1}}', "field 'n' is dict", "expected"),
    "surrogate in negatives": (
        '{"q": "a", "t": "b", "n": ["\\udfff"]}',
        "field 'n' holds a lone surrogate",
        "remove it",
    ),
    "number as title": ('{"q": "a", "t": "b", "h": 3}', "field 'h' is int", "expected a text"),
    "surrogate in title": ('{"q": "a", "t": "b", "h": "\\ud83d"}', "field 'h' holds a lone surrogate", "remove it"),
}


@pytest.mark.parametrize("case", BAD_LINES)
@pytest.mark.parametrize("name", ["bad.jsonl", "bad.jsonl.gz"])
def test_a_bad_line_is_refused_with_its_place(tmp_path, case, name):
    line, *said = BAD_LINES[case]
    path = write(tmp_path / name, f"{GOOD}\n\n{line}\n{GOOD}\n")
    fields = {**PAIR, "negatives": "n", "title": "h"}
    refused(sources.JsonLines(path, fields), f"{path}:3: ", *said)


@pytest.mark.parametrize(("line", "columns"), [("a", 1), ("a\tb\tc", 3)])
def test_a_wrong_number_of_columns_is_refused(tmp_path, line, columns):
    path = write(tmp_path / "bad.tsv", f"q\tt\na\tb\n{line}\nc\td\n")
    refused(sources.TabSeparated(path, PAIR), f"{path}:3: {columns} columns, the header has 2", "in quotes")


def test_a_missing_column_and_an_empty_cell_are_refused(tmp_path):
    path = write(tmp_path / "bad.tsv", "q\ttarget\na\tb\n")
    refused(
        sources.TabSeparated(path, {"query": "q", "target": "targt"}), f"{path}:2: no field 'targt'", "mean 'target'?"
    )
    path = write(tmp_path / "bad2.tsv", "q\tt\na\t \n")
    refused(sources.TabSeparated(path, PAIR), f"{path}:2: field 't' is empty", "remove the record")


@pytest.mark.parametrize("kind", [sources.JsonLines, sources.TabSeparated, sources.Parquet])
def test_a_bad_field_map_is_refused_before_a_file_is_opened(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(seqio_tasks, "libraries", lambda: (None, None))  # and before seqio, slow to load, is used
    absent, features = str(tmp_path / "absent"), pairs(Lengths())
    for fields, said in [
        ({**PAIR, "negative": "n"}, ("unknown role 'negative'", "did you mean 'negatives'?")),
        (
            {**PAIR, "xyz": "n"},
            (
                "unknown role 'xyz'",
                "known: negatives, query, query_key, query_prompt, target, target_key, target_prompt, title",
            ),
        ),
        ({"query": "q"}, ("no field is mapped to 'target'",)),
        ({"target": "t"}, ("no field is mapped to 'query'",)),
        ({}, ("no field is mapped to 'query'",)),
    ]:
        with pytest.raises(DataError) as caught:
            seqio_tasks._source(Task("t", kind(absent, fields)), features, seqio_tasks._Failures(), None)
        assert str(caught.value).startswith(f"{kind.__name__}.fields: ")
        assert all(part in str(caught.value) for part in said)


def test_a_damaged_parquet_file_is_refused(tmp_path):
    whole = tmp_path / "whole.parquet"
    parquet_file(whole, {"q": [f"query {i}" for i in range(5000)], "t": [f"target {i}" for i in range(5000)]})
    data = whole.read_bytes()
    for name, damaged in {
        "text": b"not parquet at all",
        "empty": b"",
        "cut": data[: len(data) // 2],
        "pages": data[:4] + b"\xff" * 3000 + data[3004:],
        "footer": data[:-60] + b"\xff" * 40 + data[-20:],
    }.items():
        path = write(tmp_path / f"{name}.parquet", damaged)
        refused(sources.Parquet(path, PAIR), f"{path}: not a readable parquet file (", "fetch it again")


def test_bad_parquet_values_are_refused_with_their_row(tmp_path):
    path = parquet_file(tmp_path / "a.parquet", {"q": ["a", "b"], "t": ["c", None]})
    refused(sources.Parquet(path, PAIR), f"{path}:2: field 't' is missing or null", "expected a text")
    refused(sources.Parquet(path, {**PAIR, "target": "tt"}), f"{path}:1: no field 'tt'", "did you mean 't'?")
    path = parquet_file(tmp_path / "b.parquet", {"q": [1, 2], "t": ["c", "d"]})
    refused(sources.Parquet(path, PAIR), f"{path}:1: field 'q' is int", "expected a text")
    path = parquet_file(tmp_path / "c.parquet", {"q": ["a", " "], "t": ["c", "d"]})
    refused(sources.Parquet(path, PAIR), f"{path}:2: field 'q' is empty", "remove the record")


def test_bytes_in_a_parquet_column_are_read_as_utf8_or_refused_with_their_row(tmp_path):
    path = parquet_file(tmp_path / "a.parquet", {"q": ["\u00e9".encode(), b"ab\xff"], "t": ["c", "d"]})
    assert next(iter(sources.Parquet(path, PAIR).examples())) == (f"{path}:1", {"query": "\u00e9", "target": "c"})
    refused(sources.Parquet(path, PAIR), f"{path}:2: ", "UTF-8")


@pytest.mark.parametrize("name", ["conala", "medquad", "tldr-command"])
def test_shared_training_files_are_read_with_a_field_map(shared_data, name):
    path = shared_data / "train" / f"{name}.jsonl.gz"
    source = sources.JsonLines(str(path), {"query": "query", "target": "positive"})
    with gzip.open(path, "rt", encoding="utf-8") as f:
        raw = [json.loads(line) for line in itertools.islice(f, 50)]
    found = list(itertools.islice(source.examples(), 50))
    assert [location for location, _ in found] == [f"{path}:{i + 1}" for i in range(50)]
    assert [r["query"] for _, r in found] == [r["query"].strip() for r in raw]
    assert [r["target"] for _, r in found] == [r["positive"].strip() for r in raw]
    with pytest.raises(EmbedError, match=":1: no field 'target'"):
        next(sources.JsonLines(str(path)).examples())


def test_optional_roles_that_are_not_mapped_have_no_effect(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"query": "q", "target": "t"}\n')
    with pytest.raises(DataError, match="JsonLines.optional: 'title' has no effect"):
        records(sources.JsonLines(str(path), optional=("title",)))


HALF_BAD = [
    '{"query": "a", "target": "b"}',
    "{",
    '{"query": "", "target": "b"}',
    "7",
    '{"query": "c", "target": "d"}',
    "\xff",
]


@pytest.fixture
def half_bad(tmp_path):
    (tmp_path / "f.jsonl").write_bytes("\n".join(HALF_BAD).encode("latin-1") + b"\n")
    return str(tmp_path / "f.jsonl")


def test_bad_records_end_the_reading_unless_they_are_to_be_skipped(half_bad):
    with pytest.raises(DataError, match=r"f.jsonl:2: not valid JSON"):
        list(sources.JsonLines(half_bad).examples())
    source = sources.JsonLines(half_bad, on_bad_record="skip", max_bad_share=0.7)
    for _ in range(2):  # counted anew each time
        assert records(source) == [{"query": "a", "target": "b"}, {"query": "c", "target": "d"}]
        assert (source.bad_records.read, source.bad_records.skipped) == (2, 4)
    first = source.bad_records.first
    assert [line.partition(": ")[0] for line in first] == [f"{half_bad}:{n}" for n in (2, 3, 4)]


def test_more_bad_records_than_the_quota_are_refused_early_and_at_the_end(half_bad, tmp_path, monkeypatch):
    with pytest.raises(
        DataError, match=r"4 of 6 records are bad, more than JsonLines.max_bad_share = 0.6; the first: .*f.jsonl:2"
    ):
        list(sources.JsonLines(half_bad, on_bad_record="skip", max_bad_share=0.6).examples())
    (tmp_path / "long.jsonl").write_text("{\n" * 5000)
    monkeypatch.setattr(BadRecords, "MIN_RECORDS", 50)
    with pytest.raises(DataError, match="50 of 50 records are bad"):
        list(sources.JsonLines(str(tmp_path / "long.jsonl"), on_bad_record="skip").examples())


def test_rows_of_a_table_with_other_columns_are_skipped(tmp_path):
    (tmp_path / "t.tsv").write_text("query\ttarget\na\tb\nc\nd\te\tf\ng\th\n")
    source = sources.TabSeparated(str(tmp_path / "t.tsv"), quoting="none", on_bad_record="skip", max_bad_share=0.5)
    assert [r["query"] for r in records(source)] == ["a", "g"] and source.bad_records.skipped == 2


def test_a_file_that_is_missing_is_no_bad_record(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        records(sources.JsonLines(str(tmp_path / "none.jsonl"), on_bad_record="skip"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_bad_record": "ignore"}, "JsonLines.on_bad_record = 'ignore'.*error, skip"),
        ({"max_bad_share": 0.5}, "max_bad_share has an effect with on_bad_record = 'skip' only"),
        ({"on_bad_record": "skip", "max_bad_share": 1.5}, "JsonLines.max_bad_share = 1.5"),
    ],
)
def test_wrong_policies_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        sources.JsonLines("f.jsonl", **options)


def test_a_cell_of_a_table_may_hold_a_list_of_targets_as_json(tmp_path):
    path = write(tmp_path / "a.csv", 'query,target,negatives\nq,"[""a"", ""b""]","[""c""]"\nr,[Laughter],[]\n')
    fields = {"query": "query", "target": "target", "negatives": "negatives"}
    assert records(sources.TabSeparated(path, fields)) == [
        {"query": "q", "target": ["a", "b"], "negatives": ["c"]},
        {"query": "r", "target": "[Laughter]", "negatives": []},
    ]
    python = write(tmp_path / "b.csv", "query,target\nq,\"['a', 'b']\"\n")
    refused(sources.TabSeparated(python), str(python), "field 'target' looks like a list and is no JSON list")
    text = write(tmp_path / "c.jsonl", json_lines({"query": "q", "target": '["a"]'}))
    assert records(sources.JsonLines(text)) == [{"query": "q", "target": '["a"]'}]


def test_parquet_with_two_columns_of_one_name_is_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    table = pyarrow.table([["q"], ["a"], ["b"]], names=["query", "target", "target"])
    parquet.write_table(table, tmp_path / "a.parquet")
    refused(sources.Parquet(str(tmp_path / "a.parquet")), str(tmp_path), "two columns are called 'target'")


def test_an_array_is_never_read_without_one_of_its_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'[\n{"query": "a",\n "target": "b\xe9",\n "target": "c"}\n]\n')
    source = sources.JsonLines(str(path), on_bad_record="skip", max_bad_share=0.9)
    refused(source, str(path), ":3: not valid UTF-8")
