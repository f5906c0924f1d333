"""Encoding a file in shards: order, ids, forms, resuming, several hosts."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from embed import digests
from embed.errors import DataError, StorageError
from embed.inference import bulk
from embed.sources.input_texts import Text
from embed.vectors import quantize_binary

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


def job(folder, texts, format="npy", precision="float32", **identity) -> bulk.Job:
    made = bulk.Job(folder, format, precision, 7, bulk.scan(lambda: texts, 7), {"model": "m", **identity})
    made.begin()
    return made


@pytest.mark.parametrize("format", bulk.FORMATS)
@pytest.mark.parametrize("precision", bulk.PRECISIONS)
def test_order_ids_and_values_are_kept(format, precision, tmp_path):
    texts = some_texts(17)
    made = job(tmp_path / "out", texts, format, precision)
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
    bulk.run(job(tmp_path / "whole", texts, format), texts, Encode())
    first = Encode(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        bulk.run(job(tmp_path / "out", texts, format), texts, first)
    second = Encode()
    bulk.run(job(tmp_path / "out", texts, format), texts, second)
    assert first.seen + second.seen == [t.text for t in texts]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_two_hosts_share_the_shards_and_give_the_same_files(tmp_path):
    texts = some_texts(30)
    bulk.run(job(tmp_path / "one", texts), texts, Encode())
    hosts = [Encode(), Encode()]
    for host, encode in enumerate(hosts):
        bulk.run(job(tmp_path / "two", texts), texts, encode, host, 2)
    assert not set(hosts[0].seen) & set(hosts[1].seen)
    assert len(hosts[0].seen) + len(hosts[1].seen) == 30
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_configuration_is_refused(tmp_path):
    texts = some_texts(9)
    job(tmp_path / "out", texts, prompt="a {content}")
    with pytest.raises(DataError, match=r"begun with another prompt \('a {content}', now 'b {content}'\)"):
        job(tmp_path / "out", texts, prompt="b {content}")
    with pytest.raises(DataError, match=r"begun with another format \('npy', now 'jsonl'\)"):
        job(tmp_path / "out", texts, "jsonl", prompt="a {content}")
    with pytest.raises(DataError, match="says more than this job does"):
        job(tmp_path / "out", texts)


@pytest.mark.parametrize("field", ["id", "text", "title"])
def test_another_input_is_refused_before_anything_is_encoded(tmp_path, field):
    texts = some_texts(20)
    bulk.run(job(tmp_path / "out", texts), texts, Encode())
    changed = [*texts[:8], dataclasses.replace(texts[8], **{field: "other"}), *texts[9:]]
    with pytest.raises(DataError, match="begun with another input"):
        job(tmp_path / "out", changed)
    with pytest.raises(DataError, match="begun with another texts"):
        job(tmp_path / "out", texts[:-1])


def test_an_input_that_changes_while_it_is_read_is_refused(tmp_path):
    texts = some_texts(20)
    made = job(tmp_path / "out", texts)
    changed = [*texts[:8], Text("other", "other text", "", "in:8"), *texts[9:]]
    for given in (changed, texts[:-1], texts[:14], [*texts, *some_texts(30)[20:]]):
        with pytest.raises(DataError, match="changed while it was read"):
            bulk.run(made, given, Encode())


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="no encoding job"):
        job(tmp_path, some_texts(3))
    with pytest.raises(StorageError, match="not a folder"):
        job(tmp_path / "notes.txt", some_texts(3))
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_ids_that_come_twice_are_refused_with_both_places(tmp_path):
    texts = [*some_texts(9), Text("id 3\n é", "another text", "", "in:9")]
    with pytest.raises(DataError, match=r"in:9: the id 'id 3\\n é' is that of in:3 too.*--id_field"):
        bulk.scan(lambda: texts, 4)
    assert bulk.scan(lambda: texts, 4, unique=False).texts == 10


def finished_job(folder, texts, format="npy", precision="float32", **identity):
    made = job(folder, texts, format, precision, **identity)
    bulk.run(made, texts, Encode())
    bulk.finish(made, 0.0)
    return made


def test_a_finished_job_is_known_and_left_as_it_is(tmp_path):
    texts = some_texts(17)
    made = finished_job(tmp_path / "out", texts)
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "out").iterdir()}
    assert made.finished()["texts"] == 17 and bulk.finish(made, 0.0) == made.finished()
    bulk.run(made, texts, Encode(stop_after=0))
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "out").iterdir()} == before
    assert bulk.Job(tmp_path / "none", "npy", "float32", 7, made.input, {}).finished() is None
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("format, precision", [("npy", "int8"), ("jsonl", "float32"), ("parquet", "binary")])
def test_a_damaged_shard_is_refused_by_readers_and_encoded_again(tmp_path, format, precision):
    texts = some_texts(17)
    made = finished_job(tmp_path / "out", texts, format, precision)
    whole = contents(tmp_path / "out")
    for name in sorted(n for n in whole if n.startswith("part-00001")):
        path = tmp_path / "out" / name
        for damaged in (None, whole[name][:-3], bytes([whole[name][0] ^ 1]) + whole[name][1:]):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            with pytest.raises(DataError, match=re.escape(name)):
                bulk.read(tmp_path / "out")
            assert made.finished() is None
            lines, encode = [], Encode()
            bulk.run(made, texts, encode, say=lines.append)
            assert encode.seen == [t.text for t in texts[7:14]]
            is_gone = damaged is None and name.endswith(".json")
            assert is_gone or ([name in line and "encoded again" in line for line in lines] == [True])
            assert contents(tmp_path / "out") == whole


def test_shards_of_another_job_are_errors(tmp_path):
    texts = some_texts(17)
    made = finished_job(tmp_path / "out", texts)
    finished_job(tmp_path / "other", texts, prompt="other")
    for path in (tmp_path / "other").glob("part-00001.*"):
        shutil.copy(path, tmp_path / "out")
    for action in (lambda: bulk.read(tmp_path / "out"), lambda: bulk.run(made, texts, Encode())):
        with pytest.raises(DataError, match="part-00001.json: belongs to another job; remove it"):
            action()


@pytest.mark.parametrize(
    "name", ["part-00003.json", "part-000001.json", "part-00001.scales.npy", "part-00001 copy.npy"]
)
def test_files_that_belong_to_no_shard_are_errors(tmp_path, name):
    texts = some_texts(17)
    made = finished_job(tmp_path / "out", texts)
    (tmp_path / "out" / name).write_bytes(b"{}")
    for action in (lambda: bulk.read(tmp_path / "out"), made.begin, made.finished):
        with pytest.raises(DataError, match=f"{name}: belongs to no shard of this job"):
            action()


@pytest.mark.parametrize("name, error", [("texts", "18"), ("cut", "4"), ("seconds", "5.5")])
def test_a_changed_summary_is_noticed_and_written_again(tmp_path, name, error):
    texts = some_texts(17)
    made = finished_job(tmp_path / "out", texts)
    path = tmp_path / "out" / bulk.SUMMARY
    path.write_text(json.dumps({**json.loads(path.read_text()), name: float(error) if "." in error else int(error)}))
    with pytest.raises(DataError, match="summary.json: does not match its own digest"):
        bulk.read(tmp_path / "out")
    lines = []
    assert made.finished() is None
    assert bulk.finish(made, 0.0, lines.append)["texts"] == 17
    assert len(lines) == 1 and "summary.json" in lines[0] and "written again" in lines[0]
    assert made.finished() is not None
    # One that was sealed for other shards.
    digests.write_sealed(path, {**json.loads(path.read_text()), "cut": 9})
    with pytest.raises(DataError, match="summary.json: cut differs from what the shards hold"):
        bulk.read(tmp_path / "out")


def test_a_changed_description_is_an_error(tmp_path):
    texts = some_texts(17)
    made = finished_job(tmp_path / "out", texts)
    path = tmp_path / "out" / bulk.JOB
    whole = path.read_text()
    path.write_text(whole.replace('"shard_size": 7', '"shard_size": 8'))
    for action in (lambda: bulk.read(tmp_path / "out"), made.begin, lambda: bulk.Vectors(tmp_path / "out")):
        with pytest.raises(DataError, match="job.json: does not match its own digest"):
            action()
    older = {name: value for name, value in json.loads(whole).items() if name != "digest"}
    path.write_text(json.dumps(older))
    with pytest.raises(DataError, match="job.json:"):
        bulk.read(tmp_path / "out")
    path.unlink()
    with pytest.raises(DataError, match="job.json is missing"):
        bulk.read(tmp_path / "out")
    with pytest.raises(StorageError, match="is not empty and holds no encoding job"):
        made.begin()


def test_vectors_are_one_array_that_is_verified_as_it_is_opened(tmp_path):
    texts = some_texts(40)
    finished_job(tmp_path / "one", texts[:17])
    finished_job(tmp_path / "two", texts[17:])
    wanted = np.stack([vector(t.text) for t in texts])
    vectors = bulk.Vectors(tmp_path / "one", tmp_path / "two")
    assert vectors.shape == (40, SIZE)
    for rows in (slice(0, 40), slice(3, 25), slice(16, 18), slice(40, 50)):
        np.testing.assert_array_equal(vectors[rows], wanted[rows])
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_array_equal(vectors.take(order), wanted[order])
    path = tmp_path / "two" / "part-00002.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    damaged = bulk.Vectors(tmp_path / "one", tmp_path / "two")
    np.testing.assert_array_equal(damaged[0:30], wanted[:30])
    with pytest.raises(DataError, match="part-00002.npy is damaged"):
        damaged[30:40]
    finished_job(tmp_path / "rounded", texts, "npy", "int8")
    with pytest.raises(DataError, match="holds int8 as npy"):
        bulk.Vectors(tmp_path / "rounded")
