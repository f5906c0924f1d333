"""The checked reader of .npy and .npz files, against numpy's own writer, and against files that numpy would believe."""

import io
import random
import shutil
import struct
import zipfile

import numpy as np
import pytest

from embed import arrays, files, trees
from embed.errors import DataError

ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.asfortranarray(np.arange(12, dtype=">i8").reshape(3, 4)),
    np.zeros((0, 5), np.int8),
    np.zeros((3, 0, 2), np.float64),
    np.array(7, np.uint16),
    np.array([True, False]),
    np.arange(5, dtype=np.float16),
]


@pytest.mark.parametrize("values", ARRAYS, ids=lambda x: f"{x.dtype}{x.shape}")
@pytest.mark.parametrize("mmap", [False, True])
def test_what_numpy_writes_is_read(tmp_path, values, mmap):
    np.save(tmp_path / "a.npy", values)
    read = arrays.read_npy(tmp_path / "a.npy", mmap=mmap)
    assert read.dtype == values.dtype and read.shape == values.shape
    np.testing.assert_array_equal(read, values)
    np.savez(tmp_path / "a.npz", first=values, second=values[:1] if values.ndim else values)
    np.testing.assert_array_equal(arrays.read_npz(tmp_path / "a.npz", ["first", "second"])["first"], values)


def npy(header: str, values: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + values


def described(descr="<f4", order=False, shape=(2,)) -> str:
    return f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "first bytes"),
        (b"\x93NUMPY\x03\x00" + bytes(20), "first bytes"),
        (npy(described(shape=(10**12,)), bytes(8)), "its shape"),
        (npy(described(shape=(10**18, 10**18)), bytes(8)), "its shape"),
        (npy(described(shape=(3,)), bytes(8)), "8 bytes of values do not make float32"),
        (npy(described(shape=(2,)), bytes(9)), "9 bytes of values"),
        (npy(described(shape=(1,) * 40), bytes(4)), "its shape"),
        (npy(described("|O"), bytes(16)), "declares no array of numbers"),
        (npy(described("<U4"), bytes(32)), "declares no array of numbers"),
        (npy(described("<f9"), bytes(18)), "type <f9"),
        (npy("__import__('os').abort()"), "declares no array of numbers"),
        (npy("(" * 5000), "declares no array of numbers"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 60000) + b"{", "declares no array of numbers"),
    ],
)
def test_a_file_that_is_no_array_of_numbers_is_one_line(tmp_path, content, reason):
    (tmp_path / "a.npy").write_bytes(content)
    for mmap in (False, True):
        with pytest.raises(DataError, match=reason) as caught:
            arrays.read_npy(tmp_path / "a.npy", mmap=mmap)
        assert "a.npy" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_one_line(tmp_path):
    for path in (tmp_path / "none.npy", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            arrays.read_npy(path)
        with pytest.raises(DataError, match="not a readable .npz"):
            arrays.read_npz(path)


def test_compressed_repeated_and_other_members_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "packed.npz", a=np.zeros(10**6))
    with pytest.raises(DataError, match="'a.npy' is compressed; write it with numpy.savez"):
        arrays.read_npz(tmp_path / "packed.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    with pytest.raises(DataError, match="holds a instead of a, b"):
        arrays.read_npz(tmp_path / "other.npz", ["a", "b"])
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        for _ in range(2):
            archive.writestr("a.npy", arrays.npy_bytes(np.zeros(2)))
    with pytest.raises(DataError, match="two members have one name"):
        arrays.read_npz(tmp_path / "twice.npz")


def test_members_that_share_bytes_are_refused(tmp_path):
    """As in a zip bomb: many entries of the directory point to the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", arrays.npy_bytes(np.zeros(1000)))
        for name in ("b.npy", "c.npy"):
            info = archive.infolist()[0]
            clone = zipfile.ZipInfo(name)
            for field in ("CRC", "compress_size", "file_size", "header_offset"):
                setattr(clone, field, getattr(info, field))
            archive.filelist.append(clone)
            archive.NameToInfo[name] = clone
    (tmp_path / "bomb.npz").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="overlap|not a readable"):
        arrays.read_npz(tmp_path / "bomb.npz")


def test_a_flipped_bit_gives_an_error_or_an_array_of_the_same_size(tmp_path):
    """Digests find changed values; the reader alone must never fail in another way."""
    choose = random.Random(0)
    whole = {"a.npy": arrays.npy_bytes(np.arange(6.0)), "a.npz": arrays.npz_bytes(x=np.arange(6.0), y=np.arange(3))}
    refused = 0
    for _ in range(400):
        name = choose.choice(sorted(whole))
        content = bytearray(whole[name])
        content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
        (tmp_path / name).write_bytes(content)
        try:
            (arrays.read_npy if name == "a.npy" else arrays.read_npz)(tmp_path / name)
        except DataError:
            refused += 1
    assert refused > 200


def test_blocks_of_several_writers_are_one_item_which_orbax_reads(tmp_path):
    """Each writes half of the rows into a folder of its own, as hosts without a common disk do."""
    import orbax.checkpoint as ocp

    rng = np.random.default_rng(0)
    values = {"a/kernel": rng.normal(size=(8, 6)).astype(np.float32), "step": np.int32(7)}
    for writer in range(2):
        half = (slice(4 * writer, 4 * writer + 4), slice(0, 6))
        stored = {
            "a/kernel": ((8, 6), np.float32, (2, 6), [(half, values["a/kernel"][half])]),
            "step": ((), np.int32, (), [((), values["step"])] if writer == 0 else []),
        }
        for _ in range(2):  # what a killed writer left is written over
            arrays.write_blocks(tmp_path / f"writer{writer}" / "params", stored)
        shutil.copytree(tmp_path / f"writer{writer}", tmp_path / "step", dirs_exist_ok=True)
    specs = {path: {"shape": list(x.shape), "dtype": str(x.dtype)} for path, x in values.items()}
    files.write_manifest(tmp_path / "step", trees={"params": specs})
    ours = trees.flatten(arrays.load_numpy(tmp_path / "step"))
    theirs = trees.flatten(ocp.PyTreeCheckpointHandler().restore(tmp_path / "step" / "params"))
    for path, value in values.items():
        np.testing.assert_array_equal(ours[path], value)
        np.testing.assert_array_equal(theirs[path], value)
