"""What the Gemma encoder promises: its size and paths, who sees whom, padding, scan, remat, dtypes and dropout."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_calls import by_text

from embed.errors import ConfigError
from embed.models import api
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.pooling import MeanPooling
from embed.trees import flatten


def abstract(model):
    return jax.eval_shape(model.init, jax.random.key(0))


def test_embeddinggemma_has_the_published_number_of_parameters():
    params = abstract(api.build(Embedder(Gemma(), MeanPooling(), (3072, 768), (512, 256, 128))))
    sizes = {path: math.prod(x.shape) for path, x in flatten(params).items()}
    assert sum(sizes.values()) == 307_581_696
    assert sizes["encoder/embedding/table"] == 201_326_592
    assert sizes["projection_0/kernel"] + sizes["projection_1/kernel"] == 4_718_592


def test_paths_and_shapes_are_the_checkpoint_format(tiny):
    stack = "encoder/stack/layers"
    assert {path: x.shape for path, x in flatten(abstract(tiny.model)).items()} == {
        "encoder/embedding/table": (40, 12),
        "encoder/final_norm/scale": (12,),
        f"{stack}/attention/key/kernel": (3, 12, 2, 6),
        f"{stack}/attention/key_norm/scale": (3, 6),
        f"{stack}/attention/output/kernel": (3, 4, 6, 12),
        f"{stack}/attention/query/kernel": (3, 12, 4, 6),
        f"{stack}/attention/query_norm/scale": (3, 6),
        f"{stack}/attention/value/kernel": (3, 12, 2, 6),
        f"{stack}/attention_norm/scale": (3, 12),
        f"{stack}/attention_post_norm/scale": (3, 12),
        f"{stack}/mlp/down/kernel": (3, 20, 12),
        f"{stack}/mlp/gate/kernel": (3, 12, 20),
        f"{stack}/mlp/up/kernel": (3, 12, 20),
        f"{stack}/mlp_norm/scale": (3, 12),
        f"{stack}/mlp_post_norm/scale": (3, 12),
        "projection_0/kernel": (12, 14),
        "projection_1/kernel": (14, 8),
    }


def test_parameters_are_float32_even_when_computing_in_bfloat16(tiny):
    params = abstract(api.build(tiny.make(dtype="bfloat16")))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_initial_values_have_their_scale(tiny):
    model = api.build(Embedder(Gemma(512, 64, 2, 4, 128, head_dim=32), MeanPooling(), (96, 64)))
    params = tiny.fast(model.init)(jax.random.key(0))
    flat = {path: np.asarray(x) for path, x in flatten(params).items()}
    layers = "encoder/stack/layers"
    deviations = {
        "encoder/embedding/table": 64**-0.5,
        f"{layers}/attention/query/kernel": 64**-0.5,
        f"{layers}/attention/output/kernel": (4 * 32) ** -0.5,
        f"{layers}/mlp/gate/kernel": 64**-0.5,
        f"{layers}/mlp/down/kernel": 128**-0.5,
        "projection_0/kernel": 64**-0.5,
        "projection_1/kernel": 96**-0.5,
    }
    for path, deviation in deviations.items():
        assert flat[path].std() == pytest.approx(deviation, rel=0.03), path
    assert all(np.all(x == 0) for path, x in flat.items() if path.endswith("scale"))
    assert not np.array_equal(flat[f"{layers}/mlp/gate/kernel"][0], flat[f"{layers}/mlp/gate/kernel"][1])
    assert not np.array_equal(flat[f"{layers}/mlp/gate/kernel"], flat[f"{layers}/mlp/up/kernel"])


def token_outputs(tiny, encoder, tokens):
    mask = jnp.ones(tokens.shape, bool)
    variables = tiny.draw(lambda rng: encoder.init(rng, tokens, mask))
    return tiny.fast(lambda t: encoder.apply(variables, t, mask))


def test_attention_is_bidirectional(tiny):
    tokens, _ = tiny.texts()
    found = token_outputs(tiny, tiny.make().encoder, tokens)
    before, after = found(tokens), found(tokens.at[:, -1].set((tokens[:, -1] + 1) % 40))
    assert np.all(np.abs(before[:, 0] - after[:, 0]).max(-1) > 1e-4)


@pytest.mark.parametrize("radius", [1, 2, 4])
def test_a_local_layer_sees_exactly_half_a_window_to_each_side(tiny, radius):
    encoder = Gemma(**{**tiny.sizes, "num_layers": 1, "window": 2 * radius})
    tokens, _ = tiny.texts((11,))
    found = token_outputs(tiny, encoder, tokens)
    before = np.asarray(found(tokens))[0]
    for changed in (0, 5, 10):
        after = np.asarray(found(tokens.at[0, changed].set((tokens[0, changed] + 1) % 40)))[0]
        seen = [t for t in range(11) if not np.array_equal(before[t], after[t])]
        assert seen == [t for t in range(11) if abs(t - changed) <= radius]


def test_position_matters(tiny):
    tokens = jnp.asarray([[3, 4, 5, 6], [6, 5, 4, 3]])
    first, second = tiny.apply(tiny.params, tokens, jnp.ones((2, 4), bool))
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize("padded", [3, 4, 8, 17, 32])
def test_padding_does_not_change_an_embedding(tiny, padded):
    tokens, _ = tiny.texts((3, 3), 3)
    alone = tiny.apply(tiny.params, tokens, jnp.ones((2, 3), bool))
    longer = jnp.full((2, padded), 39).at[:, :3].set(tokens)
    found = tiny.apply(tiny.params, longer, jnp.broadcast_to(jnp.arange(padded) < 3, (2, padded)))
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-6)


def test_what_stands_in_the_padding_does_not_matter(tiny):
    tokens, mask = tiny.texts()
    other = jnp.where(mask, tokens, 7)
    np.testing.assert_array_equal(tiny.apply(tiny.params, tokens, mask), tiny.apply(tiny.params, other, mask))


def test_rows_do_not_see_each_other(tiny):
    tokens, mask = tiny.texts()
    whole = tiny.apply(tiny.params, tokens, mask)
    for i in range(len(tokens)):
        np.testing.assert_allclose(
            tiny.apply(tiny.params, tokens[i : i + 1], mask[i : i + 1])[0], whole[i], rtol=0, atol=1e-6
        )


def value_and_gradient(tiny, rng=None, **fields):
    model = api.build(tiny.make(**fields))
    tokens, mask = tiny.texts()
    direction = jnp.asarray(np.random.default_rng(0).normal(size=(len(tokens), 8)), jnp.float32)

    def total(params):
        found = by_text(model)(params, tokens, mask, rng)
        return jnp.sum(found * direction), found

    (_, found), gradient = tiny.fast(jax.value_and_grad(total, has_aux=True))(tiny.params)
    return jax.device_get((found, gradient))


@pytest.fixture(scope="module")
def plain(tiny):
    return value_and_gradient(tiny)


@pytest.mark.parametrize("fields", [{"unroll": 3}, {"remat": "full"}, {"remat": "dots"}], ids=str)
def test_unroll_and_remat_change_no_value_and_no_gradient(tiny, plain, fields):
    value, gradient = value_and_gradient(tiny, **fields)
    np.testing.assert_allclose(value, plain[0], rtol=0, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient, plain[1])
    assert max(np.abs(g).max() for g in jax.tree.leaves(gradient)) > 0.1


def test_unroll_need_not_divide_the_layers(tiny):
    found = tiny.fast(by_text(api.build(tiny.make(unroll=2))))(tiny.params, *tiny.texts())
    np.testing.assert_allclose(found, tiny.apply(tiny.params, *tiny.texts()), rtol=0, atol=1e-6)


def test_remat_draws_the_same_dropout_in_both_passes(tiny):
    rng = jax.random.key(4)
    value, gradient = value_and_gradient(tiny, rng, dropout=0.3)
    again, recomputed = value_and_gradient(tiny, rng, dropout=0.3, remat="full")
    np.testing.assert_allclose(again, value, rtol=0, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), recomputed, gradient)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_remat_really_computes_again(tiny, dtype):
    def products(**fields):
        model = api.build(tiny.make(dtype=dtype, **fields))
        tokens, mask = tiny.texts()
        return str(jax.make_jaxpr(jax.grad(lambda p: by_text(model)(p, tokens, mask).sum()))(tiny.params)).count(
            "dot_general"
        )

    assert products(remat="full") > products(remat="dots") > products()


@pytest.mark.parametrize(("unroll", "kept_apart"), [(1, False), (100, True)])
def test_blocks_laid_out_whole_are_kept_from_being_merged(tiny, unroll, kept_apart):
    """In a loop nothing is there to merge; without one XLA would undo remat, and its memory with it."""
    model = api.build(tiny.make(remat="full", unroll=unroll))
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = jnp.ones((1, 4), jnp.int32)
    traced = jax.make_jaxpr(jax.grad(lambda p: by_text(model)(p, tokens, tokens > 0).sum()))(params)
    assert f"prevent_cse={kept_apart}" in str(traced)


def test_unknown_remat_is_refused(tiny):
    with pytest.raises(ConfigError, match="remat 'ful'; did you mean 'full'"):
        api.build(tiny.make(remat="ful"))


def test_bfloat16_is_close_to_float32(tiny):
    tokens, mask = tiny.texts()
    exact = tiny.apply(tiny.params, tokens, mask)
    found = tiny.fast(by_text(api.build(tiny.make(dtype="bfloat16"))))(tiny.params, tokens, mask)
    assert found.dtype == jnp.float32
    assert not np.array_equal(found, exact)
    assert np.all(np.sum(np.asarray(found) * np.asarray(exact), -1) > 0.999)


def test_float16_is_refused_with_the_reason(tiny):
    with pytest.raises(ConfigError, match="float16.*overflow.*bfloat16"):
        api.build(tiny.make(dtype="float16"))


def test_unknown_dtype_is_refused(tiny):
    with pytest.raises(ConfigError, match="dtype 'int8'; known: float32, bfloat16"):
        api.build(tiny.make(dtype="int8"))


def test_dropout_is_a_function_of_its_key(tiny):
    model = api.build(tiny.make(dropout=0.3))
    tokens, mask = tiny.texts()
    apply = tiny.fast(by_text(model))
    first, again, other = (apply(tiny.params, tokens, mask, jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    assert np.abs(first - tiny.apply(tiny.params, tokens, mask)).max() > 1e-3


def test_without_a_key_there_is_no_dropout(tiny):
    tokens, mask = tiny.texts()
    found = tiny.fast(by_text(api.build(tiny.make(dropout=0.3))))(tiny.params, tokens, mask)
    np.testing.assert_array_equal(found, tiny.apply(tiny.params, tokens, mask))


def test_dropout_differs_between_layers_and_rows(tiny):
    model = api.build(tiny.make(dropout=0.5))
    tokens = jnp.ones((6, 4), jnp.int32)
    found = np.asarray(tiny.fast(by_text(model))(tiny.params, tokens, jnp.ones((6, 4), bool), jax.random.key(0)))
    assert len({row.tobytes() for row in found}) == 6


def test_a_text_without_tokens_is_finite_forward_and_backward(tiny):
    tokens = jnp.ones((2, 5), jnp.int32)
    mask = jnp.asarray([[True] * 5, [False] * 5])

    def total(params):
        return by_text(tiny.model)(params, tokens, mask)[:, 0].sum()

    value, gradient = tiny.fast(jax.value_and_grad(total))(tiny.params)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_outputs_are_unit_vectors(tiny):
    found = tiny.apply(tiny.params, *tiny.texts())
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)
