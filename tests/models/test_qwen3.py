"""Qwen3 against numpy: a decoder that looks back alone, or is opened to both sides."""

import pytest
from numpy_transformer import Layer, Numpy, assert_matches, rms_norm, silu

from embed.models.qwen3 import Qwen3

SIZES = {
    "vocab_size": 40,
    "width": 12,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 6,
    "mlp_dim": 20,
}


@pytest.mark.slow
@pytest.mark.parametrize(("causal", "bias"), [(True, False), (False, True)])
def test_texts_in_a_row_match_numpy(causal, bias):
    encoder = Qwen3(**SIZES, causal=causal, rope_base=100.0, attention_bias=bias)
    norm = rms_norm(0.0)
    layers = [Layer(right=0 if causal else None, base=100.0)] * 2
    numpy = Numpy(norm, "before", silu, scale=6**-0.5, layers=layers)

    def of_text(p, tokens):
        return norm(numpy.stack(p["embedding"]["table"][tokens], p["stack"]["layers"]), p["final_norm"])

    assert_matches(encoder, of_text, centre=1.0, apart=bias)
