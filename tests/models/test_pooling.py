"""Poolers against numpy, and texts without tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed.models.pooling import AttentionPooling, FirstPooling, LastPooling, MeanPooling

LENGTHS = (5, 3, 1, 4)
POOLERS = [MeanPooling(), FirstPooling(), LastPooling(), AttentionPooling(4)]


def inputs(dtype=jnp.float32):
    x = np.random.default_rng(0).normal(size=(4, 5, 8))
    return jnp.asarray(x, dtype), jnp.arange(5) < jnp.asarray(LENGTHS)[:, None]


def variables(pooler, x, mask):
    random = np.random.default_rng(1)
    shapes = nn.unbox(jax.eval_shape(pooler.init, jax.random.key(0), x, mask))
    return jax.tree.map(lambda s: jnp.asarray(random.normal(size=s.shape), s.dtype), shapes)


def attention_pooled(x, p, heads):
    """Returns softmax(q k^T / sqrt(D)) v of one text's real tokens [L, D]."""
    width = x.shape[-1]
    query = p["query"].reshape(heads, width // heads)
    out = []
    for h in range(heads):
        k, v = x @ p["key"]["kernel"][:, h], x @ p["value"]["kernel"][:, h]
        weights = np.exp(k @ query[h] / np.sqrt(width))
        out.append(weights / weights.sum() @ v)
    return np.concatenate(out)


REFERENCES = {
    "MeanPooling": lambda x, p: x.mean(0),
    "FirstPooling": lambda x, p: x[0],
    "LastPooling": lambda x, p: x[-1],
    "AttentionPooling": lambda x, p: attention_pooled(x, p, 4),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("pooler", POOLERS, ids=lambda p: type(p).__name__)
def test_pooler_matches_numpy_and_gives_float32(pooler, dtype):
    x, mask = inputs(dtype)
    v = variables(pooler, x, mask)
    found = pooler.apply(v, x, mask)
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), dict(v.get("params", {})))
    rows = [np.asarray(row, np.float64)[:n] for row, n in zip(x, LENGTHS)]
    expected = np.stack([REFERENCES[type(pooler).__name__](row, params) for row in rows])
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooler", POOLERS, ids=lambda p: type(p).__name__)
def test_padding_changes_nothing_and_gets_no_gradient(pooler):
    x, mask = inputs()
    v = variables(pooler, x, mask)
    other = jnp.where(mask[..., None], x, 100.0)
    np.testing.assert_array_equal(pooler.apply(v, x, mask), pooler.apply(v, other, mask))
    gradient = jax.jit(jax.grad(lambda x: (pooler.apply(v, x, mask) ** 2).sum()))(x)
    assert np.all(np.asarray(gradient)[~np.asarray(mask)] == 0)
    assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("pooler", POOLERS, ids=lambda p: type(p).__name__)
def test_a_text_without_tokens_is_finite(pooler):
    x, mask = inputs()
    mask = mask.at[1].set(False)
    v = variables(pooler, x, mask)
    total = lambda v, x: (pooler.apply(v, x, mask) ** 2).sum()  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(v, x)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_mean_of_a_text_without_tokens_is_zero():
    x, mask = inputs()
    assert np.all(MeanPooling().apply({}, x, jnp.zeros_like(mask)) == 0)


@pytest.mark.parametrize("pooler", POOLERS, ids=lambda p: type(p).__name__)
def test_a_text_in_a_row_of_several_has_the_vector_it_has_alone(pooler):
    x, mask = inputs()
    v = variables(pooler, x, mask)
    alone = pooler.apply(v, x, mask)
    # The texts one behind the other in two rows, with junk as padding behind them.
    places = {0: (0, slice(0, 5)), 1: (0, slice(5, 8)), 2: (1, slice(0, 1)), 3: (1, slice(1, 5))}
    rows, segment_ids = np.full((2, 9, 8), 50.0, np.float32), np.zeros((2, 9), np.int32)
    for i, (row, place) in places.items():
        rows[row, place], segment_ids[row, place] = x[i, : LENGTHS[i]], i % 2 + 1
    found = pooler.apply(v, jnp.asarray(rows), jnp.asarray(segment_ids), 3)
    assert found.shape == (2, 3, 8) and np.all(np.isfinite(found))
    for i, (row, _) in places.items():
        np.testing.assert_allclose(found[row, i % 2], alone[i], rtol=0, atol=1e-5)
