"""Files of tensors, written one at a time and read with the library."""

import numpy as np
import pytest
import safetensors.numpy

from embed.interop import safetensors_writer


def test_the_writer_gives_what_the_library_reads(tmp_path):
    shapes = {"b": (2, 3), "a": (4,), "none": (0, 5)}
    values = {n: np.random.default_rng(1).normal(size=s).astype(np.float32) for n, s in shapes.items()}
    for dtype in ("float32", "bfloat16"):
        safetensors_writer.write(tmp_path / "x.safetensors", shapes, values.items(), dtype)
        found = safetensors.numpy.load_file(tmp_path / "x.safetensors")
        assert set(found) == set(shapes)
        for name, array in found.items():
            assert array.dtype.name == dtype and array.shape == shapes[name]
            assert np.array_equal(array, values[name].astype(array.dtype))
    with safetensors.safe_open(tmp_path / "x.safetensors", framework="numpy") as f:
        assert f.metadata() == {"format": "pt"}
    with pytest.raises(ValueError, match="a .* came where b"):
        safetensors_writer.write(tmp_path / "y.safetensors", shapes, [("a", values["a"])], "float32")
