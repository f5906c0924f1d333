"""Retrieval sets as training pairs: each relevant pair in the order of the judgements, or one line that says what is wrong."""

import dataclasses
import json

import pytest
from source_files import beir, json_lines, records, refused, write

from embed import sources
from embed.errors import DataError


def test_beir_folder_gives_relevant_pairs_in_the_order_of_qrels(tmp_path):
    write(tmp_path / "queries.jsonl.gz", json_lines({"_id": "1", "text": "why"}, {"id": 2, "text": "how"}))
    corpus = [{"_id": "d1", "text": "so", "title": "T"}, {"_id": "d2", "text": "thus"}, {"_id": "d3", "text": ""}]
    write(tmp_path / "corpus.jsonl", json_lines(*corpus))
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
