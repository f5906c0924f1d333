"""The head of the model: pooling choices, the projection chain, Matryoshka sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_calls import by_text

from embed.errors import ConfigError
from embed.losses.contrastive import Contrastive
from embed.losses.matryoshka import Matryoshka
from embed.models import api
from embed.models.pooling import AttentionPooling, FirstPooling, LastPooling, MeanPooling
from embed.types import PairEmbeddings


def pooled(tiny, params):
    """Returns what the mean pooler gives, before projection and scaling."""
    encoder = tiny.make().encoder
    tokens, mask = tiny.texts()
    x = tiny.fast(encoder.apply)({"params": params["encoder"]}, tokens, mask)
    return np.asarray(MeanPooling().apply({}, x, mask), np.float64)


def test_a_chain_of_projections_equals_its_product(tiny):
    kernels = [np.asarray(tiny.params[f"projection_{i}"]["kernel"], np.float64) for i in range(2)]
    folded = api.build(tiny.make(projection=(8,)))
    params = {
        "encoder": tiny.params["encoder"],
        "projection_0": {"kernel": jnp.asarray(kernels[0] @ kernels[1], jnp.float32)},
    }
    found = tiny.fast(by_text(folded))(params, *tiny.texts())
    np.testing.assert_allclose(found, tiny.apply(tiny.params, *tiny.texts()), rtol=0, atol=1e-5)
    direct = pooled(tiny, tiny.params) @ kernels[0] @ kernels[1]
    np.testing.assert_allclose(found, direct / np.linalg.norm(direct, axis=-1, keepdims=True), rtol=0, atol=1e-5)


def test_without_projection_the_pooled_vector_is_scaled_to_unit_length(tiny):
    model = api.build(tiny.make(projection=()))
    assert model.embedding_dim == 12
    found = tiny.fast(by_text(model))({"encoder": tiny.params["encoder"]}, *tiny.texts())
    direct = pooled(tiny, tiny.params)
    np.testing.assert_allclose(found, direct / np.linalg.norm(direct, axis=-1, keepdims=True), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooler", [FirstPooling(), LastPooling(), AttentionPooling(3)], ids=lambda p: type(p).__name__)
def test_every_pooler_builds_into_a_model(tiny, pooler):
    model = api.build(tiny.make(pooling=pooler))
    params = tiny.draw(model.init)
    found = tiny.fast(by_text(model))(params, *tiny.texts())
    assert found.shape == (4, 8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)
    assert ("pooling" in params) == isinstance(pooler, AttentionPooling)


@pytest.mark.parametrize(
    ("given", "dims"), [((), (8,)), ((8,), (8,)), ((2, 4), (8, 4, 2)), ((4, 8, 2, 4), (8, 4, 2)), ((1,), (8, 1))]
)
def test_matryoshka_dims_are_largest_first_and_hold_the_embedding_size(tiny, given, dims):
    model = api.build(tiny.make(matryoshka_dims=given))
    assert model.matryoshka_dims == dims
    assert model.embedding_dim == 8


@pytest.mark.parametrize("dims", [(16, 4), (9,), (0,), (-1, 4)])
def test_matryoshka_dims_outside_the_embedding_are_refused(tiny, dims):
    with pytest.raises(ConfigError, match="matryoshka_dims.*between 1 and the embedding size 8"):
        api.build(tiny.make(matryoshka_dims=dims))


def test_training_on_a_text_without_tokens_is_finite(tiny):
    """Its embedding is zero; scaled to unit length by model, prefix and loss, the gradient must not overflow."""
    tokens, mask = tiny.texts()
    mask = mask.at[2].set(False)
    loss = Matryoshka(Contrastive(0.01), (8, 4))

    def total(params):
        x = by_text(tiny.model)(params, tokens, mask)
        return loss(PairEmbeddings(x[:2], x[2:]))[0]

    value, gradient = tiny.fast(jax.value_and_grad(total))(tiny.params)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
