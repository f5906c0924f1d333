"""Small files of tasks of every type, and what reading them gives or says."""

import gzip
import json

import pytest

from embed.errors import DataError
from embed.evaluation import readers

QUERIES = [{"id": "q1", "text": "red fox"}, {"id": "q2", "text": "blue sky"}, {"_id": 3, "text": " grass "}]
CORPUS = [
    {"id": "d1", "title": "Fox", "text": "A red fox."},
    {"id": "d2", "text": "The sky."},
    {"_id": 7, "text": "Grass."},
]
QRELS = [("q1", "d1", "2"), ("q2", "d2", "1"), ("3", "7", "1"), ("q1", "d2", "0")]
PACKED = pytest.mark.parametrize("suffix", ["", ".gz"])


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{line}\n" for line in lines)
    with gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def write_json(path, rows):
    return write_lines(path, [json.dumps(row, ensure_ascii=False) for row in rows])


def write_tsv(path, header, rows):
    return write_lines(path, ["\t".join(header.split()), *map("\t".join, rows)])


def write_retrieval(folder, queries=QUERIES, corpus=CORPUS, qrels=QRELS, suffix="", qrels_name="qrels.tsv"):
    write_json(folder / f"queries.jsonl{suffix}", queries)
    write_json(folder / f"corpus.jsonl{suffix}", corpus)
    write_tsv(folder / f"{qrels_name}{suffix}", "query-id corpus-id score", qrels)
    return folder


def read(kind, path, **fields):
    return readers.read({"name": "t", "type": kind, **fields}, path)


def refused(kind, path, *parts, **fields):
    """Reading is a DataError of one line that holds every one of `parts`."""
    with pytest.raises(DataError) as caught:
        read(kind, path, **fields)
    message = str(caught.value)
    assert "\n" not in message and caught.value.exit_code == 65
    for part in parts:
        assert str(part) in message
    return message


def write_instructions(folder, suffix="", **changes):
    parts = {
        "queries": [
            {"id": "q1-og", "text": "foxes", "instruction": "about animals"},
            {"id": "q1-changed", "text": "foxes", "instruction": "not red ones"},
            {"id": "q2-og", "text": "sky"},
            {"id": "q2-changed", "text": "sky", "instruction": None},
        ],
        "corpus": CORPUS,
        "top_ranked": [
            {"query-id": f"{q}-{end}", "corpus-ids": ["d1", "d2", 7]} for q in ("q1", "q2") for end in ("og", "changed")
        ],
        "qrel_diff": [{"query-id": "q1", "corpus-ids": ["d1"]}, {"query-id": "q2", "corpus-ids": [7, "d2"]}],
        **changes,
    }
    for name, rows in parts.items():
        write_json(folder / f"{name}.jsonl{suffix}", rows)
    qrels = [(f"{q}-{end}", d, "1") for q in ("q1", "q2") for end in ("og", "changed") for d in ("d1", "7")]
    write_tsv(folder / f"qrels/test.tsv{suffix}", "query-id corpus-id score", qrels)
    return folder
