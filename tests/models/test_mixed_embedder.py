"""A tower of texts that reads images: its methods, what stands for an image, and layers that lie apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixed_models import SIDE, mixed_embedder

from embed.errors import ConfigError
from embed.models import api
from embed.models.gemma_vision import GemmaVision
from embed.trees import flatten, unflatten


@pytest.fixture(scope="module")
def model():
    return api.build(mixed_embedder())


@pytest.fixture(scope="module")
def params(model):
    random = np.random.default_rng(2)
    shapes = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    return unflatten({path: random.normal(size=s.shape).astype(np.float32) * 0.4 for path, s in shapes.items()})


PIXELS = np.random.default_rng(0).uniform(size=(3, SIDE, SIDE, 3)).astype(np.float32)


@pytest.mark.slow
def test_methods_and_sizes(model, params):
    assert list(model.methods) == ["text", "inserted", "mixed"]
    assert model.embedding_dim == 12 and model.matryoshka_dims == (12,)
    assert set(params) == {"text", "image", "image_input"}
    assert model.methods["inserted"].flops(SIDE, SIDE) == GemmaVision.forward_flops(mixed_embedder().image.encoder, 16)
    assert api.from_description(model.description) == mixed_embedder()


@pytest.mark.slow
def test_an_image_is_its_vectors_of_unit_size_mapped(model, params):
    inserted = model.apply(params, {"pixels": PIXELS}, method="inserted")
    tower = mixed_embedder().image.encoder.apply({"params": params["image"]["encoder"]}, PIXELS)
    unit = np.float64(tower) / np.sqrt(np.mean(np.float64(tower) ** 2, -1, keepdims=True) + 1e-6)
    assert inserted.shape == (3, 1, 4, 16)
    np.testing.assert_allclose(inserted[:, 0], unit @ params["image_input"]["kernel"], atol=1e-5)


@pytest.mark.slow
def test_vectors_of_images_stand_in_texts_as_they_are(model, params):
    """A vector that is that of a token, scaled as the text tower scales them, gives the vector of the text with the token."""
    tokens = np.array([[3, 7, 9, 4]])
    mask = np.ones((1, 4), bool)
    expected = model.apply(params, {"tokens": tokens, "segment_ids": mask})
    table = params["text"]["encoder"]["embedding"]["table"]
    inserted = np.zeros((1, 4, 16), np.float32)
    inserted[0, 1:3] = table[[7, 9]] * 4.0  # sqrt(width)
    inputs = {"tokens": np.array([[3, -1, -2, 4]]), "segment_ids": mask, "inserted": inserted}
    np.testing.assert_allclose(model.apply(params, inputs, method="mixed"), expected, atol=2e-6)


@pytest.mark.slow
def test_layers_that_lie_apart_give_the_same(model, params):
    apart = model.apart(params)
    assert "layer_0" in apart["image"]["encoder"]["stack"] and "layer_0" in apart["text"]["encoder"]["stack"]
    run = jax.jit(lambda p: model.apply(p, {"pixels": PIXELS}, method="inserted"))
    np.testing.assert_allclose(run(apart), run(params), atol=2e-5)


@pytest.mark.slow
def test_remat_changes_no_gradient(model, params):
    def gradient(module):
        built = api.build(module)
        total = lambda p: jnp.sum(built.apply(p, {"pixels": PIXELS}, method="inserted") ** 2)  # noqa: E731
        return jax.jit(jax.grad(total))(params)

    plain, recomputed = (
        flatten(gradient(api.with_layers(mixed_embedder(), remat, False))) for remat in ("none", "full")
    )
    for path, x in plain.items():
        np.testing.assert_allclose(recomputed[path], x, atol=1e-3, rtol=1e-4, err_msg=path)


def test_an_image_size_that_the_tower_does_not_read():
    module = mixed_embedder()
    with pytest.raises(ConfigError, match="images of 10 pixels a side"):
        api.build(module.clone(image=module.image.clone(image_size=10)))
