"""Records keep every value; a cache is whole or not there, found again, and refused when a byte of it changed."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from encoded_pairs import pair

from embed import files
from embed.data import cache, prepare, records, tasks
from embed.data.draws import Draws
from embed.data.record_encoder import RecordEncoder
from embed.data.tasks import RegisteredTask, Task
from embed.data.text_features import Lengths, pairs
from embed.errors import DataError
from embed.sources.record_files import JsonLines
from embed.text import target_id

FEATURES = pairs(Lengths(6, 9))
FIELDS = [field for feature in FEATURES for field in feature.fields]


@dataclasses.dataclass(frozen=True)
class LetterTokenizer:
    """One token per character."""

    digest: str = "letters"

    def encode_batch(self, texts, max_length):
        rows = [np.array([ord(c) for c in t[:max_length]], np.int32) for t in texts]
        return rows, [len(t) > max_length for t in texts]


TOKENIZER = LetterTokenizer()


def example(rng, most=9):
    counts = rng.integers(0, most, rng.integers(0, 4)).astype(np.int32)
    draw = lambda n: rng.integers(-(2**31), 2**31, n, dtype=np.int64).astype(np.int32)  # noqa: E731
    ids = lambda n: rng.integers(-(2**63), 2**63 - 1, n, dtype=np.int64)  # noqa: E731
    return pair(
        draw(rng.integers(0, 6)),
        draw(rng.integers(0, most)),
        [draw(n) for n in counts],
        query_id=ids(1)[0],
        target_id=ids(1)[0],
        negatives_id=ids(len(counts)),
        equal_ids=ids(2),
        truncated=rng.integers(0, 2, 3),
    )


def some(count, seed=0):
    rng = np.random.default_rng(seed)
    return [example(rng) for _ in range(count)]


def same(found, wanted):
    for field in FIELDS:
        assert found[field.name].dtype == field.dtype
        assert found[field.name].shape == np.shape(wanted[field.name])
        np.testing.assert_array_equal(found[field.name], wanted[field.name])


def source_file(path, rows=3):
    path.write_text("".join(f'{{"query": "q{i}", "target": "t{i}"}}\n' for i in range(rows)))
    return JsonLines(str(path))


@pytest.fixture
def task(tmp_path):
    return Task("my task/1", source_file(tmp_path / "a.jsonl"))


# Records.


def test_packed_records_come_back_with_every_value_type_and_shape():
    rng = np.random.default_rng(1)
    for _ in range(300):
        wanted = example(rng)
        found = records.unpack(records.pack(wanted, FIELDS), FIELDS)
        assert set(found) == {f.name for f in FIELDS}
        same(found, wanted)


def test_packed_records_of_other_fields_and_ranks():
    fields = (
        records.Field("image", "float32", 3), records.Field("flag", "bool", 0), records.Field("none", "int32", 2),
        records.Field("bytes", "uint8", 1), records.Field("scale", "float64", 0), records.Field("id", "int64", 1),
    )  # fmt: skip
    rng = np.random.default_rng(2)
    for _ in range(100):
        wanted = {
            "image": rng.normal(size=rng.integers(0, 4, 3)).astype(np.float32),
            "flag": np.bool_(rng.integers(2)),
            "none": np.zeros((rng.integers(0, 3), 0), np.int32),
            "bytes": rng.integers(0, 256, rng.integers(0, 9)).astype(np.uint8),
            "scale": np.float64(rng.normal()),
            "id": rng.integers(-(2**63), 2**63 - 1, rng.integers(0, 4), dtype=np.int64),
        }
        found = records.unpack(records.pack(wanted, fields), fields)
        for field in fields:
            assert found[field.name].shape == wanted[field.name].shape
            assert found[field.name].dtype == field.dtype
            np.testing.assert_array_equal(found[field.name], wanted[field.name])


def test_the_bytes_of_a_record_by_hand():
    row = {"query": [1], "query_id": [4], "label": -1, "half": [2.0, 3.0]}
    fields = [
        records.Field("query", "int32", 1), records.Field("query_id", "int64", 1),
        records.Field("label", "int64", 0), records.Field("half", "int16", 1),
    ]  # fmt: skip
    ints = lambda *values: b"".join(v.to_bytes(4, "little") for v in values)  # noqa: E731
    assert records.pack(row, fields) == ints(1, 1, 2) + ints(1) + ints(4, 0) + b"\xff" * 8 + b"\x02\x00\x03\x00"


def test_unpacked_arrays_are_read_only():
    found = records.unpack(records.pack(some(1)[0], FIELDS), FIELDS)
    with pytest.raises(ValueError, match="read-only"):
        found["query"][...] = 0


# Caches.


def test_a_written_cache_is_found_and_reads_back(tmp_path, task):
    wanted = some(50)
    seen = []
    written = cache.write(task, TOKENIZER, FEATURES, tmp_path / "caches", iter(wanted), seen.append)
    found = cache.find(task, TOKENIZER, FEATURES, tmp_path / "caches")
    assert seen == [50]
    assert found.folder == written.folder and found.manifest == written.manifest
    assert found.name == "my task/1" and len(found) == 50
    assert found.folder.parent == tmp_path / "caches"
    for reader in (written, found):
        order = [49, 0, 7, 7, 31]
        for row, i in zip(reader.read(order), order):
            same(row, wanted[i])
    assert found.columns == {"query": 1, "target": 1, "negatives": max(len(e["negatives_lengths"]) for e in wanted)}
    assert cache.Cache(found.folder, files.read_manifest(found.folder)).digest == written.digest


def test_the_manifest_counts_tokens_and_truncated_texts(tmp_path, task):
    wanted, e_sides = some(30), ("query", "target", "negatives")
    for i, e in enumerate(wanted):
        e |= {f"{name}_truncated": n for name, n in zip(e_sides, (i % 2, i % 3, 2 * (i % 5 == 0)))}
    manifest = cache.write(task, TOKENIZER, FEATURES, tmp_path / "caches", wanted).manifest
    sides = ("query", "target", "negatives")
    assert manifest["records"] == 30
    assert manifest["tokens"] == {side: sum(len(e[side]) for e in wanted) for side in sides}
    assert manifest["truncated"] == {"query": 15, "target": 30, "negatives": 12}
    line = prepare.summary(cache.find(task, TOKENIZER, FEATURES, tmp_path / "caches"))
    assert "30 examples" in line and "50.0% of query texts truncated" in line and "\n" not in line


def test_many_records_fill_several_shards_in_order(tmp_path, task, monkeypatch):
    monkeypatch.setattr(cache, "_RECORDS_PER_SHARD", 8)
    wanted = some(20)
    cache.write(task, TOKENIZER, FEATURES, tmp_path, wanted)
    found = cache.find(task, TOKENIZER, FEATURES, tmp_path)
    assert found.manifest["shards"] == [f"records-0000{k}.array_record" for k in range(3)]
    assert {*found.manifest["shards"], "lengths.npy", "groups.npy"} == set(found.manifest["files"])
    assert found.groups.tolist() == [int(e["query_id"][0]) for e in wanted]
    for name, columns in found.columns.items():
        table = found.lengths(name, range(20))
        assert table.shape == (20, columns) and table.max() <= found.longest
        for row, e in zip(table.tolist(), wanted):
            assert row == [*e[f"{name}_lengths"], *[0] * (columns - len(e[f"{name}_lengths"]))]
    assert found.longest == max(int(found.lengths(name, range(20)).max()) for name in found.columns)
    for row, e in zip(found.read(range(20)), wanted, strict=True):
        same(row, e)


def test_the_same_examples_give_the_same_digest_and_others_another(tmp_path, task):
    first, again, other = (
        cache.write(task, TOKENIZER, FEATURES, tmp_path / name, some(10, seed))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first.digest == again.digest != other.digest


def test_anything_declared_otherwise_is_not_found(tmp_path, task):
    cache.write(task, TOKENIZER, FEATURES, tmp_path / "c", some(3))
    look = lambda t=task, k=TOKENIZER, n=FEATURES, d=tmp_path / "c": cache.find(t, k, n, d)  # noqa: E731
    assert look() is not None
    assert look(d=tmp_path / "elsewhere") is None
    assert look(k=LetterTokenizer("other")) is None
    assert look(n=pairs(Lengths(7, 9))) is None and look(n=pairs(Lengths(6, 8))) is None
    for change in ({"name": "my task/2"}, {"query_prompt": "none"}, {"target_prompt": "none"}):
        assert look(dataclasses.replace(task, **change)) is None
    source_file(tmp_path / "a.jsonl", rows=4)
    assert look() is None
    source_file(tmp_path / "a.jsonl", rows=3)
    assert look() is not None


def test_names_that_differ_only_in_what_a_folder_cannot_hold_have_their_own_caches(tmp_path, task):
    other = dataclasses.replace(task, name="my_task_1")
    for t, count in ((task, 2), (other, 3)):
        cache.write(t, TOKENIZER, FEATURES, tmp_path, some(count))
    assert len(cache.find(task, TOKENIZER, FEATURES, tmp_path)) == 2
    assert len(cache.find(other, TOKENIZER, FEATURES, tmp_path)) == 3


@pytest.mark.parametrize("place", [0, 1000, -1])
def test_a_flipped_byte_in_a_shard_is_refused(tmp_path, task, place):
    folder = cache.write(task, TOKENIZER, FEATURES, tmp_path, some(20)).folder
    shard = folder / "records-00000.array_record"
    data = bytearray(shard.read_bytes())
    data[place] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(DataError, match="records-00000.array_record: its sha256 differs") as caught:
        cache.find(task, TOKENIZER, FEATURES, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_or_cut_shard_is_refused(tmp_path, task):
    shard = cache.write(task, TOKENIZER, FEATURES, tmp_path, some(20)).folder / "records-00000.array_record"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match="bytes, but MANIFEST.json says"):
        cache.find(task, TOKENIZER, FEATURES, tmp_path)
    shard.unlink()
    with pytest.raises(DataError, match="missing, but listed in MANIFEST.json"):
        cache.find(task, TOKENIZER, FEATURES, tmp_path)


@pytest.mark.parametrize("failure", [DataError("a.jsonl:2: bad"), RuntimeError("x"), KeyboardInterrupt()])
@pytest.mark.parametrize("after", [0, 1, 10])
def test_an_error_in_the_middle_leaves_no_folder(tmp_path, task, failure, after):
    def rows():
        yield from some(after)
        raise failure

    with pytest.raises(type(failure)) as caught:
        cache.write(task, TOKENIZER, FEATURES, tmp_path / "caches", rows())
    assert caught.value is failure
    assert list((tmp_path / "caches").iterdir()) == []
    assert cache.find(task, TOKENIZER, FEATURES, tmp_path / "caches") is None
    cache.write(task, TOKENIZER, FEATURES, tmp_path / "caches", some(2))
    assert len(cache.find(task, TOKENIZER, FEATURES, tmp_path / "caches")) == 2


def test_a_folder_without_a_manifest_is_prepared_again(tmp_path, task):
    folder = cache.write(task, TOKENIZER, FEATURES, tmp_path, some(4)).folder
    (folder / files.MANIFEST).unlink()
    assert cache.find(task, TOKENIZER, FEATURES, tmp_path) is None
    cache.write(task, TOKENIZER, FEATURES, tmp_path, some(5))
    assert len(cache.find(task, TOKENIZER, FEATURES, tmp_path)) == 5


def test_without_its_source_a_cache_of_the_same_declaration_is_taken(tmp_path, task):
    written = cache.write(task, TOKENIZER, FEATURES, tmp_path / "c", some(4))
    (tmp_path / "a.jsonl").unlink()
    found = cache.find(task, TOKENIZER, FEATURES, tmp_path / "c")
    assert found.folder == written.folder and len(found.read([3])) == 1
    with pytest.raises(DataError, match="no such file"):
        cache.find(dataclasses.replace(task, query_prompt="none"), TOKENIZER, FEATURES, tmp_path / "c")
    with pytest.raises(DataError, match="no such file"):
        cache.find(task, TOKENIZER, FEATURES, tmp_path / "elsewhere")


def test_without_its_source_two_caches_of_one_declaration_are_not_guessed_between(tmp_path, task):
    for rows in (3, 4):
        source_file(tmp_path / "a.jsonl", rows)
        cache.write(task, TOKENIZER, FEATURES, tmp_path / "c", some(rows))
    assert len(cache.find(task, TOKENIZER, FEATURES, tmp_path / "c")) == 4
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(DataError, match="no such file"):
        cache.find(task, TOKENIZER, FEATURES, tmp_path / "c")


def test_an_empty_source_is_refused_and_leaves_nothing(tmp_path, task):
    with pytest.raises(DataError, match="task 'my task/1': its source gave no examples; correct the source"):
        cache.write(task, TOKENIZER, FEATURES, tmp_path / "caches", [])
    assert list((tmp_path / "caches").iterdir()) == []


def test_a_registered_task_needs_no_source_to_be_cached(tmp_path):
    task = RegisteredTask("mine", "a.module.that.is.not.here")
    assert cache.find(task, TOKENIZER, FEATURES, tmp_path) is None
    cache.write(task, TOKENIZER, FEATURES, tmp_path, some(3))
    assert len(cache.find(task, TOKENIZER, FEATURES, tmp_path)) == 3
    assert cache.find(dataclasses.replace(task, version=2), TOKENIZER, FEATURES, tmp_path) is None


class OwnSource:
    """A source that is no dataclass."""

    def fingerprint(self):
        return {"content": "1"}

    def examples(self):
        yield "own:1", {"query": "a", "target": "b"}


def test_a_source_of_ones_own_needs_only_its_two_methods(tmp_path):
    task = Task("own", OwnSource())
    cache.write(task, TOKENIZER, FEATURES, tmp_path, some(3))
    assert len(cache.find(task, TOKENIZER, FEATURES, tmp_path)) == 3


# From texts to arrays.


def test_encoded_pairs_by_hand():
    from embed.text import content_id

    encoder = RecordEncoder(FEATURES, TOKENIZER, "q:{content}", "{title}|{content}")
    rows = encoder(
        [
            {
                "query": "abcd",
                "target": "long target",
                "title": "T",
                "negatives": ["n", "much longer"],
                "target_key": "",
            },
            {"query": "abcde", "target": "x"},
            {"query": "f", "target": "x", "title": "U", "negatives": ["last"], "target_key": "label:1"},
        ]
    )
    letters = lambda text: [ord(c) for c in text]  # noqa: E731
    wanted = [
        ("q:abcd", "T|long ta", ["none|n", "none|much"], [0, 1, 1], "abcd", "T\nlong target"),
        ("q:abcd", "none|x", [], [1, 0, 0], "abcde", "\nx"),
        ("q:f", "U|x", ["none|last"], [0, 0, 0], "f", "label:1"),
    ]
    for row, (query, target, negatives, truncated, asked, key) in zip(rows, wanted, strict=True):
        assert row["query"].tolist() == letters(query)
        assert row["target"].tolist() == letters(target)
        assert row["negatives"].tolist() == letters("".join(negatives))
        assert row["negatives_lengths"].tolist() == [len(n) for n in negatives]
        assert [row[f"{name}_truncated"] for name in ("query", "target", "negatives")] == truncated
        assert (row["query_id"].tolist(), row["target_id"].tolist()) == ([content_id(asked)], [content_id(key)])
        assert all(row[k].dtype == np.int32 for k in ("query", "target", "negatives", "negatives_lengths"))


def test_every_file_of_data_and_sources_is_imported_without_tensorflow():
    program = (
        "import importlib, pathlib, sys\n"
        "for name in ('tensorflow', 'seqio', 'tensorflow_datasets', 'tensorflow_text'): sys.modules[name] = None\n"
        "import embed.data, embed.sources\n"
        "for package in (embed.data, embed.sources):\n"
        "    for path in sorted(pathlib.Path(package.__file__).parent.glob('*.py')):\n"
        "        importlib.import_module(f'{package.__name__}.{path.stem}'); print(path.stem)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    assert {"cache", "loader", "prepare", "seqio_tasks", "record_files", "tokenizers"} <= set(ran.stdout.split())


# Negatives that are positives.


def test_negatives_that_are_positives_of_their_query_are_counted_and_never_given(tmp_path):
    """Known by the whole task: the own target, that of another row, and a titled target with and without its title."""
    rows = [
        {"query": "a", "target": "A", "negatives": ["A", "x", "B"]},
        {"query": "a", "target": "B", "negatives": ["y"]},
        {"query": "b", "target": "T", "title": "H", "negatives": ["T", "H T", "A", "z"]},
        {"query": "c", "target": "C", "negatives": []},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"query": "query", "target": "target", "negatives": "negatives", "title": "title"}
    task = Task("t", JsonLines(str(path), fields), "none", "none")
    encoder = RecordEncoder(FEATURES, TOKENIZER, task.query_prompt, task.target_prompt)
    records_ = [record for _, record in task.source.examples()]
    written = cache.write(task, TOKENIZER, FEATURES, tmp_path / "caches", encoder(records_))
    assert written.manifest["left_out"] == {"negatives": 4}
    text, negatives = (lambda tokens: "".join(map(chr, tokens))), pairs(Lengths(6, 9), 4)[2]
    for number, kept in enumerate((["x"], ["y"], ["A", "z"], [])):
        example, lengths = written.read([number])[0], written.lengths("negatives", [number])
        zero = np.zeros(1, np.int64)
        columns = [c for c in negatives.choose(lengths, Draws(zero, zero + number, zero))[0].tolist() if c >= 0]
        assert [text(part) for part in negatives.texts(example, columns)] == kept
        assert example["negatives_id"][columns].tolist() == [int(target_id(t)) for t in kept]
        assert lengths[0, columns].tolist() == [len(t) for t in kept]
    assert "4 negatives are positives of their query and are left out" in prepare.summary(written)


def test_records_that_were_left_out_are_counted_in_the_manifest_and_shown(tmp_path):
    (tmp_path / "pairs.jsonl").write_text(
        '{"query": "a", "target": "b"}\n{"query": "c"\n{"query": "d", "target": "e"}\n'
    )
    source = JsonLines(str(tmp_path / "pairs.jsonl"), on_bad_record="skip", max_bad_share=0.5)
    encoder = RecordEncoder(FEATURES, TOKENIZER, "none", "none")
    task = Task("pairs", source)
    rows = (row for _, record in source.examples() for row in encoder([record]))
    written = cache.write(task, TOKENIZER, FEATURES, tmp_path / "caches", rows)
    assert len(written) == 2
    assert written.manifest["bad_records"]["skipped"] == 1
    assert written.manifest["bad_records"]["first"][0].startswith(f"{tmp_path}/pairs.jsonl:2: not valid JSON")
    assert "1 bad records are left out, such as" in prepare.summary(written)


def test_a_cache_of_an_older_version_is_not_read_and_the_line_says_to_prepare_again(tmp_path, task, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr(tasks, "CACHE_FORMAT", tasks.CACHE_FORMAT - 1)
        old = cache.write(task, TOKENIZER, FEATURES, tmp_path / "c", some(3)).folder
    other = dataclasses.replace(task, name="my task/1 more")
    assert cache.find(task, TOKENIZER, FEATURES, tmp_path / "c") is None
    assert cache.outdated(task, tmp_path / "c") == [old] and cache.outdated(other, tmp_path / "c") == []
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(
        DataError, match="an older version of embed wrote this cache, .* prepare the task again where its source is"
    ):
        cache.find(task, TOKENIZER, FEATURES, tmp_path / "c")
    source_file(tmp_path / "a.jsonl")
    cache.write(task, TOKENIZER, FEATURES, tmp_path / "c", some(4))
    assert cache.outdated(task, tmp_path / "c") == [old]
    assert len(cache.find(task, TOKENIZER, FEATURES, tmp_path / "c")) == 4
