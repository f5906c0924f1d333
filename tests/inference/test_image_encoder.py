"""Images encoded: each one once, in order, the same vector alone or among others, on any mesh."""

import dataclasses

import jax
import numpy as np
import pytest

from embed import arrays, sharding
from embed.data import image_values, images
from embed.errors import DataError, NumericError
from embed.models import api
from embed.sharding import MeshShape

PICTURES = [np.random.default_rng(i).integers(0, 256, (9 + i % 4, 11, 3)).astype(np.uint8) for i in range(37)]
LOCATIONS = [f"image {i}" for i in range(37)]


@pytest.fixture(scope="module")
def encoder(dual_model):
    return dual_model.encoder.images


@pytest.fixture(scope="module")
def expected(dual_model):
    """The vectors by the model itself, of images that Pillow resizes one by one."""
    from PIL import Image

    apply = jax.jit(dual_model.encoder.model.apply, static_argnames="method")
    params = arrays.load_numpy(dual_model.folder)
    pixels = np.stack([images.resized(Image.fromarray(p), 8) for p in PICTURES])
    return np.asarray(apply(params, {"pixels": pixels}, method="image"))


@pytest.mark.slow
@pytest.mark.parametrize("tokens_per_batch", [1, 8, 64, None])
def test_vectors_are_the_models_own_in_order(dual_model, encoder, expected, tokens_per_batch):
    encoder, counted = dataclasses.replace(encoder, tokens_per_batch=tokens_per_batch), []
    vectors = encoder(dual_model.params, PICTURES, LOCATIONS, counted.append)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-6)
    assert sum(counted) == len(PICTURES) and (len(counted) == 1) == (tokens_per_batch in (64, None))
    alone = encoder(dual_model.params, PICTURES[5:6], LOCATIONS[5:6])
    np.testing.assert_allclose(alone, expected[5:6], rtol=0, atol=1e-6)
    assert encoder(dual_model.params, [], []).shape == (0, 16)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [MeshShape(1, 1, 1), MeshShape(2, 2, 2)])
def test_vectors_are_the_same_on_every_mesh(dual_model, encoder, expected, shape):
    mesh = sharding.make_mesh(shape, jax.devices()[: shape.data * shape.fsdp * shape.tensor])
    params = jax.tree.map(
        jax.device_put,
        arrays.load_numpy(dual_model.folder),
        sharding.shardings(encoder.model.axes, dual_model.stored, mesh),
    )
    vectors = dataclasses.replace(encoder, mesh=mesh, tokens_per_batch=16)(params, PICTURES, LOCATIONS)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_one_shape_is_compiled_but_for_the_last_batch(dual_model, encoder):
    encoder = dataclasses.replace(encoder, tokens_per_batch=16)
    compiled = encoder._program._apply._cache_size()  # by other tests: the program is shared
    encoder(dual_model.params, PICTURES, LOCATIONS)
    assert encoder._program._apply._cache_size() - compiled <= 2
    assert encoder.batch_size == 4 * sharding.batch_shards(encoder.mesh)
    assert f"{encoder.batch_size}x8x8x3xui8" in encoder.lowered(dual_model.params, encoder.batch_size).as_text()


@pytest.mark.slow
def test_patches_are_the_encoders_and_a_grid_that_does_not_fit_is_refused(dual_model, encoder):
    patches, rows, columns = encoder.patches(dual_model.params, PICTURES[:5], LOCATIONS)
    assert (patches.shape, rows, columns) == ((5, 4, 16), 2, 2)
    with pytest.raises(DataError, match="gives 4 patches of an image, and 1 x 1 were expected; give it patch_size"):
        dataclasses.replace(encoder, patch_size=16).patches(dual_model.params, PICTURES[:5], LOCATIONS)


@pytest.mark.slow
def test_patches_of_values_are_those_of_the_tower_that_attends_to_them(dual_model, encoder):
    """The parameters as they are laid out for serving are those of both towers."""
    tower = encoder.model.description["image"]
    described = {
        **encoder.model.description,
        "image": {**tower, "encoder": {**tower["encoder"], "attend_values": True}},
    }
    model = api.build(api.from_description(described))
    params = arrays.load_numpy(dual_model.folder)
    pixels = np.stack([images.resized(image_values.opened(picture, ""), encoder.size) for picture in PICTURES[:5]])
    expected = model.apply(params, {"pixels": pixels}, method="image_tokens")[1]
    patches, _, _ = encoder.patches(dual_model.params, PICTURES[:5], LOCATIONS, attend_values=True)
    np.testing.assert_allclose(patches, expected, rtol=0, atol=1e-5)
    assert np.abs(patches - encoder.patches(dual_model.params, PICTURES[:5], LOCATIONS)[0]).max() > 1e-3


@pytest.mark.slow
def test_an_image_that_cannot_be_opened_is_named(dual_model, encoder):
    with pytest.raises(DataError, match="^image 20 is int, expected an image"):
        dataclasses.replace(encoder, tokens_per_batch=16)(
            dual_model.params, [*PICTURES[:20], 3, *PICTURES[21:]], LOCATIONS
        )


@pytest.mark.slow
def test_a_vector_that_is_not_finite_is_an_error(dual_model, encoder):
    broken = jax.tree.map(lambda x: x * np.nan, dual_model.params)
    with pytest.raises(NumericError, match="the vector of image 0 of 2 is not finite"):
        encoder(broken, PICTURES[:2], LOCATIONS[:2])
