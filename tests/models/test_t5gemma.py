"""T5Gemma's encoder against numpy: windows that count one side, and logits that are capped."""

import numpy as np
from numpy_transformer import Layer, Numpy, assert_matches, gelu_tanh, rms_norm

from embed.models.t5gemma import T5GemmaEncoder

SIZES = {
    "vocab_size": 40,
    "width": 12,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 6,
    "mlp_dim": 20,
}


def test_texts_in_a_row_match_numpy():
    encoder = T5GemmaEncoder(**SIZES, window=2, query_scale=0.7, softcap=1.5, rope_base=100.0)
    norm = rms_norm(1.0)
    local, whole = Layer(2, 2, 100.0), Layer(base=100.0)
    numpy = Numpy(norm, "both", gelu_tanh, scale=0.7, layers=[local, whole, local], softcap=1.5)

    def of_text(p, tokens):
        x = p["embedding"]["table"][tokens] * np.sqrt(12)
        return norm(numpy.stack(x, p["stack"]["layers"]), p["final_norm"])

    assert_matches(encoder, of_text, centre=0.0)


def test_the_last_of_every_few_layers_sees_the_whole_text():
    assert T5GemmaEncoder(num_layers=5).blocks().local_layers == (True, False, True, False, True)
    assert T5GemmaEncoder(num_layers=4, global_every=3).blocks().local_layers == (True, True, False, True)
