"""Adapters: the merged kernels against loops, gradients of the factors alone, wrong patterns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed.errors import ConfigError
from embed.models import api
from embed.models.lora import Lora
from embed.training import optimizers
from embed.trees import flatten

LAYERS = "encoder/stack/layers"


@pytest.fixture(scope="module")
def adapted(tiny):
    model = api.build(tiny.make())
    return model, Lora(rank=3, alpha=6.0).adapt(model)


def drawn(tiny, learner, seed=1):
    """Returns parameters with factors that are not zero."""
    return tiny.draw(learner.init, seed)


def test_at_the_start_the_model_is_the_base(tiny, adapted):
    _, learner = adapted
    params = tiny.fast(learner.init)(jax.random.key(0))
    merged, base = flatten(learner.serving(params)), flatten(params["base"])
    assert list(merged) == list(base)
    assert all(np.array_equal(merged[p], base[p]) for p in base)
    factors = flatten(params["lora"])
    assert {p.rpartition("/")[0] for p in factors} == {
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
    assert all(np.any(x != 0) == p.endswith("/a") for p, x in factors.items())


def test_a_merged_kernel_is_the_base_plus_the_scaled_product(tiny, adapted):
    _, learner = adapted
    params = drawn(tiny, learner)
    base, factors, merged = (flatten(x) for x in (params["base"], params["lora"], learner.serving(params)))
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


def test_the_adapted_model_is_the_merged_one_and_only_factors_have_a_gradient(tiny, adapted):
    model, learner = adapted
    params = drawn(tiny, learner)
    tokens, mask = tiny.texts()
    found = tiny.fast(learner.apply)(params, tokens, mask)
    np.testing.assert_allclose(found, tiny.fast(model.apply)(learner.serving(params), tokens, mask), atol=1e-6)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=found.shape), jnp.float32)
    gradient = tiny.fast(jax.grad(lambda p: jnp.sum(weights * learner.apply(p, tokens, mask))))(params)
    assert all(not np.any(x) for x in jax.tree.leaves(gradient["base"]))
    assert all(np.any(x) for x in jax.tree.leaves(gradient["lora"]))


def test_a_frozen_part_takes_no_step_and_no_memory(tiny, adapted):
    _, learner = adapted
    params = drawn(tiny, learner)
    optimizer = optimizers.freeze(optimizers.adamw(1e-2, weight_decay=0.1), learner.frozen)
    state = optimizer.init(params)
    moments = [x for x in jax.tree.leaves(state) if x.ndim]
    assert len(moments) == 2 * len(jax.tree.leaves(params["lora"]))
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
    assert all(not np.any(x) for x in jax.tree.leaves(updates["base"]))
    assert all(np.all(x != 0) for x in jax.tree.leaves(updates["lora"]))


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
        Lora(**fields).adapt(tiny.model)
