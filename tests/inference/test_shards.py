"""Shards on disk: what is written is read, by readers that know nothing of ours too; what is not theirs or not whole is refused."""

import json

import numpy as np
import pytest

from embed import digests
from embed.errors import DataError
from embed.inference.shards import FORMATS, PRECISIONS, Shards
from embed.vectors import quantize_binary, quantize_int8

DTYPES = {"float32": np.float32, "int8": np.int8, "binary": np.uint8}
STRANGE_IDS = [
    "a\u2028b",
    "c\u2029",
    "\x85",
    "line\nfeed\r\n",
    "\x00nul\x1c\x0b\x0c",
    '"quoted" \\n',
    "é 語 😀",
    " ",
    "",
]


def vectors(count: int, size: int = 16, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, size))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def shards_of(folder, format="npy", precision="float32", shard_size=4, texts=10, job="j") -> Shards:
    folder.mkdir(exist_ok=True)
    return Shards(folder, format, precision, shard_size, texts, job)


def ids_of(shards: Shards, number: int) -> list[str]:
    return [f"{number}-{i}" for i in range(shards.size_of(number))]


def write(shards: Shards, number: int) -> np.ndarray:
    """Writes a shard and returns the vectors that were given."""
    given = vectors(shards.size_of(number), seed=number)
    shards.write(number, ids_of(shards, number), given, f"input {number}", 1)
    return given


def quantized(x: np.ndarray, precision: str) -> tuple[np.ndarray, np.ndarray | None]:
    if precision == "int8":
        return quantize_int8(x)
    return (quantize_binary(x) if precision == "binary" else x), None


def test_the_last_shard_has_what_is_left(tmp_path):
    shards = shards_of(tmp_path)
    assert len(shards) == 3 and [shards.size_of(n) for n in range(3)] == [4, 4, 2]
    assert len(shards_of(tmp_path, texts=8)) == 2 and shards_of(tmp_path, texts=8).size_of(1) == 4


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_ids_and_values_are_those_of_every_reader(tmp_path, format, precision):
    """Read by us, and by numpy, json and pyarrow. Ids hold what ends a line to some readers."""
    shards = shards_of(tmp_path, format, precision, len(STRANGE_IDS), 2 * len(STRANGE_IDS))
    given = vectors(len(STRANGE_IDS))
    shards.write(1, STRANGE_IDS, given, "digest of the texts", 3)
    wanted, scales = quantized(given, precision)

    ids, found, found_scales = shards.read(1)
    assert ids == STRANGE_IDS and found.dtype == DTYPES[precision]
    np.testing.assert_array_equal(found, wanted)
    assert (found_scales is None) == (scales is None)
    record = json.loads((tmp_path / "part-00001.json").read_text())
    told = {"job": "j", "number": 1, "records": len(STRANGE_IDS), "input": "digest of the texts", "cut": 3}
    assert {name: record[name] for name in told} == told
    assert set(record["files"]) | {"part-00001.json"} == {p.name for p in tmp_path.iterdir()}

    if format == "npy":
        lines = (tmp_path / "part-00001.ids.txt").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == STRANGE_IDS
        np.testing.assert_array_equal(np.load(tmp_path / "part-00001.npy"), wanted)
        other_scales = np.load(tmp_path / "part-00001.scales.npy") if precision == "int8" else None
    elif format == "jsonl":
        rows = [json.loads(line) for line in (tmp_path / "part-00001.jsonl").read_text("utf-8").splitlines()]
        assert [row["id"] for row in rows] == STRANGE_IDS
        np.testing.assert_array_equal(np.array([row["embedding"] for row in rows], wanted.dtype), wanted)
        other_scales = [row["scale"] for row in rows] if precision == "int8" else None
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        table = parquet.read_table(tmp_path / "part-00001.parquet").to_pydict()
        assert table["id"] == STRANGE_IDS
        np.testing.assert_array_equal(np.array(table["embedding"], wanted.dtype), wanted)
        other_scales = table["scale"] if precision == "int8" else None
    if precision == "int8":
        for own in (found_scales, other_scales):
            np.testing.assert_array_equal(np.array(own, np.float32), scales)


@pytest.mark.parametrize("format", FORMATS)
def test_more_than_a_hundred_thousand_shards_are_numbered_on(tmp_path, format):
    """Names get a sixth digit there, which puts them out of the order of the alphabet."""
    shards = shards_of(tmp_path, format, shard_size=1, texts=100_003)
    for number in range(99_999, 100_002):
        write(shards, number)
    assert [shards.read(number)[0] for number in range(99_999, 100_002)] == [[f"{n}-0"] for n in range(99_999, 100_002)]
    shards.check_names()
    shards.path(99_999, ".json").rename(tmp_path / "part-100003.json")
    with pytest.raises(
        DataError, match=r"part-100003.json: belongs to no shard of this job, which has 100,003 of format"
    ):
        shards.check_names()


@pytest.mark.parametrize(
    "name",
    [
        "part-00003.json",
        "part-000001.json",
        "part-00001.scales.npy",
        "part-00001 copy.npy",
        "part-1.npy",
        "part-00001.jsonl",
    ],
)
def test_a_name_like_one_of_a_shard_that_is_none_is_refused(tmp_path, name):
    shards = shards_of(tmp_path)
    write(shards, 1)
    (tmp_path / "notes.txt").write_text("mine")
    shards.check_names()
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(
        DataError, match=f"{name}: belongs to no shard of this job, which has 3 of format npy; remove it"
    ):
        shards.check_names()


