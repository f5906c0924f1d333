"""The whole model against an implementation in numpy and float64, one position, head and layer at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_calls import by_text
from numpy_transformer import Layer, Numpy, gelu_tanh, rms_norm

from embed.models import api

NORM = rms_norm(1.0)


def numpy_of(encoder) -> Numpy:
    def layer(number: int) -> Layer:
        if (number + 1) % encoder.global_every == 0:
            return Layer(base=encoder.global_rope_base)
        return Layer(encoder.window // 2, encoder.window // 2, encoder.local_rope_base)

    layers = [layer(i) for i in range(encoder.num_layers)]
    return Numpy(NORM, "both", gelu_tanh, encoder.head_dim**-0.5, layers)


def encode(encoder, params, tokens):
    """Returns one vector per token of one text."""
    x = params["embedding"]["table"][tokens] * np.sqrt(encoder.width)
    return NORM(numpy_of(encoder).stack(x, params["stack"]["layers"]), params["final_norm"])


def embed(module, params, tokens, mask):
    rows = []
    for text, real in zip(np.asarray(tokens), np.asarray(mask)):
        x = encode(module.encoder, params["encoder"], text[real]).mean(0)
        for i in range(len(module.projection)):
            x = x @ params[f"projection_{i}"]["kernel"]
        rows.append(x / np.linalg.norm(x))
    return np.stack(rows)


def in_float64(params):
    return jax.tree.map(lambda a: np.asarray(a, np.float64), params)


CASES = {
    "radius of one, one key-value head, small rotary bases": {
        "window": 2,
        "num_kv_heads": 1,
        "local_rope_base": 3.0,
        "global_rope_base": 50.0,
    },
    "window wider than the text, as many key-value heads as heads": {"window": 64, "num_kv_heads": 4},
    "odd window, no global layer": {"window": 5, "global_every": 9},
    "all layers global": {"global_every": 1},
}


def test_the_model_of_the_other_tests_matches_numpy(tiny):
    tokens, mask = tiny.texts()
    found = tiny.apply(tiny.params, tokens, mask)
    np.testing.assert_allclose(found, embed(tiny.make(), in_float64(tiny.params), tokens, mask), rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_model_matches_numpy(tiny, case):
    module = tiny.make(**CASES[case])
    model = api.build(module)
    params = tiny.draw(model.init, seed=3)
    tokens, mask = tiny.texts()
    found = tiny.fast(by_text(model))(params, tokens, mask)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, embed(module, in_float64(params), tokens, mask), rtol=0, atol=1e-5)


def test_encoder_matches_numpy_at_every_real_token(tiny, encoded):
    encoder = tiny.make().encoder
    tokens, mask = tiny.texts()
    params = tiny.params["encoder"]
    for row, text, real in zip(encoded, np.asarray(tokens), np.asarray(mask)):
        expected = encode(encoder, in_float64(params), text[real])
        np.testing.assert_allclose(row[real], expected, rtol=0, atol=2e-5)
