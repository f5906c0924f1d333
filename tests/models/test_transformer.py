"""What every stack of blocks promises: padding, unrolling, recomputing, dropout, types, and settings that cannot be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_calls import by_text
from numpy_transformer import rows

from embed.errors import ConfigError
from embed.models import api, transformer
from embed.models.bert import Bert
from embed.models.qwen3 import Qwen3


def abstract(model):
    return jax.eval_shape(model.init, jax.random.key(0))


def test_parameters_are_float32_even_when_computing_in_bfloat16(tiny):
    params = abstract(api.build(tiny.make(dtype="bfloat16")))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_padding_does_not_change_an_embedding(tiny):
    tokens, mask = tiny.texts()
    longer = jnp.full((4, 17), 39).at[:, :11].set(tokens)
    found = tiny.apply(tiny.params, longer, jnp.pad(mask, ((0, 0), (0, 6))))
    np.testing.assert_allclose(found, tiny.apply(tiny.params, tokens, mask), rtol=0, atol=1e-6)


def test_what_stands_in_the_padding_does_not_matter(tiny):
    tokens, mask = tiny.texts()
    other = jnp.where(mask, tokens, 7)
    np.testing.assert_array_equal(tiny.apply(tiny.params, tokens, mask), tiny.apply(tiny.params, other, mask))


def test_rows_do_not_see_each_other(tiny):
    tokens, mask = tiny.texts()
    whole = tiny.apply(tiny.params, tokens, mask)
    for i in range(len(tokens)):
        own = (jnp.arange(len(tokens)) == i)[:, None]
        other = tiny.apply(tiny.params, jnp.where(own, tokens, 7), jnp.where(own, mask, jnp.arange(11) < 2))
        np.testing.assert_array_equal(other[i], whole[i])
        assert np.all(np.any(np.delete(other != whole, i, 0), -1))


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{"unroll": 2, "remat": "dots"}, {"unroll": 3, "remat": "full"}], ids=str)
def test_unroll_and_remat_change_no_value_and_no_gradient(fields, tiny, gradient):
    """With dropout, which is drawn the same in both passes. The unrolled layers need not divide all of them."""
    found, expected = tiny.gradient(**fields), gradient
    # XLA joins other operations when layers are unrolled: float32 is rounded otherwise, by up to 1.3e-6 on a CPU without AVX-512.
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=3e-6)
    for own, other in zip(jax.tree.leaves(found[1]), jax.tree.leaves(expected[1]), strict=True):
        assert np.linalg.norm(own - other) <= 1e-5 * np.linalg.norm(other)
        assert np.abs(other).max() > 1e-6
    assert max(np.abs(g).max() for g in jax.tree.leaves(gradient[1])) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_remat_really_computes_again(tiny, dtype):
    def products(**fields):
        encoder = tiny.make(dtype=dtype, **fields).encoder
        total = lambda p: encoder.apply({"params": p}, *tiny.texts()).sum()  # noqa: E731
        return str(jax.make_jaxpr(jax.grad(total))(tiny.params["encoder"])).count("dot_general")

    assert products(remat="full") > products(remat="dots") > products()


@pytest.mark.parametrize(("unroll", "kept_apart"), [(1, False), (100, True)])
def test_blocks_laid_out_whole_are_kept_from_being_merged(tiny, unroll, kept_apart):
    """In a loop nothing is there to merge; without one XLA would undo remat, and its memory with it."""
    encoder = tiny.make(remat="full", unroll=unroll).encoder
    total = lambda p: encoder.apply({"params": p}, *tiny.texts()).sum()  # noqa: E731
    traced = jax.make_jaxpr(jax.grad(total))(tiny.params["encoder"])
    assert f"prevent_cse={kept_apart}" in str(traced)


@pytest.mark.parametrize(
    ("device", "is_training", "unroll"),
    [("cpu", False, 100), ("cpu", True, 100), ("tpu", True, 100), ("tpu", False, 1)],
)
def test_layers_are_unrolled_where_that_pays(tiny, device, is_training, unroll, monkeypatch):
    """A TPU encodes as fast by a scan, which is compiled many times faster."""
    monkeypatch.setattr(transformer, "platform", lambda: device)
    encoder = tiny.make(unroll=100).encoder
    run = lambda p: encoder.apply({"params": p}, *tiny.texts(), is_training)  # noqa: E731
    scans = [e.params["unroll"] for e in jax.make_jaxpr(run)(tiny.params["encoder"]).eqns if e.primitive.name == "scan"]
    assert scans == [min(unroll, encoder.num_layers)]


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


@pytest.mark.slow
def test_dropout_is_a_function_of_its_key_and_differs_between_rows(tiny):
    tokens, mask = jnp.ones((4, 11), jnp.int32), jnp.ones((4, 11), bool)
    apply = tiny.fast(by_text(api.build(tiny.make(dropout=0.5))))
    first, again, other = (np.asarray(apply(tiny.params, tokens, mask, jax.random.key(k))) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    assert np.abs(first - tiny.apply(tiny.params, tokens, mask)).max() > 1e-3
    assert len({row.tobytes() for row in first}) == 4


def test_without_a_key_there_is_no_dropout(tiny):
    program = lambda model: str(jax.make_jaxpr(by_text(model))(tiny.params, *tiny.texts()))  # noqa: E731
    assert program(api.build(tiny.make(dropout=0.3))) == program(tiny.model)


@pytest.mark.slow
def test_the_gradient_of_packed_rows_is_that_of_texts_alone(tiny):
    model = api.build(tiny.make(projection=()))
    params = model.init(jax.random.key(1))
    tokens, segment_ids, places = rows(40)
    weights = np.random.default_rng(0).normal(size=(len(places), 12)).astype(np.float32)

    def together(p):
        vectors = by_text(model)(p, tokens, segment_ids, max_segments=3)
        return sum(jnp.vdot(weights[i], vectors[r, segment_ids[r, s][0] - 1]) for i, (r, s) in enumerate(places))

    def alone(p):
        texts = [tokens[place] for place in places]
        longest = max(map(len, texts))
        mask = np.arange(longest) < np.array([len(t) for t in texts])[:, None]
        return jnp.sum(weights * by_text(model)(p, np.stack([np.pad(t, (0, longest - len(t))) for t in texts]), mask))

    a, b = jax.jit(jax.grad(together))(params), jax.jit(jax.grad(alone))(params)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_allclose(x, y, atol=2e-5 * max(1.0, float(jnp.max(jnp.abs(y)))))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_heads": 3}, "Gemma.num_heads = 3 must be a multiple of num_kv_heads = 2, and head_dim = 6 even"),
        ({"head_dim": 7}, "Gemma.num_heads = 4 must be a multiple of num_kv_heads = 2, and head_dim = 7 even"),
        ({"num_layers": 0}, "num_layers"),
        ({"dropout": 1.0}, "dropout"),
        ({"remat": "all"}, "remat 'all'; known: .*dots.*full.*none"),
    ],
    ids=str,
)
def test_sizes_and_settings_that_cannot_be_are_refused(fields, message, tiny):
    with pytest.raises(ConfigError, match=message):
        tiny.make(**fields).encoder.check()
    tiny.make().encoder.check()


def test_an_activation_that_is_unknown_is_refused():
    with pytest.raises(ConfigError, match="activation 'gelu_tan'; did you mean 'gelu_tanh'"):
        Bert(activation="gelu_tan").check()


@pytest.mark.parametrize(("given", "run"), [(1, 1), (2, 2), (99, 3)])
def test_no_more_layers_are_unrolled_than_there_are(given, run, tiny):
    assert tiny.make(unroll=given).encoder.running().unroll == run


def test_flops_of_a_stack_by_hand():
    """Two per weight and token; four per number of a head, query and key seen."""
    tokens, width, inner, layers = 5, 12, 20, 2
    bert = Bert(vocab_size=9, width=width, num_layers=layers, num_heads=3, mlp_dim=inner)
    weights = layers * (4 * width * width + 2 * width * inner)
    assert bert.forward_flops(tokens) == tokens * (2 * weights + 4 * width * layers * tokens)
    qwen = Qwen3(vocab_size=9, width=width, num_layers=layers, num_heads=4, num_kv_heads=2, head_dim=6, mlp_dim=inner)
    weights = layers * (width * 6 * (4 + 2 + 2 + 4) + 3 * width * inner)
    # A query of a decoder sees half the keys on average, and itself.
    assert qwen.forward_flops(tokens) == tokens * (2 * weights + 4 * 4 * 6 * layers * (tokens / 2 + 1))
