"""A cache is whole or not there, found again, and refused when a byte of it changed."""

import dataclasses
import io
import json

import numpy as np
import pytest
from encoded_pairs import Letters, assert_same_record, drawn_pairs
from PIL import Image as Picture

from embed import files
from embed.data import cache, prepare, tasks
from embed.data.draws import Draws
from embed.data.image_features import Image, image_id
from embed.data.record_encoder import RecordEncoder
from embed.data.tasks import RegisteredTask, Task
from embed.data.text_features import Lengths, Text, pairs
from embed.errors import DataError
from embed.sources.image_files import ImageFiles
from embed.sources.record_files import JsonLines
from embed.text import target_id

FEATURES = pairs(Lengths(6, 9))
FIELDS = [field for feature in FEATURES for field in feature.fields]
TOKENIZER = Letters()


def source_file(path, rows=3):
    path.write_text("".join(f'{{"query": "q{i}", "target": "t{i}"}}\n' for i in range(rows)))
    return JsonLines(str(path))


@pytest.fixture
def task(tmp_path):
    return Task("my task/1", source_file(tmp_path / "a.jsonl"))


def test_a_written_cache_is_found_and_reads_back(tmp_path, task):
    wanted = drawn_pairs(50)
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
            assert_same_record(row, wanted[i], FIELDS)
    assert found.columns == {"query": 1, "target": 1, "negatives": max(len(e["negatives_lengths"]) for e in wanted)}
    assert cache.Cache(found.folder, files.read_manifest(found.folder)).digest == written.digest


def test_the_manifest_counts_tokens_and_truncated_texts(tmp_path, task):
    wanted, e_sides = drawn_pairs(30), ("query", "target", "negatives")
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
    wanted = drawn_pairs(20)
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
        assert_same_record(row, e, FIELDS)


