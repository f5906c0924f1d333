"""Matryoshka training is the same loss on renormalised prefixes, added."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed.errors import ConfigError
from embed.losses.contrastive import Contrastive
from embed.losses.distillation import EmbeddingDistillation
from embed.losses.matryoshka import Matryoshka
from embed.losses.total import Total
from embed.types import Loss, PairEmbeddings

LOSS = Contrastive(0.1, 5.0)


def outputs(seed: int = 0, dtype=jnp.float64) -> PairEmbeddings:
    random = np.random.default_rng(seed)
    towers = (random.normal(size=shape) for shape in ((4, 8), (4, 8), (4, 2, 8)))
    mask = jnp.asarray([[True, True], [True, False], [False, False], [True, True]])
    repeated = jnp.asarray([[1, 1], [1, 1], [2, 2], [3, 3]], jnp.uint32)
    return PairEmbeddings(*(jnp.asarray(t, dtype) for t in towers), mask, query_id=repeated)


def prefix_loss(o: PairEmbeddings, dim: int):
    def cut(x):
        x = np.asarray(x, np.float64)[..., :dim]
        return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))

    return LOSS(PairEmbeddings(cut(o.query), cut(o.target), cut(o.negatives), o.negatives_mask, o.query_id))


class Lengths:
    """A loss that is the mean length of the vectors it is given."""

    def init(self):
        return {}

    def __call__(self, pairs, params=None, step=0):
        sides = (pairs.query, pairs.target, pairs.negatives)
        return jnp.mean(jnp.stack([jnp.mean(jnp.linalg.norm(x, axis=-1)) for x in sides])), {}


def test_a_loss_is_given_unit_vectors_at_every_size():
    _, metrics = Matryoshka(Lengths(), (8, 3, 5))(outputs(dtype=jnp.float32))
    assert {name: float(x) for name, x in metrics.items()} == pytest.approx(
        {"loss@8": 1, "loss@5": 1, "loss@3": 1}, abs=1e-6
    )


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 3.0)])
def test_is_the_weighted_sum_over_renormalised_prefixes(weights):
    with jax.enable_x64(True):
        o, dims = outputs(), (8, 3, 5)
        value, metrics = Matryoshka(LOSS, dims, weights)(o)
        parts = {dim: prefix_loss(o, dim) for dim in dims}
        expected = sum(w * float(parts[d][0]) for d, w in zip(dims, weights or (1, 1, 1)))
        assert float(value) == pytest.approx(expected, rel=0, abs=1e-12)
        for dim in dims:
            assert float(metrics[f"loss@{dim}"]) == pytest.approx(float(parts[dim][0]), abs=1e-12)
        assert float(metrics["accuracy"]) == float(parts[8][1]["accuracy"])
        assert float(metrics["positive_similarity"]) == pytest.approx(float(parts[8][1]["positive_similarity"]))


@pytest.mark.slow
def test_the_full_size_alone_is_the_plain_loss():
    with jax.enable_x64(True):
        o = outputs()
        assert float(Matryoshka(LOSS, (8,))(o)[0]) == pytest.approx(float(LOSS(o)[0]), abs=1e-12)


def test_gradient_is_the_sum_of_the_parts_gradients():
    with jax.enable_x64(True):
        o = outputs(1)

        def at(dims):
            return jax.jit(jax.grad(lambda q: Matryoshka(LOSS, dims)(dataclasses.replace(o, query=q))[0]))(o.query)

        np.testing.assert_allclose(at((2, 8)), at((2,)) + at((8,)), rtol=0, atol=1e-12)
        assert np.all(np.asarray(at((2,)))[:, 2:] == 0)


def test_zero_vectors_and_zero_prefixes_are_finite():
    o = outputs(2, jnp.float32)
    query, target = o.query.at[0].set(0).at[1, :4].set(0), o.target.at[0].set(0)

    def total(q, p, n):
        return Matryoshka(LOSS, (8, 4))(PairEmbeddings(q, p, n, o.negatives_mask))[0]

    value, gradient = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(query, target, o.negatives)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradient)


@pytest.mark.parametrize("dims", [(), (4, 4), (0, 4), (-1,)])
def test_dims_must_be_different_and_positive(dims):
    with pytest.raises(ConfigError, match="Matryoshka.dims.*(different positive|an integer >= 1)"):
        Matryoshka(LOSS, dims)


def test_there_is_one_weight_per_dim():
    with pytest.raises(ConfigError, match="2 values for 3 dims"):
        Matryoshka(LOSS, (8, 4, 2), (1.0, 1.0))


def test_dims_larger_than_the_embedding_are_refused():
    with pytest.raises(ConfigError, match="embedding has 8 values"):
        Matryoshka(LOSS, (16, 8))(outputs(dtype=jnp.float32))


def test_is_a_loss():
    assert isinstance(Matryoshka(LOSS, (8,)), Loss)


def test_a_loss_of_the_intermediate_embedding_is_refused():
    inner = Total({"taught": EmbeddingDistillation(student="intermediate")})
    with pytest.raises(ConfigError, match="put that loss beside Matryoshka in losses.total.Total"):
        Matryoshka(inner, (8, 4))
