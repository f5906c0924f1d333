"""Vision transformers against loops in float64: class tokens, registers, masks, positions, padding, scales of branches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_transformer import Layer, Numpy, gelu, gelu_tanh, layer_norm, silu

from embed.errors import ConfigError
from embed.models.position_grid import resize_weights
from embed.models.vit import VisionTransformer
from embed.trees import flatten

SIZES = {
    "patch_size": 2, "width": 12, "num_layers": 3, "num_heads": 4, "mlp_dim": 20, "position_grid": 3, "num_class_tokens": 2,
}  # fmt: skip
DINO = {"num_class_tokens": 1, "num_registers": 2, "class_position": True, "mask_token": True, "layer_scale": 0.5}
KINDS = {
    "tips": {},
    "tips, gated": {"gated": True, "activation": "silu"},
    "dino": {**DINO, "activation": "gelu", "position_resize": "cubic"},
}


def draw(vit, seed=5):
    """Returns parameters, none of them zero."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(vit.init, jax.random.key(0), jnp.zeros((1, 6, 6, 3)))["params"]
    return jax.tree.map(
        lambda s: np.asarray(random.normal(size=s.value.shape) * 0.3, np.float32), shapes, is_leaf=_boxed
    )


def _boxed(x):
    return hasattr(x, "value")


def images(height=6, width=6, count=2):
    return np.random.default_rng(1).uniform(size=(count, height, width, 3)).astype(np.float32)


def apply(vit, params, *inputs, **options):
    return jax.jit(lambda p, *x: vit.apply({"params": p}, *x, **options))(params, *inputs)


ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "silu": silu}


class Values(Numpy):
    """The layers of a vision transformer: branches may be scaled, and in the last block tokens may attend to themselves alone."""

    def branch(self, x, p, name, function, has_norm=True):
        scale = p[f"{name}_layer_scale"]["scale"] if f"{name}_layer_scale" in p else 1.0
        return x + function(self.norm(x, p[f"{name}_norm"])) * scale


