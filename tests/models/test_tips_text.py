"""TIPS' text tower against numpy: sinusoid positions of each text, norms before the branches, a ReLU MLP."""

import numpy as np
import pytest
from numpy_transformer import Layer, Numpy, assert_matches, layer_norm

from embed.models.tips_text import TipsText, sinusoids

SIZES = {"vocab_size": 40, "width": 12, "num_layers": 2, "num_heads": 3, "mlp_dim": 20}


def by_hand(position, width):
    """Timescales from 1 to 10,000 in geometric steps: sines of all of them, then cosines."""
    half = width // 2
    scales = [10_000 ** (-i / (half - 1)) for i in range(half)]
    return np.array([np.sin(position * s) for s in scales] + [np.cos(position * s) for s in scales])


def test_positions_are_sines_and_cosines():
    found = sinusoids(np.arange(64), 12)
    np.testing.assert_allclose(found, [by_hand(i, 12) for i in range(64)], atol=1e-5)


def test_texts_in_a_row_match_numpy():
    encoder = TipsText(**SIZES)
    norm = layer_norm(1e-6)
    numpy = Numpy(norm, "before", lambda x: np.maximum(x, 0), scale=0.5, layers=[Layer(), Layer()], gated=False)

    def of_text(p, tokens):
        x = p["embedding"]["table"][tokens] * 12**0.5 + [by_hand(i, 12) for i in range(len(tokens))]
        return norm(numpy.stack(x, p["stack"]["layers"]), p["final_norm"])

    assert_matches(encoder, of_text, centre=1.0)


@pytest.mark.parametrize("width", [2, 4])
def test_narrow_towers_have_finite_positions(width):
    assert np.isfinite(sinusoids(np.arange(5), width)).all()
