"""XLM-RoBERTa's positions: counted over the tokens that are not the padding's, in every text of a packed row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
