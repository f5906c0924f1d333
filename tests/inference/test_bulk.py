"""Encoding a file in shards: order, ids, forms, resuming, several hosts."""

import json

import numpy as np
import pytest

from embed.data.texts import Text, read_texts
from embed.errors import DataError, StorageError
from embed.inference import bulk
from embed.vectors import quantize_binary, quantize_int8

SIZE = 16


def some_texts(count: int) -> list[Text]:
    return [Text(f"id {i}\n é", f"text {i}", "", f"in:{i}") for i in range(count)]


def vector(text: str) -> np.ndarray:
    drawn = np.random.default_rng(len(text) + sum(map(ord, text))).normal(size=SIZE)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


class Encode:
    """Encodes and remembers what it was asked for; stops like a kill after `stop_after` shards."""

    def __init__(self, stop_after: int = 99):
        self.seen, self.left = [], stop_after

    def __call__(self, shard):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.seen += [t.text for t in shard]
        return np.stack([vector(t.text) for t in shard]), 1


def job(folder, format="npy", precision="float32", **identity) -> bulk.Job:
    made = bulk.Job(folder, format, precision, 7, {"model": "m", **identity})
    made.begin()
    return made


@pytest.mark.parametrize("format", bulk.FORMATS)
@pytest.mark.parametrize("precision", bulk.PRECISIONS)
def test_order_ids_and_values_are_kept(format, precision, tmp_path):
    texts = some_texts(17)
    made = job(tmp_path / "out", format, precision)
    bulk.run(made, texts, Encode())
    summary = bulk.finish(made, 0.0)
    assert (summary["texts"], summary["shards"], summary["cut"]) == (17, 3, 3)
    ids, found = bulk.read(tmp_path / "out")
    assert ids == [t.id for t in texts]
    wanted = np.stack([vector(t.text) for t in texts])
    if precision == "binary":
        np.testing.assert_array_equal(found.astype(np.uint8), quantize_binary(wanted))
    else:
        np.testing.assert_allclose(found, wanted, atol=0 if precision == "float32" else 1 / 254)


def contents(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != bulk.SUMMARY}


@pytest.mark.parametrize("format", bulk.FORMATS)
def test_a_stopped_job_goes_on_where_it_was_and_ends_the_same(format, tmp_path):
    texts = some_texts(30)
    bulk.run(job(tmp_path / "whole", format), texts, Encode())
    first = Encode(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        bulk.run(job(tmp_path / "out", format), texts, first)
    second = Encode()
    bulk.run(job(tmp_path / "out", format), texts, second)
    assert first.seen + second.seen == [t.text for t in texts]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_two_hosts_share_the_shards_and_give_the_same_files(tmp_path):
    texts = some_texts(30)
    bulk.run(job(tmp_path / "one"), texts, Encode())
    hosts = [Encode(), Encode()]
    for host, encode in enumerate(hosts):
        bulk.run(job(tmp_path / "two"), texts, encode, host, 2)
    assert not set(hosts[0].seen) & set(hosts[1].seen)
    assert len(hosts[0].seen) + len(hosts[1].seen) == 30
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_configuration_is_refused(tmp_path):
    job(tmp_path / "out", prompt="a {content}")
    with pytest.raises(DataError, match=r"begun with another prompt \('a {content}', now 'b {content}'\)"):
        job(tmp_path / "out", prompt="b {content}")
    with pytest.raises(DataError, match=r"begun with another format \('npy', now 'jsonl'\)"):
        job(tmp_path / "out", "jsonl", prompt="a {content}")


def test_changed_records_are_refused(tmp_path):
    texts = some_texts(20)
    made = job(tmp_path / "out")
    bulk.run(made, texts, Encode())
    changed = [*texts[:8], Text("other", "other text", "", "in:8"), *texts[9:]]
    with pytest.raises(DataError, match=r"part-00001.json: these records were others"):
        bulk.run(made, changed, Encode())


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="no encoding job"):
        job(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_int8_keeps_the_dot_product():
    x = np.stack([vector(f"text {i}") for i in range(50)])
    values, scale = quantize_int8(x)
    assert values.dtype == np.int8 and values.min() >= -127
    back = (values.astype(np.int32) @ values.T.astype(np.int32)) * scale[:, None] * scale
    np.testing.assert_allclose(back, x @ x.T, atol=0.02)
    assert np.all(np.abs(values).max(1) == 127)
    assert np.all(np.isfinite(quantize_int8(np.zeros((2, 4)))[1]))


def test_binary_packs_signs_from_the_highest_bit():
    x = np.array([[0.5, -1, 0.1, 0, 1, 1, -2, 3, 0.2]], np.float32)
    np.testing.assert_array_equal(quantize_binary(x), [[0b10101101, 0b10000000]])


# reading


def test_kinds_of_input_give_the_same_texts(tmp_path):
    rows = [{"id": 5, "text": "eins"}, {"id": "b", "text": " zwei  "}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "a.tsv").write_text("id\ttext\n5\teins\nb\tzwei\n")
    (tmp_path / "a.txt").write_text("eins\nzwei\n")
    found = {k: [(t.id, t.text) for t in read_texts(tmp_path / f"a.{k}")] for k in ("jsonl", "tsv", "txt")}
    assert found["jsonl"] == found["tsv"] == [("5", "eins"), ("b", "zwei")]
    assert found["txt"] == [("0", "eins"), ("1", "zwei")]


def test_parquet_is_read(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"body": ["eins", "zwei"], "key": [7, 8]}), tmp_path / "a.parquet")
    found = list(read_texts(tmp_path / "a.parquet", text_field="body", id_field="key"))
    assert [(t.id, t.text) for t in found] == [("7", "eins"), ("8", "zwei")]


@pytest.mark.parametrize(
    "name, content, fields, message",
    [
        ("a.jsonl", '{"text": "a"}\n{"txt": "b"}\n', {}, r"a.jsonl:2: no field 'text'; did you mean 'txt'"),
        ("a.jsonl", '{"text": "a"}\n{"text": " "}\n', {}, r"a.jsonl:2: field 'text' is empty"),
        ("a.jsonl", '{"text": "a"}\n', {"id_field": "key"}, r"no field 'key'"),
        ("a.csv", "a", {}, r"not a kind of file that can be read; known: .jsonl"),
        ("a.parquet", None, {}, "no such file"),
        ("a.txt", "a\n\nb\n", {}, r"a.txt:2: field 'text' is empty"),
    ],
)
def test_bad_input_is_named(name, content, fields, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        list(read_texts(tmp_path / name, **fields))