def test_the_same_examples_give_the_same_digest_and_others_another(tmp_path, task):
    first, again, other = (
        cache.write(task, TOKENIZER, FEATURES, tmp_path / name, drawn_pairs(10, seed))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first.digest == again.digest != other.digest


def test_anything_declared_otherwise_is_not_found(tmp_path, task):
    cache.write(task, TOKENIZER, FEATURES, tmp_path / "c", drawn_pairs(3))
    look = lambda t=task, k=TOKENIZER, n=FEATURES, d=tmp_path / "c": cache.find(t, k, n, d)  # noqa: E731
    assert look() is not None
    assert look(d=tmp_path / "elsewhere") is None
    assert look(k=Letters("other")) is None
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
        cache.write(t, TOKENIZER, FEATURES, tmp_path, drawn_pairs(count))
    assert len(cache.find(task, TOKENIZER, FEATURES, tmp_path)) == 2
    assert len(cache.find(other, TOKENIZER, FEATURES, tmp_path)) == 3


@pytest.mark.parametrize("place", [0, 1000, -1])
def test_a_flipped_byte_in_a_shard_is_refused(tmp_path, task, place):
    folder = cache.write(task, TOKENIZER, FEATURES, tmp_path, drawn_pairs(20)).folder
    shard = folder / "records-00000.array_record"
    data = bytearray(shard.read_bytes())
    data[place] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(DataError, match="records-00000.array_record: its sha256 differs") as caught:
        cache.find(task, TOKENIZER, FEATURES, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_or_cut_shard_is_refused(tmp_path, task):
    shard = cache.write(task, TOKENIZER, FEATURES, tmp_path, drawn_pairs(20)).folder / "records-00000.array_record"
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
        yield from drawn_pairs(after)
        raise failure

    with pytest.raises(type(failure)) as caught:
        cache.write(task, TOKENIZER, FEATURES, tmp_path / "caches", rows())
    assert caught.value is failure
    assert list((tmp_path / "caches").iterdir()) == []
    assert cache.find(task, TOKENIZER, FEATURES, tmp_path / "caches") is None
    cache.write(task, TOKENIZER, FEATURES, tmp_path / "caches", drawn_pairs(2))
    assert len(cache.find(task, TOKENIZER, FEATURES, tmp_path / "caches")) == 2


def test_a_folder_without_a_manifest_is_prepared_again(tmp_path, task):
    folder = cache.write(task, TOKENIZER, FEATURES, tmp_path, drawn_pairs(4)).folder
    (folder / files.MANIFEST).unlink()
    assert cache.find(task, TOKENIZER, FEATURES, tmp_path) is None
    cache.write(task, TOKENIZER, FEATURES, tmp_path, drawn_pairs(5))
    assert len(cache.find(task, TOKENIZER, FEATURES, tmp_path)) == 5


def test_without_its_source_a_cache_of_the_same_declaration_is_taken(tmp_path, task):
    written = cache.write(task, TOKENIZER, FEATURES, tmp_path / "c", drawn_pairs(4))
    (tmp_path / "a.jsonl").unlink()
    found = cache.find(task, TOKENIZER, FEATURES, tmp_path / "c")
    assert found.folder == written.folder and len(found.read([3])) == 1
    assert "its source is not on this machine, and the cache is taken as it is" in prepare.summary(found)
    assert "not on this machine" not in prepare.summary(written)
    with pytest.raises(DataError, match="no such file"):
        cache.find(dataclasses.replace(task, query_prompt="none"), TOKENIZER, FEATURES, tmp_path / "c")
    with pytest.raises(DataError, match="no such file"):
        cache.find(task, TOKENIZER, FEATURES, tmp_path / "elsewhere")


def test_a_cache_is_not_taken_for_a_source_that_is_there_in_part_or_has_a_bad_record(tmp_path, task):
    (tmp_path / "b.jsonl").write_text('{"query": "a", "target": "b"}\n')
    several = dataclasses.replace(task, source=JsonLines([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]))
    images = dataclasses.replace(task, source=ImageFiles(task.source))
    for one in (several, images):
        cache.write(one, TOKENIZER, FEATURES, tmp_path / "c", drawn_pairs(4))
    (tmp_path / "b.jsonl").unlink()
    with (tmp_path / "a.jsonl").open("a") as f:
        f.write('{"query": "", "target": "b"}\n')
    with pytest.raises(DataError, match="b.jsonl: no such file"):
        cache.find(several, TOKENIZER, FEATURES, tmp_path / "c")
    with pytest.raises(DataError, match=r"a.jsonl:4: field 'query' is empty"):
        cache.find(images, TOKENIZER, FEATURES, tmp_path / "c")


def test_without_its_source_two_caches_of_one_declaration_are_not_guessed_between(tmp_path, task):
    for rows in (3, 4):
        source_file(tmp_path / "a.jsonl", rows)
        cache.write(task, TOKENIZER, FEATURES, tmp_path / "c", drawn_pairs(rows))
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
    cache.write(task, TOKENIZER, FEATURES, tmp_path, drawn_pairs(3))
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
    cache.write(task, TOKENIZER, FEATURES, tmp_path, drawn_pairs(3))
    assert len(cache.find(task, TOKENIZER, FEATURES, tmp_path)) == 3


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
        old = cache.write(task, TOKENIZER, FEATURES, tmp_path / "c", drawn_pairs(3)).folder
    other = dataclasses.replace(task, name="my task/1 more")
    assert cache.find(task, TOKENIZER, FEATURES, tmp_path / "c") is None
    assert cache.outdated(task, tmp_path / "c") == [old] and cache.outdated(other, tmp_path / "c") == []
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(
        DataError, match="an older version of embed wrote this cache, .* prepare the task again where its source is"
    ):
        cache.find(task, TOKENIZER, FEATURES, tmp_path / "c")
    source_file(tmp_path / "a.jsonl")
    cache.write(task, TOKENIZER, FEATURES, tmp_path / "c", drawn_pairs(4))
    assert cache.outdated(task, tmp_path / "c") == [old]
    assert len(cache.find(task, TOKENIZER, FEATURES, tmp_path / "c")) == 4


def test_a_cache_of_files_in_a_bucket_has_one_name_on_every_machine(tmp_path, monkeypatch):
    names, definitions = [], []
    for machine in ("one", "two"):
        monkeypatch.setenv("EMBED_BUCKET_CACHE", str(tmp_path / machine))
        path = tmp_path / machine / "gs" / "bucket" / "x.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text('{"query": "a", "target": "b"}\n')
        task = Task("t", JsonLines(str(path)))
        names.append(cache.folder_of(task, TOKENIZER, FEATURES, tmp_path).name)
        definitions.append(task.definition()["source"]["path"])
    assert names[0] == names[1] and definitions == ["gs://bucket/x.jsonl"] * 2


def test_records_of_one_image_are_of_one_group_whatever_their_captions(tmp_path, task):
    features = [Text("caption", 9), Image(size=8)]
    files = [picture(number) for number in (0, 1, 0)]
    rows = [{"location": "", "caption": [text], "image": image} for text, image in zip("abc", files)]
    examples = RecordEncoder(features, TOKENIZER, "none", "none")(rows)
    groups = cache.write(task, TOKENIZER, features, tmp_path / "c", examples).groups.tolist()
    assert groups == [int(image_id(image)) for image in files] and groups[0] == groups[2] != groups[1]


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    draw = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    Picture.fromarray(draw).save(file, "PNG")
    return file.getvalue()
