"""ModernBERT against numpy: its windows, its two rotary bases, and the norm that the first block lacks."""

import pytest
from numpy_transformer import Layer, Numpy, assert_matches, gelu, layer_norm

from embed.models.modernbert import ModernBert

SIZES = {"vocab_size": 40, "width": 12, "num_layers": 4, "num_heads": 3, "mlp_dim": 20}


@pytest.mark.slow
@pytest.mark.parametrize("biases", [False, True])
def test_texts_in_a_row_match_numpy(biases):
    has = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias"), biases)
    bases = {"local_rope_base": 30.0, "global_rope_base": 500.0}
    encoder = ModernBert(**SIZES, window=7, global_every=3, **bases, **has)
    norm = layer_norm(1e-5)
    whole, local = Layer(base=500.0), Layer(3, 3, 30.0)
    layers = [Layer(base=500.0, has_norm=False), local, local, whole]
    numpy = Numpy(norm, "before", gelu, scale=0.5, layers=layers)

    def of_text(p, tokens):
        x = norm(p["embedding"]["table"][tokens], p["embedding_norm"])
        return norm(numpy.stack(x, p["stack"]["layers"]), p["final_norm"])

    assert_matches(encoder, of_text, centre=1.0, apart=biases)


def test_layer_0_and_every_few_after_it_see_the_whole_text():
    assert ModernBert(num_layers=5, global_every=2).blocks().local_layers == (False, True, False, True, False)
    assert ModernBert(num_layers=3, global_every=1).blocks().local_layers == (False, False, False)
    local = ModernBert().blocks().local
    assert (local.left, local.right) == (64, 64)
