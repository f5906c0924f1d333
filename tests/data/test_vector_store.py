"""Vectors by content id: found again, verified, refused when they cannot be told apart."""

import numpy as np
import pytest

from embed.data import vector_store
from embed.errors import DataError

IDS = np.array([3, -(2**63), 2**63 - 1, 0])
VECTORS = np.random.default_rng(0).normal(size=(4, 5))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_written_vectors_are_found_by_their_ids(tmp_path, dtype):
    vector_store.write(tmp_path / "v", IDS, VECTORS.astype(dtype))
    store = vector_store.read(tmp_path / "v")
    kept = VECTORS.astype(np.float16 if dtype == np.float16 else np.float32).astype(np.float32)
    order = [2, 0, 0, 3, 1]
    found = store.of(IDS[order], "text")
    assert (store.dim, found.dtype) == (5, np.float32)
    np.testing.assert_array_equal(found, kept[order])


def test_the_digest_is_of_the_content(tmp_path):
    one, other = (vector_store.write(tmp_path / name, IDS, VECTORS + n) for n, name in enumerate("ab"))
    again = vector_store.write(tmp_path / "c", IDS[::-1], VECTORS[::-1])
    assert one.digest == again.digest != other.digest


@pytest.mark.parametrize(
    ("ids", "vectors", "said"),
    [
        ([1, 1], np.ones((2, 3)), "an id comes twice"),
        ([1], np.ones((2, 3)), "give one id for each vector"),
        ([], np.ones((0, 3)), "give one id for each vector"),
        ([1, 2], np.ones(2), "give one id for each vector"),
        ([1, 2], np.array([[1.0], [np.nan]]), "vector 1 is not finite"),
    ],
)
def test_bad_vectors_are_refused_and_nothing_is_written(tmp_path, ids, vectors, said):
    with pytest.raises(DataError, match=said):
        vector_store.write(tmp_path / "v", np.array(ids, np.int64), vectors)
    assert not (tmp_path / "v").exists()


def test_what_is_no_folder_of_vectors_is_refused(tmp_path):
    with pytest.raises(DataError, match="no folder of vectors"):
        vector_store.read(tmp_path)
    store = vector_store.write(tmp_path / "v", IDS, VECTORS)
    data = bytearray((store.folder / "vectors.npy").read_bytes())
    data[-1] ^= 1
    (store.folder / "vectors.npy").write_bytes(bytes(data))
    with pytest.raises(DataError, match="sha256 differs"):
        vector_store.read(store.folder)
    with pytest.raises(DataError, match="has no vector for 1 of 1 different items of 'query'"):
        store.of(np.array([4]), "query")
