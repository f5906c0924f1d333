"""Files of tensors, written one at a time and read with the library."""

import numpy as np
import pytest
import safetensors.numpy

from embed.interop import safetensors_writer

SHAPES = {"b": (2, 3), "a": (4,), "none": (0, 5), "one": ()}


def values() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {n: np.asarray(random.normal(size=s), np.float32) for n, s in SHAPES.items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_writer_gives_what_the_library_reads(dtype, tmp_path):
    path, given = tmp_path / "x.safetensors", values()
    safetensors_writer.write(path, SHAPES, given.items(), dtype)
    found = safetensors.numpy.load_file(path)
    assert set(found) == set(SHAPES)
    for name, array in found.items():
        assert array.dtype.name == dtype and array.shape == SHAPES[name]
        assert np.array_equal(array, given[name].astype(array.dtype))
    with safetensors.safe_open(path, framework="numpy") as f:
        assert f.metadata() == {"format": "pt"}
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0  # readers map the numbers where they lie


def test_an_array_that_lies_otherwise_in_memory_is_written_in_order(tmp_path):
    array = np.arange(6, dtype=np.float64).reshape(3, 2).T
    safetensors_writer.write(tmp_path / "x.safetensors", {"x": (2, 3)}, [("x", array)], "float32")
    assert safetensors.numpy.load_file(tmp_path / "x.safetensors")["x"].tolist() == [[0, 2, 4], [1, 3, 5]]


def test_tensors_come_as_they_are_announced(tmp_path):
    one = np.ones(2, np.float32)
    write = lambda tensors: safetensors_writer.write(tmp_path / "y", {"a": (2,), "b": (2,)}, tensors, "float32")  # noqa: E731
    with pytest.raises(ValueError, match=r"^b \(2,\) came where a \(2,\) was announced$"):
        write([("b", one), ("a", one)])
    with pytest.raises(ValueError, match=r"^a \(1, 2\) came where a \(2,\) was announced$"):
        write([("a", one[None]), ("b", one)])
    for tensors in ([("a", one)], [("a", one), ("b", one), ("c", one)]):
        with pytest.raises(ValueError, match="shorter|longer"):
            write(tensors)
