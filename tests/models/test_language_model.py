"""An embedder as a language model: what its decoder sees, its logits, and the start of a decoder from an encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed.errors import ConfigError
from embed.models import api
from embed.models.bert import Bert
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.language_model import decoder_start
from embed.models.pooling import MeanPooling
from embed.models.t5gemma import T5GemmaDecoder, T5GemmaEncoder
from embed.trees import flatten

SIZES = {
    "vocab_size": 40,
    "width": 12,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 6,
    "mlp_dim": 20,
    "window": 4,
    "global_every": 2,
}
T5_SIZES = {name: size for name, size in SIZES.items() if name != "window"}


def make(**fields) -> Embedder:
    return Embedder(Gemma(**{**SIZES, **fields}), MeanPooling(), (14, 8))


def draw(init):
    """Returns random parameters, none of them zero."""
    random = np.random.default_rng(5)
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(lambda s: jnp.asarray(random.normal(size=s.shape) * 0.3, s.dtype), shapes)


@pytest.fixture(scope="module")
def model():
    return api.build(make().clone(decoder=Gemma(**SIZES, causal=True)))


@pytest.fixture(scope="module")
def params(model):
    return draw(model.init)


def inputs(length=9, decoder_length=6, seed=0):
    random = np.random.default_rng(seed)
    return {
        "tokens": jnp.asarray(random.integers(1, 40, (2, length))),
        "segment_ids": jnp.arange(length) < jnp.array([[length], [length - 3]]),
        "decoder_tokens": jnp.asarray(random.integers(1, 40, (2, decoder_length))),
        "decoder_segment_ids": jnp.ones((2, decoder_length), bool),
    }


@pytest.mark.slow
def test_a_token_of_the_decoder_sees_those_before_it_and_the_whole_text(model, params):
    given = inputs()
    decode = jax.jit(lambda given: model.apply(params, given, method="decode"))
    states = decode(given)
    changed = decode({**given, "decoder_tokens": given["decoder_tokens"].at[:, 3].set(7)})
    assert (np.abs(changed - states).max(-1) > 1e-6).tolist() == [[False] * 3 + [True] * 3] * 2
    changed = decode({**given, "tokens": given["tokens"].at[:, 7].set(7)})  # padding of the second text
    assert (np.abs(changed - states).max(-1) > 1e-6).tolist() == [[True] * 6, [False] * 6]


@pytest.mark.slow
def test_logits_are_the_product_with_the_token_table(model, params):
    states = np.random.default_rng(1).normal(size=(2, 3, 12)).astype(np.float32)
    found = model.apply(params, {"states": states}, method="logits")
    expected = states.astype(np.float64) @ np.asarray(params["decoder"]["embedding"]["table"], np.float64).T
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_logits_of_t5gemma_are_capped():
    decoder = T5GemmaDecoder(**T5_SIZES, window=3, final_softcap=0.5)
    module = make().clone(encoder=T5GemmaEncoder(**T5_SIZES, window=3), decoder=decoder)
    model = api.build(api.from_description(api.describe(module)))
    params = draw(model.init)
    states = np.random.default_rng(1).normal(size=(1, 3, 12)).astype(np.float32)
    bare = states.astype(np.float64) @ np.asarray(params["decoder"]["embedding"]["table"], np.float64).T
    found = model.apply(params, {"states": states}, method="logits")
    np.testing.assert_allclose(found, 0.5 * np.tanh(bare / 0.5), rtol=1e-5, atol=1e-6)
    assert np.abs(bare).max() > 1


@pytest.mark.slow
def test_a_causal_encoder_is_a_language_model_by_itself():
    model = api.build(make(causal=True))
    params, given = draw(model.init), inputs()
    assert model.methods["decode"].inputs == ("tokens", "segment_ids")
    states = model.apply(params, given, method="decode")
    changed = model.apply(params, {**given, "tokens": given["tokens"].at[:, 3].set(7)}, method="decode")
    assert (np.abs(changed - states).max(-1)[0] > 1e-6).tolist() == [False] * 3 + [True] * 6
    logits = model.apply(params, {"states": states}, method="logits")
    np.testing.assert_allclose(logits, states @ params["encoder"]["embedding"]["table"].T, rtol=1e-4, atol=1e-5)


def test_other_encoders_predict_no_tokens():
    assert "decode" not in api.build(make()).methods
    with pytest.raises(ConfigError, match="has no method 'decode'"):
        api.build(make()).apply({}, {}, method="decode")


def test_a_decoder_that_sees_ahead_is_refused():
    with pytest.raises(
        ConfigError, match="Embedder.decoder is a Gemma that sees the tokens it is to predict; make it causal"
    ):
        api.build(make().clone(decoder=Gemma(**SIZES)))
    with pytest.raises(ConfigError, match="a MeanPooling that sees the tokens"):
        api.build(make().clone(decoder=MeanPooling()))


@pytest.mark.slow
def test_embeddings_do_not_use_the_decoder(model, params):
    given = {name: x for name, x in inputs().items() if not name.startswith("decoder")}
    without = {name: x for name, x in params.items() if name != "decoder"}
    plain = api.build(make())
    np.testing.assert_array_equal(model.apply(params, given), plain.apply(without, given))
    assert flatten(jax.eval_shape(plain.init, jax.random.key(0))).keys() == flatten(without).keys()


@pytest.mark.slow
def test_flops_count_what_the_compiler_counts():
    """At a size where products are nearly all that is computed."""
    sizes = {**SIZES, "width": 64, "mlp_dim": 256, "vocab_size": 512, "head_dim": 16, "num_layers": 2, "window": 64}
    module = make(**sizes).clone(projection=(), decoder=Gemma(**sizes, causal=True, unroll=2))
    model = api.build(module.clone(encoder=module.encoder.clone(unroll=2)))
    given = {name: jnp.ones((1, 32 if "decoder" in name else 64), x.dtype) for name, x in inputs().items()}

    def logits(params, given):
        states = model.apply(params, given, method="decode")
        return model.apply(params, {"states": states}, method="logits")

    counted = jax.jit(logits).lower(jax.eval_shape(model.init, jax.random.key(0)), given).cost_analysis()["flops"]
    assert counted == pytest.approx(model.methods["decode"].flops(64, 32), rel=0.1)


def test_a_decoder_starts_as_the_encoder(model):
    expected = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    stored = {path for path in expected if path.startswith("encoder/")}
    sources = decoder_start(expected, stored)
    assert set(sources) == {path for path in expected if path.startswith("decoder/")}
    assert sources["decoder/embedding/table"] == "encoder/embedding/table"
    layers = "stack/layers"
    assert sources[f"decoder/{layers}/cross_attention/query/kernel"] == f"encoder/{layers}/attention/query/kernel"
    assert sources[f"decoder/{layers}/cross_attention_post_norm/scale"] == f"encoder/{layers}/attention_post_norm/scale"
    assert sources[f"decoder/{layers}/mlp/up/kernel"] == f"encoder/{layers}/mlp/up/kernel"


def test_what_a_checkpoint_has_and_what_fits_nothing_is_not_copied(model):
    expected = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    assert decoder_start(expected, set(expected)) == {}
    stored = {path for path in expected if path.startswith("encoder/")}
    changed = dict(expected)
    changed["decoder/stack/layers/mlp/up/kernel"] = jax.ShapeDtypeStruct((3, 12, 21), jnp.float32)
    assert set(decoder_start(changed, stored)) == {p for p in expected if p.startswith("decoder/")} - {
        "decoder/stack/layers/mlp/up/kernel"
    }


def test_bert_is_no_language_model():
    bert = Bert(vocab_size=40, width=12, num_layers=1, num_heads=2, mlp_dim=20, max_positions=16)
    assert "decode" not in api.build(make().clone(encoder=bert)).methods
