"""Arrays from files: read when asked for, in float32; damage and values that are not finite are named."""

import importlib.util

import numpy as np
import pytest

from embed.errors import DataError, UsageError
from embed.towers import stored


def test_arrays_of_an_npz_file(tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, a=np.ones((2, 3), np.float16), b=np.array([1.0, np.nan]))
    reader = stored.of_npz(path)
    assert reader.names() == ["a", "b"] and reader.files == [path] and reader.folder == tmp_path
    assert reader.read("a").dtype == np.float32 and reader.shape("a") == (2, 3)
    with pytest.raises(DataError, match="b holds values that are not finite"):
        reader.read("b")


def test_damaged_files_and_pickles_are_refused(tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, a=np.ones(900))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="t.npz: cannot be read .*; download it again"):
        stored.of_npz(path)
    np.savez(path, a=np.array([{"a": 1}], object))
    with pytest.raises(DataError, match="t.npz: cannot be read"):
        stored.of_npz(path)
    with pytest.raises(DataError, match="nowhere.npz: cannot be read"):
        stored.of_npz(tmp_path / "nowhere.npz")


@pytest.mark.skipif(importlib.util.find_spec("onnx") is not None, reason="onnx is there")
def test_onnx_needs_a_package(tmp_path):
    with pytest.raises(UsageError, match=r"pip install 'embed\[export\]'"):
        stored.of_onnx(tmp_path / "t.onnx")
