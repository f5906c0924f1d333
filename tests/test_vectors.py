"""Unit vectors in jax and numpy, and their corners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed.errors import NumericError
from embed.vectors import normalize, quantize_binary, quantize_int8, truncate, truncate_numpy


def sample(*shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_normalize_divides_by_the_length(scale):
    x = sample(3, 4, 5)
    found = normalize(jnp.asarray(x * scale, jnp.float32))
    np.testing.assert_allclose(found, x / np.linalg.norm(x, axis=-1, keepdims=True), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_normalize_gives_float32(dtype):
    found = normalize(jnp.asarray(sample(2, 8), dtype))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)


def test_normalize_keeps_float64():
    with jax.enable_x64(True):
        x = sample(2, 8)
        found = normalize(jnp.asarray(x))
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, x / np.linalg.norm(x, axis=-1, keepdims=True), rtol=0, atol=1e-15)


def test_zero_stays_zero_with_a_finite_gradient():
    x = jnp.zeros((2, 3)).at[1].set(1.0)
    value, gradient = jax.jit(jax.value_and_grad(lambda v: normalize(v)[:, 0].sum()))(x)
    assert np.all(normalize(x)[0] == 0)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_gradient_is_orthogonal_to_the_vector():
    x = jnp.asarray(sample(4, 6), jnp.float32)
    gradient = jax.jit(jax.grad(lambda v: (normalize(v) * sample(4, 6, seed=1)).sum()))(x)
    np.testing.assert_allclose(np.sum(gradient * x, -1), 0, atol=1e-5)


@pytest.mark.parametrize("dim", [1, 3, 8])
def test_truncate_is_a_unit_prefix(dim):
    x = sample(2, 5, 8)
    expected = x[..., :dim] / np.linalg.norm(x[..., :dim], axis=-1, keepdims=True)
    np.testing.assert_allclose(truncate(jnp.asarray(x, jnp.float32), dim), expected, atol=1e-6)
    found = truncate_numpy(x, dim)
    assert found.dtype == np.float32
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_truncate_numpy_of_zero_is_zero():
    np.testing.assert_array_equal(truncate_numpy(np.zeros((2, 4), np.float32), 2), np.zeros((2, 2)))


def test_truncate_numpy_does_not_change_its_argument():
    x = sample(2, 4).astype(np.float32)
    kept = x.copy()
    truncate_numpy(x, 2)
    np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_not_rounded(value):
    x = np.ones((3, 4), np.float32)
    x[1, 2] = value
    for rounding in (quantize_int8, quantize_binary):
        with pytest.raises(NumericError, match="vector 1 is not finite"):
            rounding(x)


def test_int8_keeps_the_dot_product():
    x = truncate_numpy(sample(50, 16), 16)
    values, scale = quantize_int8(x)
    assert values.dtype == np.int8 and values.min() >= -127
    back = (values.astype(np.int32) @ values.T.astype(np.int32)) * scale[:, None] * scale
    np.testing.assert_allclose(back, x @ x.T, atol=0.02)
    assert np.all(np.abs(values).max(1) == 127)
    assert np.all(np.isfinite(quantize_int8(np.zeros((2, 4)))[1]))


def test_binary_packs_signs_from_the_highest_bit():
    x = np.array([[0.5, -1, 0.1, 0, 1, 1, -2, 3, 0.2]], np.float32)
    np.testing.assert_array_equal(quantize_binary(x), [[0b10101101, 0b10000000]])
