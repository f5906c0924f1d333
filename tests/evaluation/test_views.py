"""How vectors are served: their sizes in bytes, and cosines against plain arithmetic on integers and bits."""

import numpy as np
import pytest

from embed.errors import UsageError
from embed.evaluation.views import RESCORED, View, views


def vectors(count: int = 20, width: int = 24, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def cosine(a, b) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.mark.parametrize("precision", ["float32", "int8", "binary", "binary-rescored"])
@pytest.mark.parametrize("dim", [24, 16, 13, 1])
def test_every_precision_gives_float32_of_its_size(precision, dim):
    x = vectors()
    view = View(dim, precision)
    for served in (view.documents(x), view.queries(x)):
        assert served.shape == (20, dim) and served.dtype == np.float32
    assert view.documents(x[:0]).shape == (0, dim)
    np.testing.assert_array_equal(x, vectors())  # nothing is changed in place


@pytest.mark.parametrize("dim", [24, 9, 1])
def test_float32_is_cut_and_scaled_to_length_one(dim):
    served = View(dim).documents(vectors())
    np.testing.assert_allclose(np.linalg.norm(served, axis=1), 1, atol=1e-6)
    for before, after in zip(vectors(), served):
        assert cosine(before[:dim], after) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(View(dim).queries(vectors()), served)


@pytest.mark.parametrize("dim", [24, 10])
def test_int8_is_the_nearest_of_255_steps_of_each_vector(dim):
    served = View(dim, "int8").documents(vectors())
    for before, after in zip(vectors(), served):
        before = before[:dim].astype(np.float64) / np.linalg.norm(before[:dim])
        step = np.abs(before).max() / 127
        np.testing.assert_allclose(after, np.round(before / step) * step, atol=1e-6)
        assert cosine(before, after) > 0.999
    np.testing.assert_array_equal(View(dim, "int8").queries(vectors()), served)


@pytest.mark.parametrize("dim", [24, 13, 8])
def test_the_cosine_of_bits_is_one_less_twice_the_share_that_differs(dim):
    x = vectors()
    served = View(dim, "binary").documents(x)
    np.testing.assert_allclose(np.linalg.norm(served, axis=1), 1, atol=1e-6)
    for i in range(5):
        for j in range(5):
            differ = sum((a > 0) != (b > 0) for a, b in zip(x[i, :dim], x[j, :dim]))
            assert float(served[i] @ served[j]) == pytest.approx(1 - 2 * differ / dim, abs=1e-6)
    np.testing.assert_array_equal(View(dim, "binary").queries(x), served)


def test_rescored_bits_are_compared_with_the_query_in_float32():
    x, view = vectors(), View(16, "binary-rescored")
    np.testing.assert_array_equal(view.documents(x), View(16, "binary").documents(x))
    np.testing.assert_array_equal(view.queries(x), View(16).queries(x))
    assert view.rescores and RESCORED == 40
    assert not any(View(16, p).rescores for p in ("float32", "int8", "binary"))


def test_a_zero_vector_stays_finite():
    for precision in ("float32", "int8", "binary", "binary-rescored"):
        assert np.isfinite(View(4, precision).documents(np.zeros((2, 8), np.float32))).all()


@pytest.mark.parametrize(
    "precision, dim, wanted",
    [
        ("float32", 768, 3072),
        ("int8", 768, 772),  # the integers and one float32, the scale
        ("binary", 768, 96),
        ("binary-rescored", 768, 96),
        ("binary", 13, 2),
        ("binary", 1, 1),
        ("int8", 1, 5),
    ],
)
def test_bytes_of_a_vector(precision, dim, wanted):
    assert View(dim, precision).bytes_per_vector == wanted


def test_views_are_named_by_size_and_precision():
    assert View(256).name == "256" and View(256, "int8").name == "256 int8"
    found = views([768, 128], ["float32", "binary"])
    assert [v.name for v in found] == ["768", "128", "768 binary", "128 binary"]


def test_an_unknown_precision_is_refused_with_a_suggestion():
    with pytest.raises(UsageError, match="--quantize: 'binry'; did you mean 'binary'") as caught:
        views([8], ["float32", "binry"])
    assert caught.value.exit_code == 64
    with pytest.raises(UsageError, match="known: binary, binary-rescored, float32, int8"):
        views([8], ["xyz"])
