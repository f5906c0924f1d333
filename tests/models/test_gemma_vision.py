"""Gemma 4's image tower against loops in float64, and the images that it reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixed_models import VISION

from embed.errors import ConfigError
from embed.models.gemma_vision import GemmaVision
from embed.trees import flatten

EPS = 1e-6


def draw(tower, pixels):
    """Returns random parameters."""
    random = np.random.default_rng(5)
    shapes = jax.eval_shape(tower.init, jax.random.key(0), pixels)["params"]
    boxed = lambda x: hasattr(x, "value")  # noqa: E731
    return jax.tree.map(
        lambda s: np.asarray(random.normal(size=s.value.shape) * 0.4, np.float32), shapes, is_leaf=boxed
    )


def rms(x, scale=1.0):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + EPS) * scale


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def turned(x, column, row, base):
    """Returns one head with each pair of values turned by its angle: a quarter of the pairs by the column, a quarter by the row."""
    size, out = len(x), np.array(x)
    quarter = size // 4
    for pair in range(size // 2):
        position = column if pair < quarter else row
        angle = position / base ** ((pair % quarter) / quarter)
        a, b = x[pair], x[pair + size // 2]
        out[pair] = a * np.cos(angle) - b * np.sin(angle)
        out[pair + size // 2] = b * np.cos(angle) + a * np.sin(angle)
    return out


def by_loops(tower, params, image):
    """Returns the vectors of one image in float64, patch by patch and head by head."""
    p = jax.tree.map(np.float64, params)
    size, side = tower.patch_size, tower.pooling
    rows, columns = (n // size for n in image.shape[:2])
    x = np.empty((rows * columns, tower.width))
    for row in range(rows):
        for column in range(columns):
            patch = 2 * image[row * size : (row + 1) * size, column * size : (column + 1) * size] - 1
            place = p["positions"][0, column] + p["positions"][1, row]
            x[row * columns + column] = np.tensordot(patch, p["patches"]["kernel"], 3) + place
    layers = p["stack"]["layers"]
    for number in range(tower.num_layers):
        layer = jax.tree.map(lambda a, n=number: a[n], layers)
        y = attention(tower, layer["attention"], rms(x, layer["attention_norm"]["scale"]), columns)
        x = x + rms(y, layer["attention_post_norm"]["scale"])
        y = rms(x, layer["mlp_norm"]["scale"])
        hidden = gelu_tanh(y @ layer["mlp"]["gate"]["kernel"]) * (y @ layer["mlp"]["up"]["kernel"])
        x = x + rms(hidden @ layer["mlp"]["down"]["kernel"], layer["mlp_post_norm"]["scale"])
    out = []
    for row in range(0, rows, side):
        for column in range(0, columns, side):
            of_square = [(row + i) * columns + column + j for i in range(side) for j in range(side)]
            out.append(x[of_square].mean(0) * np.sqrt(tower.width))
    return (np.stack(out) - p["mean"]) * p["inverse_deviation"] if tower.standardize else np.stack(out)


def attention(tower, p, x, columns):
    q, k, v = (np.einsum("ld,dhk->lhk", x, p[name]["kernel"]) for name in ("query", "key", "value"))
    q, k, v = rms(q, p["query_norm"]["scale"]), rms(k, p["key_norm"]["scale"]), rms(v)
    turn = lambda y: np.stack(  # noqa: E731
        [[turned(h, i % columns, i // columns, tower.rope_base) for h in heads] for i, heads in enumerate(y)]
    )
    q, k, out = turn(q), turn(k), np.empty(q.shape)
    for head in range(tower.num_heads):
        group = head // (tower.num_heads // tower.num_kv_heads)
        logits = q[:, head] @ k[:, group].T
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        out[:, head] = weights / weights.sum(-1, keepdims=True) @ v[:, group]
    return np.einsum("lhk,hkd->ld", out, p["output"]["kernel"])


@pytest.mark.slow
@pytest.mark.parametrize("standardize", [False, True])
def test_vectors_are_those_of_loops(standardize):
    tower = GemmaVision(**VISION, standardize=standardize, rope_base=7.0)
    images = np.random.default_rng(1).uniform(size=(2, 8, 12, 3)).astype(np.float32)
    params = draw(tower, images)
    vectors = jax.jit(lambda p, x: tower.apply({"params": p}, x))(params, images)
    assert vectors.shape == (2, tower.tokens(8, 12), tower.width) == (2, 6, 12)
    for image, found in zip(images, vectors):
        np.testing.assert_allclose(found, by_loops(tower, params, np.float64(image)), atol=3e-5, rtol=3e-5)


@pytest.mark.slow
def test_bytes_are_colours_of_255():
    tower = GemmaVision(**VISION)
    images = np.random.default_rng(1).integers(0, 256, (1, 4, 4, 3)).astype(np.uint8)
    params = draw(tower, images)
    run = jax.jit(lambda p, x: tower.apply({"params": p}, x))
    np.testing.assert_allclose(run(params, images), run(params, images / np.float32(255)), atol=1e-5)


@pytest.mark.slow
def test_what_the_checkpoint_standardises_by_is_not_trained():
    tower = GemmaVision(**VISION, standardize=True)
    images = np.random.default_rng(1).uniform(size=(1, 4, 4, 3)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(tower.apply({"params": p}, images) ** 2)))(draw(tower, images))
    unmoved = {path for path, x in flatten(gradient).items() if not np.any(x)}
    assert unmoved == {"mean", "inverse_deviation"}


def test_images_and_sizes_that_do_not_fit():
    tower = GemmaVision(**VISION)
    for side in (6, 40):
        with pytest.raises(
            ConfigError, match=f"images of {side} pixels a side; GemmaVision reads multiples of .* = 4, up to 9"
        ):
            tower.tokens(side, side)
    for wrong in ({"num_kv_heads": 3}, {"head_dim": 6}, {"remat": "dot"}):
        with pytest.raises(ConfigError):
            GemmaVision(**{**VISION, **wrong}).check()


def test_flops_are_two_for_each_weight_and_patch():
    tower = GemmaVision(**VISION)
    weights = 12 * 8 * (2 * 4 + 2 * 2) + 3 * 12 * 20
    expected = 2 * 16 * (3 * 4 * 12 + 2 * weights) + 2 * 4 * 4 * 8 * 16 * 16
    assert tower.forward_flops(16) == pytest.approx(expected, rel=0.05)
