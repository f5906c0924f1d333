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


@pytest.fixture(scope="module")
def pooled(tiny, encoded):
    """What the mean pooler gives, before projection and scaling."""
    return np.asarray(MeanPooling().apply({}, encoded, tiny.texts()[1]), np.float64)


@pytest.mark.slow
def test_a_chain_of_projections_equals_its_product(tiny, pooled):
    kernels = [np.asarray(tiny.params[f"projection_{i}"]["kernel"], np.float64) for i in range(2)]
    direct = pooled @ kernels[0] @ kernels[1]
    found = tiny.apply(tiny.params, *tiny.texts())
    np.testing.assert_allclose(found, direct / np.linalg.norm(direct, axis=-1, keepdims=True), rtol=0, atol=1e-5)


def test_without_projection_the_pooled_vector_is_scaled_to_unit_length(tiny, pooled):
    model = api.build(tiny.make(projection=()))
    assert model.embedding_dim == 12
    found = tiny.fast(by_text(model))({"encoder": tiny.params["encoder"]}, *tiny.texts())
    np.testing.assert_allclose(found, pooled / np.linalg.norm(pooled, axis=-1, keepdims=True), rtol=0, atol=1e-5)


def test_the_intermediate_embedding_is_what_the_last_map_is_applied_to(tiny, pooled):
    """Beside the same final embedding, at unit length, for texts alone and packed."""
    tokens, mask = tiny.texts()
    embeddings = tiny.fast(
        lambda p, t, m: tiny.model.apply(p, {"tokens": t, "segment_ids": m}, method="embeddings"),
    )
    final, intermediate = embeddings(tiny.params, tokens, mask)
    direct = pooled @ np.asarray(tiny.params["projection_0"]["kernel"], np.float64)
    np.testing.assert_allclose(intermediate, direct / np.linalg.norm(direct, axis=-1, keepdims=True), rtol=0, atol=1e-5)
    np.testing.assert_allclose(final, tiny.apply(tiny.params, tokens, mask), rtol=0, atol=1e-6)
    packed = jax.eval_shape(
        lambda p: tiny.model.apply(
            p, {"tokens": tokens, "segment_ids": mask.astype(jnp.int32)}, method="embeddings", max_segments=3
        ),
        tiny.params,
    )
    assert [x.shape for x in packed] == [(4, 3, 8), (4, 3, 14)]


@pytest.mark.parametrize("projection", [(), (8,)])
def test_a_model_of_fewer_than_two_maps_has_no_intermediate_embedding(tiny, projection):
    model = api.build(tiny.make(projection=projection))
    with pytest.raises(ConfigError, match="the model has no method 'embeddings'"):
        model.apply({}, {}, method="embeddings")


@pytest.mark.slow
def test_a_text_in_a_row_of_several_has_the_vector_it_has_alone(tiny):
    tokens, mask = tiny.texts()
    row, segment_ids = np.full((2, 14), 7, np.int32), np.zeros((2, 14), np.int32)
    places = [(0, slice(0, 11)), (1, slice(0, 7)), (0, slice(11, 12)), (1, slice(7, 10))]
    for i, (r, place) in enumerate(places):
        row[r, place], segment_ids[r, place] = tokens[i][mask[i]], i // 2 + 1
    apply = tiny.fast(lambda p, t, s: by_text(tiny.model)(p, t, s, max_segments=3))
    found = np.asarray(apply(tiny.params, jnp.asarray(row), jnp.asarray(segment_ids)))
    assert found.shape == (2, 3, 8) and np.all(np.isfinite(found))
    alone = tiny.apply(tiny.params, tokens, mask)
    assert max(np.max(np.abs(found[r, i // 2] - alone[i])) for i, (r, _) in enumerate(places)) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("pooler", [FirstPooling(), LastPooling(), AttentionPooling(3)], ids=lambda p: type(p).__name__)
def test_every_pooler_builds_into_a_model(tiny, pooler):
    model = api.build(tiny.make(pooling=pooler))
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert jax.eval_shape(by_text(model), params, *tiny.texts()).shape == (4, 8)
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


@pytest.mark.slow
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
