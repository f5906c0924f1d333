"""BERT against numpy, and XLM-RoBERTa's positions: counted over the tokens that are not the padding's, in every text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_transformer import Layer, Numpy, assert_matches, gelu, layer_norm

from embed.errors import DataError
from embed.models.attention import segment_positions
from embed.models.bert import Bert


def by_loop(tokens, segment_ids, offset: int) -> np.ndarray:
    """transformers' create_position_ids_from_input_ids, for every text of a row alone."""
    out = np.full(tokens.shape, -1)
    for row in range(tokens.shape[0]):
        for segment in set(segment_ids[row]) - {0}:
            count = 0
            for i in np.flatnonzero(segment_ids[row] == segment):
                is_padding = tokens[row, i] == offset - 1
                count += not is_padding
                out[row, i] = offset - 1 + (0 if is_padding else count)
    return out


@pytest.mark.parametrize("offset", [1, 2, 5])
def test_positions_equal_those_of_transformers(offset):
    random = np.random.default_rng(offset)
    tokens = random.integers(0, 7, (6, 40)).astype(np.int32)
    segment_ids = np.repeat([[1] * 13 + [2] * 1 + [3] * 20 + [0] * 6], 6, axis=0).astype(np.int32)
    positions = segment_positions(jnp.asarray(segment_ids))
    found = Bert(max_positions=64, position_offset=offset)._position_ids(jnp.asarray(tokens), positions)
    expected = by_loop(tokens, segment_ids, offset)
    assert np.array_equal(np.asarray(found)[expected >= 0], expected[expected >= 0])
    alone = Bert(position_offset=offset)._position_ids(jnp.asarray(tokens), jnp.arange(40))
    assert np.array_equal(np.asarray(alone), by_loop(tokens, np.ones_like(tokens), offset))


def test_bert_counts_every_token():
    tokens = jnp.zeros((2, 5), jnp.int32)
    assert np.asarray(jax.jit(Bert()._position_ids)(tokens, jnp.arange(5))).tolist() == [[0, 1, 2, 3, 4]]


SIZES = {"vocab_size": 40, "width": 12, "num_layers": 2, "num_heads": 3, "mlp_dim": 20}


@pytest.mark.parametrize("offset", [0, 2])
def test_texts_in_a_row_match_numpy(offset):
    # No text is longer than the positions, though the rows are.
    encoder = Bert(**SIZES, max_positions=14 + offset, position_offset=offset, norm_eps=1e-5)
    norm = layer_norm(1e-5)
    numpy = Numpy(norm, "after", gelu, scale=0.5, layers=[Layer(), Layer()], gated=False)

    def of_text(p, tokens):
        positions = (
            by_loop(tokens[None], np.ones((1, len(tokens)), int), offset)[0] if offset else np.arange(len(tokens))
        )
        x = (
            p["embedding"]["table"][tokens]
            + p["position_embedding"]["table"][positions]
            + p["type_embedding"]["table"][0]
        )
        return numpy.stack(norm(x, p["embedding_norm"]), p["stack"]["layers"])

    assert_matches(encoder, of_text, centre=1.0, apart=offset > 0)


def test_a_text_longer_than_the_positions_is_refused():
    encoder = Bert(**SIZES, max_positions=10, position_offset=2)
    tokens = jnp.zeros((1, 9), jnp.int32)
    run = lambda length: jax.eval_shape(encoder.init, jax.random.key(0), tokens[:, :length], tokens[:, :length] == 0)  # noqa: E731
    with pytest.raises(DataError, match="^texts of 9 tokens, but the model has positions for 8; lower the length"):
        run(9)
    run(8)
