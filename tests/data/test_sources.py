"""Every kind of source gives the right records, and every bad input is one line with its place and what to do."""

import dataclasses
import gzip
import itertools
import json
import pathlib
import re

import pytest

from embed.data import seqio_tasks, sources
from embed.data.features import roles_of
from embed.data.lines import read_json_lines
from embed.data.tasks import Task
from embed.data.text_features import Lengths, pairs
from embed.errors import ConfigError, DataError, EmbedError

PAIR = {"query": "q", "target": "t"}


def write(path, content, packed=None):
    """Writes text or bytes, gzip by the suffix; returns the path as text."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if (path.suffix == ".gz" if packed is None else packed) else data)
    return str(path)


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def parquet_file(path, columns):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), str(path))
    return str(path)


def beir(folder, qrels="q\tc\ts\n1\td1\t1\n", queries=None, corpus=None):
    write(folder / "queries.jsonl", lines(*(queries or [{"_id": "1", "text": "why"}])))
    write(folder / "corpus.jsonl", lines(*(corpus or [{"_id": "d1", "text": "so", "title": "T"}])))
    write(folder / "qrels" / "train.tsv", qrels)
    return sources.BeirFolder(str(folder))


def records(source):
    return [record for _, record in source.examples()]


def refused(source, place, *said):
    """Checks that reading gives one line that starts with `place` and says what is expected; returns the line."""
    with pytest.raises(DataError) as caught:
        list(source.examples())
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(place), message
    for part in said:
        assert part in message, message
    return message


# What good input gives.


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines_are_mapped_cleaned_and_placed(tmp_path, name):
    rows = [
        {"q": "  e\u0301 ", "t": "x\n", "n": ["n1", " n2 "], "h": " Title ", "other": 1},
        {"q": "{braces}", "t": "\U0001f600", "n": "single"},
        {"q": "b", "t": "c", "n": None, "h": None},
    ]
    path = write(tmp_path / name, lines(*rows[:2]) + "\n  \n" + lines(rows[2]))
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
    path = write(tmp_path / "a.jsonl", lines(row, row))
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


def test_beir_folder_gives_relevant_pairs_in_the_order_of_qrels(tmp_path):
    write(tmp_path / "queries.jsonl.gz", lines({"_id": "1", "text": "why"}, {"id": 2, "text": "how"}))
    corpus = [{"_id": "d1", "text": "so", "title": "T"}, {"_id": "d2", "text": "thus"}, {"_id": "d3", "text": ""}]
    write(tmp_path / "corpus.jsonl", lines(*corpus))
    write(tmp_path / "qrels" / "train.tsv", "query-id\tcorpus-id\tscore\n2\td2\t2\n1\td2\t0\n1\td3\t-1\n1\td1\t0.5\n")
    write(tmp_path / "qrels" / "test.tsv.gz", "query-id\tcorpus-id\tscore\n1\td2\t1\n")
    place = f"{tmp_path}/qrels/train.tsv"
    assert list(sources.BeirFolder(str(tmp_path)).examples()) == [
        (f"{place}:2", {"query": "how", "target": "thus", "title": ""}),
        (f"{place}:5", {"query": "why", "target": "so", "title": "T"}),
    ]
    assert records(sources.BeirFolder(str(tmp_path), "test")) == [{"query": "why", "target": "thus", "title": ""}]
    assert set(sources.BeirFolder(str(tmp_path)).fingerprint()) == {
        str(tmp_path / "queries.jsonl.gz"), str(tmp_path / "corpus.jsonl"), place,
    }  # fmt: skip


def labelled(tmp_path, mode, seed=0, rows=None):
    rows = rows or [{"text": f"{label} {i}", "label": label} for i in range(6) for label in ("red", "green", "blue")]
    rows = [*rows, {"text": "alone", "label": "grey"}]
    return sources.LabelledTexts(write(tmp_path / "l.jsonl", lines(*rows)), mode=mode, seed=seed)


def test_labels_as_targets(tmp_path):
    found = list(labelled(tmp_path, "label_as_target").examples())
    assert [location for location, _ in found] == [f"{tmp_path}/l.jsonl:{i + 1}" for i in range(19)]
    for _, record in found:
        label = record["query"].split()[0].replace("alone", "grey")
        assert record["target"] == label
        (other,) = record["negatives"]
        assert other != label and other in ("red", "green", "blue", "grey")
        assert set(record) == {"query", "target", "negatives"}
    assert len({record["negatives"][0] for _, record in found}) == 4


def test_texts_of_the_same_label_as_targets(tmp_path):
    found = list(labelled(tmp_path, "same_label_text_as_target").examples())
    assert [location for location, _ in found] == [f"{tmp_path}/l.jsonl:{i + 1}" for i in range(18)]
    for _, record in found:
        label = record["query"].split()[0]
        assert record["target"].split()[0] == label and record["target"] != record["query"]
        (negative,) = record["negatives"]
        assert negative.split()[0] != label
        assert record["target_key"] == f"label:{label}"
    assert len({record["target"] for _, record in found}) > 6


@pytest.mark.parametrize("mode", ["label_as_target", "same_label_text_as_target"])
def test_choices_depend_on_the_seed_and_nothing_else(tmp_path, mode):
    first, again, other = (records(labelled(tmp_path, mode, seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert [r["query"] for r in first] == [r["query"] for r in other]


def test_number_labels_are_texts(tmp_path):
    path = write(tmp_path / "l.jsonl", lines({"text": "a", "label": 0}, {"text": "b", "label": 1}))
    assert [r["target"] for r in records(sources.LabelledTexts(path))] == ["0", "1"]


# Paths.


def test_patterns_give_sorted_files_read_in_that_order(tmp_path):
    for name in ("b", "a10", "a2", "c"):
        write(tmp_path / "in" / f"{name}.jsonl", lines({"query": name, "target": "x"}))
    write(tmp_path / "in" / "other.txt", "not read")
    source = sources.JsonLines(str(tmp_path / "in" / "*.jsonl"))
    names = ["a10", "a2", "b", "c"]
    assert source.paths() == [str(tmp_path / "in" / f"{n}.jsonl") for n in names]
    assert [r["query"] for r in records(source)] == names
    several = sources.JsonLines([str(tmp_path / "in" / "c.jsonl"), str(tmp_path / "in" / "a*.jsonl")])
    assert [r["query"] for r in records(several)] == ["a10", "a2", "c"]
    assert list(several.fingerprint()) == several.paths()


def test_relative_patterns_are_found_from_the_working_folder(tmp_path, monkeypatch):
    write(tmp_path / "in" / "a.jsonl", lines({"query": "a", "target": "b"}))
    monkeypatch.chdir(tmp_path)
    assert sources.JsonLines("in/*.jsonl").paths() == ["in/a.jsonl"]


def test_folders_that_match_a_pattern_are_passed_over(tmp_path):
    path = write(tmp_path / "in" / "a.jsonl", lines({"query": "a", "target": "b"}))
    (tmp_path / "in" / "z.jsonl").mkdir()
    source = sources.JsonLines(str(tmp_path / "in" / "*.jsonl"))
    assert list(source.fingerprint()) == [path]
    assert records(source) == [{"query": "a", "target": "b"}]


@pytest.mark.parametrize("kind", [sources.JsonLines, sources.TabSeparated, sources.Parquet, sources.LabelledTexts])
def test_a_missing_file_is_named_with_the_setting_to_correct(tmp_path, kind):
    for path in (str(tmp_path / "absent.jsonl"), str(tmp_path / "*.absent")):
        refused(kind(path), f"{path}: no such file", f"correct {kind.__name__}.path")
        with pytest.raises(DataError, match="no such file"):
            kind(path).fingerprint()


def test_one_missing_file_among_several_is_not_passed_over(tmp_path):
    there = write(tmp_path / "there.jsonl", lines({"query": "a", "target": "b"}))
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


# Bad input, line by line.

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
    whole = gzip.compress(lines(*rows).encode())
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
def test_a_bad_field_map_is_refused_before_a_file_is_opened(tmp_path, kind):
    absent, roles = str(tmp_path / "absent"), roles_of(pairs(Lengths()))
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
            seqio_tasks._source(Task("t", kind(absent, fields)), roles, seqio_tasks._Failures())
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


def test_qrels_that_name_unknown_ids_are_refused_with_their_line(tmp_path):
    source = beir(tmp_path, "q\tc\ts\n1\td1\t1\n9\td1\t1\n")
    refused(source, f"{tmp_path}/qrels/train.tsv:3: names the query '9'", "correct qrels")
    source = beir(tmp_path, "q\tc\ts\n1\td9\t1\n")
    refused(source, f"{tmp_path}/qrels/train.tsv:2: names the document 'd9'", "correct qrels")


@pytest.mark.parametrize(
    "qrels, line",
    [("q\tc\n1\td1\n", 1), ("q\tc\ts\n1\td1\thigh\n", 2), ("q\tc\ts\n1\td1\t\n", 2), ("q\tc\ts\n1\td1\n", 2)],
)
def test_malformed_qrels_are_refused_with_their_line(tmp_path, qrels, line):
    refused(beir(tmp_path, qrels), f"{tmp_path}/qrels/train.tsv:{line}: ")


@pytest.mark.parametrize("qrels", ["1\td1\t1\n", "1 0 d1 1\n", "1\tQ0\td1\t1\n", '"q"\t"c"\t"s"\n"1"\t"d1"\t"1"\n'])
def test_qrels_of_other_forms_give_the_same_pairs(tmp_path, qrels):
    wanted = [record for _, record in beir(tmp_path, "q\tc\ts\n1\td1\t1\n").examples()]
    assert wanted and [record for _, record in beir(tmp_path, qrels).examples()] == wanted


def test_a_bad_text_in_a_beir_folder_is_placed_where_it_stands(tmp_path):
    rows = [{"_id": "d0", "text": "fine"}, {"_id": "d1", "text": " "}]
    refused(beir(tmp_path, corpus=rows), f"{tmp_path}/corpus.jsonl:2: field 'text' is empty", "remove the record")
    rows = [{"_id": "1", "txt": "why"}]
    refused(beir(tmp_path, queries=rows), f"{tmp_path}/queries.jsonl:1: no field 'text'", "did you mean 'txt'?")


@pytest.mark.parametrize("absent", ["queries.jsonl", "corpus.jsonl", "qrels/train.tsv"])
def test_an_incomplete_beir_folder_names_what_it_lacks(tmp_path, absent):
    source = beir(tmp_path)
    (tmp_path / absent).unlink()
    refused(source, f"{tmp_path}: has no {absent}", "not a BEIR folder")


def test_classification_needs_two_labels_and_a_known_mode(tmp_path):
    path = write(tmp_path / "l.jsonl", lines({"text": "a", "label": "x"}, {"text": "b", "label": "x"}))
    refused(sources.LabelledTexts(path), f"{path}: one label only ('x')", "needs two")
    empty = write(tmp_path / "e.jsonl", "")
    refused(sources.LabelledTexts(empty), f"{empty}: ", "needs two")
    message = refused(sources.LabelledTexts(path, mode="labels"), "LabelledTexts.mode = 'labels'")
    assert "label_as_target, same_label_text_as_target" in message


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a", "label": None}, "field 'label'"),
        ({"text": "a", "label": ["x", "y"]}, "field 'label'"),
        ({"text": "a", "label": {"x": 1}}, "field 'label'"),
        ({"text": "a", "label": "  "}, "field 'label' is empty"),
        ({"text": "a", "labels": "x"}, "no field 'label' (mapped to target); did you mean 'labels'?"),
        ({"txt": "a", "label": "x"}, "no field 'text' (mapped to query); did you mean 'txt'?"),
        ({"text": 3, "label": "x"}, "field 'text' is int"),
    ],
)
def test_a_bad_labelled_text_is_refused_with_its_place(tmp_path, row, said):
    path = write(tmp_path / "l.jsonl", lines({"text": "a", "label": "x"}, {"text": "b", "label": "y"}, row))
    refused(sources.LabelledTexts(path), f"{path}:3: ", said)


def test_hugging_face_datasets_name_their_package():
    try:
        import datasets  # noqa: F401
    except ImportError:
        refused(sources.HuggingFaceDataset("squad", PAIR), "Hugging Face datasets need a package", "embed[huggingface]")


def test_hugging_face_rows_are_mapped_and_placed(monkeypatch):
    import sys
    import types

    asked = []
    rows = [{"q": " a ", "t": "b"}, {"q": "c", "t": ""}]
    load = lambda name, config, split, revision: asked.append((name, config, split, revision)) or rows  # noqa: E731
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load))
    source = sources.HuggingFaceDataset("squad", PAIR, config="plain", split="dev", revision="abc")
    assert next(source.examples()) == ("squad[dev]:0", {"query": "a", "target": "b"})
    refused(source, "squad[dev]:1: field 't' is empty")
    assert set(asked) == {("squad", "plain", "dev", "abc")}
    prints = [
        dataclasses.replace(source, **change).fingerprint() for change in ({}, {"revision": "d"}, {"config": "e"})
    ]
    assert len({str(p) for p in prints}) == 3


# What we write.


def test_what_is_written_is_read_back_and_depends_on_the_rows_alone(tmp_path):
    rows = [{"query": "\u00e9 \u2028 x", "target": 'quoted " and {b}'}, {"query": "c", "target": "d\te\nf"}]
    for name in ("one.jsonl.gz", "two.jsonl.gz"):
        sources.write_json_lines(tmp_path / name, rows)
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()
    assert [row for _, row in sources.read_json_lines(str(tmp_path / "one.jsonl.gz"))] == rows
    cells = [["1", 'say "hi"', "\u00e9"], ["2", "it's", "{x}"]]
    for name in ("one.tsv.gz", "two.tsv.gz"):
        sources.write_tsv(tmp_path / name, ["a", "b", "c"], cells)
    assert (tmp_path / "one.tsv.gz").read_bytes() == (tmp_path / "two.tsv.gz").read_bytes()
    assert [list(row.values()) for _, row in sources.read_table(str(tmp_path / "one.tsv.gz"))] == cells


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


def test_a_path_that_names_a_file_is_no_pattern(tmp_path):
    """Marks of patterns in real names, and in the folders before the first *."""
    folder = tmp_path / "data [1]?"
    folder.mkdir()
    for name in ("a*.jsonl", "ab.jsonl", "x[2].jsonl"):
        (folder / name).write_text("{}\n")
    names = lambda path: [pathlib.Path(p).name for p in sources.expand_paths(str(path), "test")]  # noqa: E731
    assert names(folder / "a*.jsonl") == ["a*.jsonl"]
    assert names(folder / "x[2].jsonl") == ["x[2].jsonl"]
    assert names(folder / "*.jsonl") == ["a*.jsonl", "ab.jsonl", "x[2].jsonl"]
    assert names(folder / ".." / folder.name / "*b.jsonl") == ["ab.jsonl"]
    with pytest.raises(DataError, match="no such file"):
        names(tmp_path / "data*" / "none*.jsonl")
    with pytest.raises(DataError, match="cannot be read .File name too long"):
        names(folder / ("x" * 300))


def test_what_utf8_cannot_hold_is_written_escaped(tmp_path):
    rows = [{"query": "ü\u2028", "note": "half \ud800"}, {"query": "plain ü"}]
    sources.write_json_lines(tmp_path / "a.jsonl.gz", rows)
    assert [row for _, row in read_json_lines(str(tmp_path / "a.jsonl.gz"))] == rows


@pytest.mark.parametrize("part", ["queries", "corpus"])
@pytest.mark.parametrize(
    "rows, message",
    [
        ([("1", "a"), ("1", "b")], "the id '1' stands twice"),
        ([(None, "a")], "field '_id' is NoneType"),
        ([("", "a")], "the id, is empty"),
    ],
)
def test_ids_of_a_beir_folder_must_be_unique(tmp_path, part, rows, message):
    source = beir(tmp_path)
    content = "".join(json.dumps({"_id": key, "text": text}) + "\n" for key, text in rows)
    (tmp_path / f"{part}.jsonl").write_text(content)
    with pytest.raises(DataError, match=rf"{part}.jsonl:{len(rows)}: .*{message}"):
        records(source)


def test_a_split_without_effect_is_refused(tmp_path):
    source = beir(tmp_path)
    (tmp_path / "qrels/train.tsv").rename(tmp_path / "qrels.tsv")
    assert records(source)
    with pytest.raises(DataError, match=r"has no qrels/tset.tsv .* has no splits; correct BeirFolder.split"):
        records(dataclasses.replace(source, split="tset"))


def test_hidden_files_are_not_of_a_pattern_and_a_folder_is_no_file(tmp_path):
    for name in ("a.jsonl", ".b.jsonl"):
        write(tmp_path / name, '{"query": "q", "target": "t"}\n')
    assert [pathlib.Path(p).name for p in sources.JsonLines(str(tmp_path / "*.jsonl")).paths()] == ["a.jsonl"]
    with pytest.raises(DataError, match="is a folder; name its files"):
        sources.JsonLines(str(tmp_path)).paths()


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
    monkeypatch.setattr(sources.BadRecords, "MIN_RECORDS", 50)
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
