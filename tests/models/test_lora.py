"""Adapters: the merged kernels against loops, which kernels have factors, wrong patterns."""

import jax
import numpy as np
import pytest

from embed.errors import ConfigError
from embed.models.lora import Lora
from embed.trees import flatten, flatten_axes

LAYERS = "encoder/stack/layers"
LORA = Lora(rank=3, alpha=6.0)


@pytest.mark.slow
def test_at_the_start_the_model_is_the_base(tiny):
    factors = tiny.fast(lambda key: LORA.init(key, tiny.params, tiny.model.axes))(jax.random.key(0))
    merged, base = flatten(LORA.merge(tiny.params, factors)), flatten(tiny.params)
    assert list(merged) == list(base)
    assert all(np.array_equal(merged[p], base[p]) for p in base)
    leaves = flatten(factors)
    assert {p.rpartition("/")[0] for p in leaves} == {
        f"{LAYERS}/{n}/kernel"
        for n in (
            "attention/query",
            "attention/key",
            "attention/value",
            "attention/output",
            "mlp/gate",
            "mlp/up",
            "mlp/down",
        )
    }
    assert all(np.any(x != 0) == p.endswith("/a") for p, x in leaves.items())


def test_factors_lie_whole_on_every_device(tiny):
    factors = flatten(jax.eval_shape(lambda key: LORA.init(key, tiny.params, tiny.model.axes), jax.random.key(0)))
    axes = flatten_axes(LORA.axes(tiny.params, tiny.model.axes))
    assert {p: len(a) for p, a in axes.items()} == {p: x.ndim for p, x in factors.items()}
    assert {name for a in axes.values() for name in a} == {"norm"}


def test_a_merged_kernel_is_the_base_plus_the_scaled_product(tiny):
    drawn = tiny.draw(lambda key: LORA.init(key, tiny.params, tiny.model.axes), 1)
    base, factors, merged = (flatten(x) for x in (tiny.params, drawn, LORA.merge(tiny.params, drawn)))
    sizes = tiny.sizes
    for layer in range(sizes["num_layers"]):
        path = f"{LAYERS}/attention/query/kernel"
        a, b = (np.float64(factors[f"{path}/{f}"][layer]) for f in "ab")
        for h in range(sizes["num_heads"]):
            for k in range(sizes["head_dim"]):
                added = sum(a[:, r] * b[r, h * sizes["head_dim"] + k] for r in range(3)) * 6.0 / 3
                np.testing.assert_allclose(merged[path][layer][:, h, k], base[path][layer][:, h, k] + added, atol=1e-5)
        path = f"{LAYERS}/attention/output/kernel"
        a, b = (np.float64(factors[f"{path}/{f}"][layer]) for f in "ab")
        for h in range(sizes["num_heads"]):
            for k in range(sizes["head_dim"]):
                added = sum(a[h * sizes["head_dim"] + k, r] * b[r] for r in range(3)) * 6.0 / 3
                np.testing.assert_allclose(merged[path][layer][h, k], base[path][layer][h, k] + added, atol=1e-5)
        path = f"{LAYERS}/mlp/down/kernel"
        a, b = (np.float64(factors[f"{path}/{f}"][layer]) for f in "ab")
        np.testing.assert_allclose(merged[path][layer], base[path][layer] + 2.0 * a @ b, atol=1e-5)
    assert np.array_equal(merged["encoder/embedding/table"], base["encoder/embedding/table"])


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"pattern": "atention"}, "matches no kernel; they are like encoder/stack/layers/attention"),
        ({"pattern": "("}, "not a regular expression"),
        ({"rank": 0}, "expected an integer >= 1"),
        ({"alpha": float("nan")}, "finite"),
    ],
)
def test_wrong_settings_are_refused(fields, message, tiny):
    with pytest.raises(ConfigError, match=message):
        Lora(**fields).init(jax.random.key(0), tiny.params, tiny.model.axes)