def by_loops(vit, params, image, mask=None, values=False):
    """Returns (class tokens, patches) of one image in float64, patch by patch and head by head. `values`: of the values trick."""
    p = jax.tree.map(np.float64, params)
    size = vit.patch_size
    missing = [-side % size for side in image.shape[:2]]
    image = np.pad(np.float64(image), [*((m // 2, m - m // 2) for m in missing), (0, 0)])
    rows, columns = image.shape[0] // size, image.shape[1] // size
    down, across = (resize_weights(vit.position_grid, n, vit.position_resize) for n in (rows, columns))
    tokens = [*p["class_tokens"] + p.get("class_positions", 0), *p.get("registers", [])]
    for i in range(rows):
        for j in range(columns):
            patch = image[size * i : size * (i + 1), size * j : size * (j + 1)]
            x = np.einsum("yxc,yxcD->D", patch, p["patches"]["kernel"]) + p["patches"]["bias"]
            if mask is not None and mask[i * columns + j]:
                x = p["mask_token"]
            tokens.append(x + np.einsum("h,w,hwD->D", down[i], across[j], p["positions"]))
    last = Layer(0, 0) if values else Layer()
    layers = [*(Layer() for _ in range(vit.num_layers - 1)), last]
    norm, scale = layer_norm(vit.norm_eps), (vit.width // vit.num_heads) ** -0.5
    stack = Values(norm, "before", ACTIVATIONS[vit.activation], scale, layers, gated=vit.gated)
    x = norm(stack.stack(np.array(tokens), params["stack"]["layers"]), p["final_norm"])
    return x[: vit.num_class_tokens], x[vit.num_class_tokens + vit.num_registers :]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(6, 6), (5, 9)], ids=str)
def test_tokens_and_patches_are_those_of_loops(kind, size):
    """Of the trained grid, and of one whose sides are no multiples of a patch."""
    vit = VisionTransformer(**{**SIZES, **KINDS[kind]})
    params, pixels = draw(vit), images(*size)
    class_tokens, patches = apply(vit, params, pixels)
    assert patches.shape[1] == vit.num_patches(*size)
    for i, image in enumerate(pixels):
        expected = by_loops(vit, params, image)
        np.testing.assert_allclose(class_tokens[i], expected[0], atol=2e-5)
        np.testing.assert_allclose(patches[i], expected[1], atol=2e-5)


@pytest.mark.slow
def test_masked_patches_are_one_token_before_they_get_their_positions():
    vit = VisionTransformer(**{**SIZES, **KINDS["dino"]})
    params, pixels = draw(vit), images()
    mask = np.random.default_rng(3).uniform(size=(2, 9)) < 0.75
    _, patches = apply(vit, params, pixels, mask)
    for i, image in enumerate(pixels):
        np.testing.assert_allclose(patches[i], by_loops(vit, params, image, mask[i])[1], atol=2e-5)
    hidden = np.where(np.repeat(np.repeat(mask.reshape(2, 3, 3), 2, 1), 2, 2)[..., None], 0.5, pixels)
    np.testing.assert_array_equal(apply(vit, params, hidden, mask)[1], patches)


def test_patches_of_the_values_trick_do_not_attend_in_the_last_block():
    plain = VisionTransformer(**SIZES)
    params, pixels = draw(plain), images()
    vit = plain.clone(attend_values=True)
    class_tokens, patches = apply(vit, params, pixels)
    for i, image in enumerate(pixels):
        expected = by_loops(plain, params, image, values=True)
        np.testing.assert_allclose(patches[i], expected[1], atol=2e-5)
        np.testing.assert_allclose(class_tokens[i], expected[0], atol=2e-5)


@pytest.mark.slow
def test_stochastic_depth_leaves_whole_branches_of_an_image_out_and_none_in_the_first_layer():
    vit = VisionTransformer(**{**SIZES, "num_layers": 2, "stochastic_depth": 0.5})
    params = draw(vit)
    pixels = np.repeat(images(count=1), 64, 0)
    run = jax.jit(lambda key: vit.apply({"params": params}, pixels, None, True, rngs={"dropout": key})[1])
    first = np.asarray(run(jax.random.key(0)))
    kinds = np.unique(first.round(5).reshape(64, -1), axis=0)
    assert len(kinds) == 4  # attention and MLP of the second layer, each there or not
    assert np.any(first != run(jax.random.key(1)))
    np.testing.assert_allclose(
        apply(vit, params, pixels, None, is_training=False)[1],
        apply(vit.clone(stochastic_depth=0.0), params, pixels)[1],
    )


@pytest.mark.slow
def test_unroll_and_remat_change_nothing():
    vit = VisionTransformer(**{**SIZES, **KINDS["dino"]})
    params, pixels = draw(vit), images()
    gradient = lambda v: jax.jit(jax.grad(lambda p: jnp.sum(v.apply({"params": p}, pixels)[1] ** 3)))(params)  # noqa: E731
    expected = flatten(gradient(vit))
    for path, x in flatten(gradient(vit.clone(unroll=3, remat="full"))).items():
        np.testing.assert_allclose(x, expected[path], rtol=1e-4, atol=1e-3, err_msg=path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_heads": 5}, "VisionTransformer.width = 12 must be a multiple of num_heads = 5"),
        ({"position_resize": "cubik"}, "position_resize 'cubik'; did you mean 'cubic'"),
        ({"activation": "gelo"}, "activation 'gelo'; did you mean 'gelu'"),
        ({"remat": "ful"}, "remat 'ful'; did you mean 'full'"),
        ({"dtype": "float16"}, "dtype 'float16' overflows"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(fields, message):
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(VisionTransformer(**{**SIZES, **fields}).init, jax.random.key(0), jnp.zeros((1, 6, 6, 3)))
