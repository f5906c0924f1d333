"""Two towers as one model: the published sizes, the methods and what each gives, and layers that lie apart."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed.errors import ConfigError
from embed.models import api
from embed.models.dual_encoder import DualEncoder, ImageEmbedder
from embed.models.embedder import Embedder
from embed.models.pooling import MeanPooling
from embed.models.tips_text import TipsText
from embed.models.vit import VisionTransformer

# Width, layers, heads, hidden size of each MLP, whether the image tower is gated, layers of the text tower, and the parameters of
# both towers. Source: the TIPS repository, with a grid of 16 x 16 positions.
RELEASED = {
    "S/14": (384, 12, 6, (1536, 1536), False, 12, (21_619_584, 33_582_336)),
    "B/14": (768, 12, 12, (3072, 3072), False, 12, (85_706_496, 109_632_000)),
    "L/14": (1024, 24, 16, (4096, 4096), False, 12, (303_178_752, 183_924_736)),
    "So400m/14": (1152, 27, 16, (4304, 4304), False, 27, (412_444_656, 448_332_912)),
    "g/14": (1536, 40, 24, (4096, 6144), True, 12, (1_134_646_784, 389_133_312)),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_models_have_their_published_sizes(name):
    width, layers, heads, hidden, gated, text_layers, expected = RELEASED[name]
    image = VisionTransformer(width=width, num_layers=layers, num_heads=heads, mlp_dim=hidden[0], gated=gated)
    text = TipsText(width=width, num_layers=text_layers, num_heads=heads, mlp_dim=hidden[1])
    module = DualEncoder(Embedder(text, MeanPooling()), ImageEmbedder(image))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), method=module.initialise))["params"]
    count = lambda tree: sum(math.prod(x.shape) for x in jax.tree.leaves(tree))  # noqa: E731
    assert (count(shapes["image"]), count(shapes["text"])) == expected


TEXT = Embedder(TipsText(vocab_size=30, width=8, num_layers=2, num_heads=2, mlp_dim=12), MeanPooling())
VIT = VisionTransformer(2, 8, 2, 2, 12, position_grid=3, mask_token=True)


@pytest.fixture(scope="module")
def model():
    return api.build(DualEncoder(TEXT, ImageEmbedder(VIT, image_size=6), (8, 4)))


@pytest.fixture(scope="module")
def params(model):
    return jax.jit(model.init)(jax.random.key(0))


PIXELS = np.random.default_rng(0).uniform(size=(3, 6, 6, 3)).astype(np.float32)
TOKENS = {"tokens": np.arange(10, dtype=np.int32).reshape(2, 5), "segment_ids": np.ones((2, 5), bool)}


@pytest.mark.slow
def test_each_method_gives_what_its_tower_gives(model, params):
    assert list(model.methods) == ["text", "image", "image_with_token", "image_tokens", "masked_image_tokens"]
    assert (model.embedding_dim, model.matryoshka_dims) == (8, (8, 4))
    apply = jax.jit(model.apply, static_argnames="method")
    texts = apply(params, TOKENS)
    alone = api.build(TEXT)
    np.testing.assert_allclose(texts, jax.jit(alone.apply)(params["text"], TOKENS), atol=1e-6)
    images = np.asarray(apply(params, {"pixels": PIXELS}, method="image"))
    np.testing.assert_allclose(np.linalg.norm(images, axis=-1), 1, rtol=1e-6)
    class_tokens, patches = apply(params, {"pixels": PIXELS}, method="image_tokens")
    assert class_tokens.shape == (3, 2, 8) and patches.shape == (3, 9, 8)
    first = np.asarray(class_tokens[:, 0])
    np.testing.assert_allclose(images, first / np.linalg.norm(first, axis=-1, keepdims=True), atol=1e-6)
    mask = np.zeros((3, 9), bool)
    unmasked = apply(params, {"pixels": PIXELS, "patch_mask": mask}, method="masked_image_tokens")[1]
    np.testing.assert_allclose(unmasked, patches, atol=1e-6)


@pytest.mark.slow
def test_the_other_class_token_and_a_projection():
    second = api.build(ImageEmbedder(VIT, class_token=1, projection=(5,), image_size=6))
    params = jax.jit(second.init)(jax.random.key(1))
    tokens = second.apply(params, {"pixels": PIXELS}, method="image_tokens")[0][:, 1]
    mapped = np.asarray(tokens) @ np.asarray(params["projection_0"]["kernel"])
    vectors = second.apply(params, {"pixels": PIXELS}, method="image")
    np.testing.assert_allclose(vectors, mapped / np.linalg.norm(mapped, axis=-1, keepdims=True), atol=1e-6)
    assert second.embedding_dim == 5 and "text" not in second.methods


@pytest.mark.slow
def test_it_is_built_again_from_its_description(model, params):
    again = api.build(api.from_description(model.description))
    assert again.description == model.description
    np.testing.assert_array_equal(again.apply(params, TOKENS), model.apply(params, TOKENS))


@pytest.mark.slow
def test_layers_that_lie_apart_give_the_same(model, params):
    apart = model.apart(params)
    assert "layer_0" in apart["text"]["encoder"]["stack"] and "layer_1" in apart["image"]["encoder"]["stack"]
    for inputs, method in ((TOKENS, "text"), ({"pixels": PIXELS}, "image")):
        vectors = model.apply(apart, inputs, method=method)
        np.testing.assert_allclose(vectors, model.apply(params, inputs, method=method), atol=1e-6)


@pytest.mark.slow
def test_every_parameter_has_axes_and_the_flops_count_both(model, params):
    assert jax.tree.structure(params) == jax.tree.structure(model.axes, is_leaf=lambda x: isinstance(x, tuple))
    jax.tree.map(lambda x, axes: np.testing.assert_equal(x.ndim, len(axes)), params, model.axes)
    patches, width, hidden, length = 9, 8, 12, 9 + 2
    block = 2 * length * (4 * width * width + 2 * width * hidden) + 4 * width * length * length
    assert model.methods["image"].flops(6, 6) == 2 * patches * 3 * 4 * width + 2 * block


@pytest.mark.slow
def test_towers_of_different_sizes_are_refused():
    with pytest.raises(
        ConfigError, match=r"embeddings have different sizes \(text 8, image 5\); make the last projections equal"
    ):
        api.build(DualEncoder(TEXT, ImageEmbedder(VIT, projection=(5,), image_size=6)))
    with pytest.raises(
        ConfigError, match="ImageEmbedder.class_token = 2, and the encoder has 2 class tokens, counted from 0"
    ):
        api.build(ImageEmbedder(VIT, class_token=2, image_size=6))
    with pytest.raises(ConfigError, match="the model has no method 'images'; did you mean 'image'"):
        model = api.build(ImageEmbedder(VIT, image_size=6))
        model.apply(model.init(jax.random.key(0)), {"pixels": jnp.zeros((1, 6, 6, 3))}, method="images")


@pytest.fixture(scope="module")
def mixed():
    model = api.build(DualEncoder(TEXT, ImageEmbedder(VIT, image_size=6), max_images=3))
    return model, jax.jit(model.init)(jax.random.key(1))


@pytest.mark.slow
def test_images_in_a_text_are_their_class_token_their_number_and_nothing_else(mixed):
    model, params = mixed
    assert list(model.methods)[-2:] == ["inserted", "mixed"] and model.methods["mixed"].inputs[-1] == "inserted"
    vectors = model.apply(params, {"pixels": PIXELS}, method="inserted")
    assert vectors.shape == (3, 3, 1, 8)
    token = np.asarray(model.apply(params, {"pixels": PIXELS}, method="image_tokens")[0][:, 0])
    expected = (token @ params["image_input"]["kernel"])[:, None] + params["image_numbers"]
    np.testing.assert_allclose(vectors[:, :, 0], expected * 8**0.5, atol=1e-5)


@pytest.mark.slow
def test_a_text_with_vectors_of_its_own_words_is_that_text(mixed):
    model, params = mixed
    table = np.asarray(params["text"]["encoder"]["embedding"]["table"]) * 8**0.5
    tokens = TOKENS["tokens"].copy()
    inserted = np.zeros((*tokens.shape, 8), np.float32)
    for row, column in ((0, 0), (1, 3), (1, 4)):
        inserted[row, column], tokens[row, column] = table[tokens[row, column]], -1
    inputs = {"tokens": tokens, "segment_ids": TOKENS["segment_ids"], "inserted": inserted}
    found = model.apply(params, inputs, method="mixed")
    np.testing.assert_allclose(found, model.apply(params, TOKENS), atol=1e-6)
    other = model.apply(params, {**inputs, "inserted": -inserted}, method="mixed")
    assert np.abs(np.asarray(other) - np.asarray(found)).max() > 1e-3


FAMILIES = [
    "gemma",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("bert", "modernbert", "t5gemma", "embedding_gemma2")),
]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_vectors_in_place_of_words(family):
    from embed.models.bert import Bert
    from embed.models.embedding_gemma2 import EmbeddingGemma2
    from embed.models.gemma import Gemma
    from embed.models.modernbert import ModernBert
    from embed.models.t5gemma import T5GemmaEncoder

    sizes = {"vocab_size": 30, "width": 8, "num_layers": 2, "num_heads": 2, "mlp_dim": 12}
    encoder = {
        "bert": lambda: Bert(**sizes, max_positions=16),
        "modernbert": lambda: ModernBert(**sizes),
        "gemma": lambda: Gemma(**sizes, num_kv_heads=1, head_dim=4),
        "t5gemma": lambda: T5GemmaEncoder(**sizes, num_kv_heads=1, head_dim=4),
        "embedding_gemma2": lambda: EmbeddingGemma2(
            **sizes, num_kv_heads=1, head_dim=4, global_head_dim=8, per_layer_dim=4, output_dim=8, global_every=2
        ),
    }[family]()
    model = api.build(DualEncoder(Embedder(encoder, MeanPooling()), ImageEmbedder(VIT, image_size=6), max_images=1))
    params = jax.jit(model.init)(jax.random.key(1))
    table = np.asarray(params["text"]["encoder"]["embedding"]["table"]) * encoder.embedding_scale
    tokens = TOKENS["tokens"].copy()
    inserted = np.zeros((*tokens.shape, 8), np.float32)
    inserted[1, 2], tokens[1, 2] = table[tokens[1, 2]], -1
    inputs = {"tokens": tokens, "segment_ids": TOKENS["segment_ids"], "inserted": inserted}
    np.testing.assert_allclose(model.apply(params, inputs, method="mixed"), model.apply(params, TOKENS), atol=2e-6)
