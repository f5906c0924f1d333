"""Every family against transformers: random weights, padding, and texts longer than the sliding window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from parity_foreign import CONFIGS, VOCAB, make

from embed.interop import convert
from embed.interop import source as sources

LENGTHS = (40, 23, 9, 5, 1)


def batch():
    tokens = np.random.default_rng(3).integers(4, VOCAB, (len(LENGTHS), max(LENGTHS))).astype(np.int32)
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    return np.where(mask, tokens, 0), mask


@pytest.mark.parametrize("name", CONFIGS)
def test_token_vectors_equal_those_of_transformers(name, tmp_path):
    twin = make(name, tmp_path / "theirs")
    source = sources.read(tmp_path / "theirs")
    params = convert.load_params(source)
    tokens, mask = batch()
    encoder = source.module.encoder
    ours = np.asarray(jax.jit(encoder.apply)({"params": params["encoder"]}, jnp.asarray(tokens), jnp.asarray(mask)))
    with torch.no_grad():
        theirs = twin(input_ids=torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long())
    theirs = theirs.last_hidden_state.numpy()
    assert np.std(theirs[mask]) > 0.1
    assert np.max(np.abs(ours - theirs)[mask]) <= 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_texts_one_after_the_other_in_a_row_equal_texts_alone(name, tmp_path):
    twin = make(name, tmp_path / "theirs")
    source = sources.read(tmp_path / "theirs")
    params = convert.load_params(source)
    tokens, mask = batch()
    # More padding behind them than the smallest model has positions.
    row = np.concatenate([tokens[mask], np.zeros(90, np.int32)])[None]
    segments = np.concatenate([np.repeat(np.arange(1, len(LENGTHS) + 1), LENGTHS), np.zeros(90, int)])[None]
    ours = jax.jit(source.module.encoder.apply)(
        {"params": params["encoder"]}, jnp.asarray(row), jnp.asarray(segments, jnp.int32)
    )
    with torch.no_grad():
        theirs = twin(input_ids=torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long())
    found = np.asarray(ours)[0, : sum(LENGTHS)]
    assert np.all(np.isfinite(found))
    assert np.max(np.abs(found - theirs.last_hidden_state.numpy()[mask])) <= 1e-5
