"""Weights rounded as smaller files hold them, against float64 numpy, and how large those files are."""

import jax.numpy as jnp
import numpy as np
import pytest

from embed.errors import UsageError
from embed.inference import weights


@pytest.fixture(scope="module")
def params():
    """Kernels and a table whose rows do and do not fill blocks, and a norm and a bias."""
    draw = np.random.default_rng(0)
    make = lambda *shape: jnp.asarray(draw.standard_normal(shape), jnp.float32)  # noqa: E731
    return {
        "embedding": {"table": make(5, 64)},
        "up": {"kernel": make(3, 4, 48), "bias": make(48)},
        "norm": {"scale": make(64)},
        "zero": {"kernel": jnp.zeros((2, 32))},
    }


def reference(x, steps: int, size: int) -> np.ndarray:
    """Block by block: the nearest of 2 * steps + 1 even steps from -absmax to absmax."""
    values = np.asarray(x, np.float64).reshape(-1, size)
    out = []
    for block in values:
        grid = np.abs(block).max() * np.arange(-steps, steps + 1) / steps
        out.append(grid[np.abs(block[:, None] - grid).argmin(1)])
    return np.reshape(out, x.shape)


@pytest.mark.parametrize("kind, steps", [("int8", 127), ("int4", 7)])
def test_kernels_and_tables_are_rounded_in_blocks_and_nothing_else_is(params, kind, steps):
    found = weights.rounded(params, kind)
    for path, size in ((("embedding", "table"), 32), (("up", "kernel"), 48), (("zero", "kernel"), 32)):
        own, given = found[path[0]][path[1]], params[path[0]][path[1]]
        assert own.shape == given.shape and own.dtype == jnp.float32
        np.testing.assert_allclose(own, reference(given, steps, size), rtol=1e-5, atol=1e-7)
    for path in (("up", "bias"), ("norm", "scale")):
        np.testing.assert_array_equal(found[path[0]][path[1]], params[path[0]][path[1]])
    assert np.unique(np.asarray(found["embedding"]["table"])[0, :32]).size <= 2 * steps + 1


def test_bfloat16_keeps_the_leading_sixteen_bits_of_everything(params):
    found = weights.rounded(params, "bfloat16")
    for path in (("up", "bias"), ("norm", "scale"), ("embedding", "table")):
        own, given = (np.asarray(x[path[0]][path[1]]) for x in (found, params))
        assert own.dtype == np.float32 and not (own.view(np.uint32) & 0xFFFF).any()
        np.testing.assert_allclose(own, given, rtol=2.0**-8)
        assert (own != given).any()


def test_float32_changes_nothing(params):
    assert weights.rounded(params, "float32") is params


def test_an_unknown_kind_is_refused(params):
    with pytest.raises(UsageError, match="weights 'int5'; did you mean 'int[48]'"):
        weights.rounded(params, "int5")


def test_the_size_of_a_file_by_hand(params):
    matrices, rest = 5 * 64 + 3 * 4 * 48 + 2 * 32, 48 + 64
    scales = 5 * 2 + 3 * 4 + 2  # 48 values that no block of 32 fills share one
    assert weights.stored_bytes(params, "float32") == 4 * (matrices + rest)
    assert weights.stored_bytes(params, "bfloat16") == 2 * (matrices + rest)
    assert weights.stored_bytes(params, "int8") == matrices + 2 * scales + 2 * rest
    assert weights.stored_bytes(params, "int4") == matrices // 2 + 2 * scales + 2 * rest
