"""What the Gemma encoder promises: its size, paths and initial values, and who sees whom, against numpy too."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_transformer import Layer, Numpy, assert_matches, gelu_tanh, rms_norm

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


@pytest.mark.slow
def test_initial_values_have_their_scale(initial):
    params = initial.init(jax.random.key(0))
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


@pytest.mark.slow
@pytest.mark.parametrize("radius", [2])
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
    tokens, mask = tiny.texts((11,) * 4)
    assert np.all(
        np.abs(tiny.apply(tiny.params, tokens, mask) - tiny.apply(tiny.params, tokens[:, ::-1], mask)).max(-1) > 1e-3
    )


@pytest.mark.parametrize("causal", [False, True])
def test_texts_in_a_row_match_numpy(causal):
    sizes = {
        "vocab_size": 40,
        "width": 12,
        "num_layers": 3,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 6,
        "mlp_dim": 20,
    }
    bases = {"local_rope_base": 30.0, "global_rope_base": 500.0}
    encoder = Gemma(**sizes, **bases, window=5, global_every=2, causal=causal)
    norm = rms_norm(1.0)
    # A causal window holds the token itself; the other one reaches as far to each side.
    local = Layer(4, 0, 30.0) if causal else Layer(2, 2, 30.0)
    whole = Layer(None, 0 if causal else None, 500.0)
    numpy = Numpy(norm, "both", gelu_tanh, scale=6**-0.5, layers=[local, whole, local])

    def of_text(p, tokens):
        x = p["embedding"]["table"][tokens] * np.sqrt(12)
        return norm(numpy.stack(x, p["stack"]["layers"]), p["final_norm"])

    assert_matches(encoder, of_text, centre=0.0, apart=causal)


def test_only_the_positions_of_global_layers_are_stretched():
    blocks = Gemma(global_rope_scale=8.0).blocks()
    assert (blocks.reach.rope_scale, blocks.local.rope_scale) == (8.0, 1.0)


def test_outputs_are_unit_vectors(tiny):
    found = tiny.apply(tiny.params, *tiny.texts())
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)
