"""Weights rounded as smaller files hold them, against float64 numpy, and how large those files are."""

import jax.numpy as jnp
import numpy as np
import pytest

from embed.errors import UsageError
from embed.inference import weights
from embed.quantized_arrays import Scheme, rounded
from embed.trees import flatten

AXES = {
    "embedding": {"table": ("vocab", "width")},
    "up": {"kernel": ("layers", "width", "mlp"), "bias": ("layers", "mlp")},
    "narrow": {"kernel": ("width", "mlp")},
    "norm": {"scale": ("norm",)},
}


@pytest.fixture(scope="module")
def params():
    """Kernels and a table whose inputs do and do not fill blocks, and a norm and a bias."""
    draw = np.random.default_rng(0)
    make = lambda *shape: jnp.asarray(draw.standard_normal(shape), jnp.float32)  # noqa: E731
    return {
        "embedding": {"table": make(5, 64)},
        "up": {"kernel": make(3, 32, 6), "bias": make(3, 6)},
        "narrow": {"kernel": make(48, 2)},
        "norm": {"scale": make(64)},
    }


EXPECTED = {
    "int8_blocks": {"embedding/table": Scheme(8, 32, (1,)), "up/kernel": Scheme(8, 32, (1,))},
    "int4_blocks": {"embedding/table": Scheme(4, 32, (1,)), "up/kernel": Scheme(4, 32, (1,))},
    "mixed_channels": {
        "embedding/table": Scheme(4, None, (1,)),
        "up/kernel": Scheme(4, None, (1,)),
        "narrow/kernel": Scheme(4, None, (0,)),
    },
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_kernels_and_tables_are_rounded_along_their_inputs_and_nothing_else_is(params, kind):
    before, after = flatten(params), flatten(weights.rounded(params, kind, AXES))
    for path, x in before.items():
        scheme = EXPECTED[kind].get(path)
        expected = x if scheme is None else rounded(np.asarray(x), scheme)
        assert after[path].dtype == jnp.float32
        np.testing.assert_array_equal(after[path], expected)
    assert {path for path in before if not np.array_equal(before[path], after[path])} == set(EXPECTED[kind])


def test_bfloat16_keeps_the_leading_sixteen_bits_of_everything(params):
    rounded_params = weights.rounded(params, "bfloat16", AXES)
    for path in (("up", "bias"), ("norm", "scale"), ("embedding", "table")):
        after, given = (np.asarray(x[path[0]][path[1]]) for x in (rounded_params, params))
        assert after.dtype == np.float32 and not (after.view(np.uint32) & 0xFFFF).any()
        np.testing.assert_allclose(after, given, rtol=2.0**-8)
        assert (after != given).any()


def test_float32_changes_nothing(params):
    assert weights.rounded(params, "float32", AXES) is params
    assert weights.notes(params, "float32", AXES) == weights.notes(params, "bfloat16", AXES) == []


def test_an_unknown_kind_is_refused(params):
    with pytest.raises(UsageError, match="weights 'int4_block'; did you mean 'int4_blocks'"):
        weights.rounded(params, "int4_block", AXES)


def test_what_blocks_do_not_divide_is_named(params):
    first, second = weights.notes(params, "int4_blocks", AXES)
    assert (
        first.startswith("2 arrays (") and second == "stay float32: narrow/kernel has 48 inputs, not a multiple of 32"
    )
    assert len(weights.notes(params, "mixed_channels", AXES)) == 1


def test_the_size_of_a_file_by_hand(params):
    table, up, narrow, rest = 5 * 64, 3 * 32 * 6, 48 * 2, 3 * 6 + 64
    size = lambda kind, packed=None: weights.size(params, kind, AXES, packed or {})  # noqa: E731
    assert size("float32") == 4 * (table + up + narrow + rest)
    assert size("bfloat16") == 2 * (table + up + narrow + rest)
    scales = 5 * 2 + 3 * 6
    assert size("int8_blocks") == table + up + 2 * scales + 4 * (narrow + rest)
    assert size("int4_blocks") == (table + up) // 2 + 2 * scales + 4 * (narrow + rest)
    assert size("mixed_channels") == (table + up + narrow) // 2 + 2 * (5 + 3 * 6 + 2) + 4 * rest
    packed = {"embedding/table": Scheme(4, 32, (1,))}  # as the file of the model itself has it
    assert size("float32", packed) == table // 2 + 2 * 10 + 4 * (up + narrow + rest)