def test_scales_belong_to_int8_of_npy_alone(tmp_path):
    write(shards_of(tmp_path, "npy", "int8"), 1)
    shards_of(tmp_path, "npy", "int8").check_names()
    with pytest.raises(DataError, match="part-00001.scales.npy: belongs to no shard"):
        shards_of(tmp_path, "npy", "binary").check_names()


def test_a_shard_without_its_record_is_not_finished(tmp_path):
    shards = shards_of(tmp_path)
    write(shards, 0)
    assert shards.record(0) == shards.verify(0)
    shards.path(0, ".json").unlink()
    for action in (shards.record, shards.verify, shards.read, shards.map_vectors):
        with pytest.raises(
            DataError, match="part-00000.json: is missing, so the shard is not finished; run the encoding"
        ):
            action(0)


def test_a_record_of_another_job_or_another_shard_is_refused(tmp_path):
    shards, other = shards_of(tmp_path), shards_of(tmp_path, job="k")
    write(shards, 0)
    assert other.belongs_to_another_job(0) and not shards.belongs_to_another_job(0)
    assert not shards.belongs_to_another_job(1)  # one that is not there
    with pytest.raises(
        DataError, match="part-00000.json: belongs to another job; remove it, and run the encoding again"
    ):
        other.record(0)
    for suffix in (".json", ".npy", ".ids.txt"):
        shards.path(0, suffix).rename(shards.path(1, suffix))
    with pytest.raises(DataError, match="part-00001.json: is the record of shard 0, not of this one"):
        shards.record(1)
    write(shards, 2)
    for wrong in (shards_of(tmp_path, texts=11), shards_of(tmp_path, "jsonl"), shards_of(tmp_path, "npy", "int8")):
        with pytest.raises(DataError, match="part-00002.json: is the record of shard 2, not of this one"):
            wrong.record(2)


@pytest.mark.parametrize("format, precision", [("npy", "int8"), ("jsonl", "float32"), ("parquet", "binary")])
def test_every_damaged_file_is_found_before_it_is_used(tmp_path, format, precision):
    shards = shards_of(tmp_path, format, precision)
    write(shards, 2)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for damaged in (whole[:-3], bytes([whole[0] ^ 1]) + whole[1:]):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=path.name) as caught:
                shards.read(2)
            assert "\n" not in str(caught.value)
            assert not shards.belongs_to_another_job(2)
        path.write_bytes(whole)
    assert shards.read(2)[0] == ids_of(shards, 2)


def test_vectors_stay_on_disk_and_are_verified_unless_they_were(tmp_path):
    shards = shards_of(tmp_path)
    given = write(shards, 0)
    found = shards.map_vectors(0)
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, given)
    path = shards.path(0, ".npy")
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DataError, match="part-00000.npy is damaged"):
        shards.map_vectors(0)
    assert shards.map_vectors(0, verified=True).shape == given.shape


def seal_again(shards: Shards, number: int) -> None:
    """Makes the record of a changed shard agree with its files."""
    path = shards.path(number, ".json")
    record = json.loads(path.read_text())
    digests.write_sealed(path, {**record, "files": digests.entries_of(shards.folder, record["files"])})


@pytest.mark.parametrize(
    "wrong", [vectors(3), vectors(4).astype(np.float64), vectors(4)[0]], ids=["few", "type", "flat"]
)
def test_what_is_not_the_vectors_of_the_shard_is_refused(tmp_path, wrong):
    shards = shards_of(tmp_path)
    write(shards, 0)
    np.save(shards.path(0, ".npy"), wrong)
    seal_again(shards, 0)
    for action in (shards.read, shards.map_vectors):
        with pytest.raises(DataError, match=r"part-00000.npy: holds float.*\] instead of 4 vectors of float32; run"):
            action(0)


def test_what_is_not_one_id_and_one_scale_for_each_text_is_refused(tmp_path):
    shards = shards_of(tmp_path, "npy", "int8")
    write(shards, 0)
    ids, scales = shards.path(0, ".ids.txt"), shards.path(0, ".scales.npy")
    whole, few = ids.read_bytes(), np.load(scales)[:3]
    ids.write_bytes(whole + b'"more"\n')
    seal_again(shards, 0)
    with pytest.raises(DataError, match="part-00000.npy: does not hold one id and one vector for each of its texts"):
        shards.read(0)
    ids.write_bytes(whole)
    np.save(scales, few)
    seal_again(shards, 0)
    with pytest.raises(DataError, match="does not hold one id and one vector for each of its texts"):
        shards.read(0)


def test_a_file_that_is_no_parquet_is_refused_in_one_line(tmp_path):
    pytest.importorskip("pyarrow")
    shards = shards_of(tmp_path, "parquet")
    write(shards, 0)
    shards.path(0, ".parquet").write_bytes(b"PAR1 and nothing else")
    seal_again(shards, 0)
    with pytest.raises(
        DataError, match="part-00000.parquet: not a readable parquet file .*; run the encoding again"
    ) as e:
        shards.read(0)
    assert "\n" not in str(e.value)
