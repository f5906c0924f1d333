"""The loss of both directions: CLIP's equation, shared temperatures, exchanged ids, and what has no other direction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed.errors import ConfigError
from embed.losses.contrastive import Contrastive
from embed.losses.distillation import MarginMSE
from embed.losses.symmetric import Symmetric
from embed.types import PairEmbeddings


def unit(shape, seed):
    x = np.random.default_rng(seed).normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


IMAGES, CAPTIONS = unit((6, 5), 0), unit((6, 5), 1)


def test_it_is_the_mean_of_rows_and_columns():
    logits = IMAGES @ CAPTIONS.T / 0.07
    rows = np.log(np.exp(logits).sum(1)) - np.diag(logits)
    columns = np.log(np.exp(logits).sum(0)) - np.diag(logits)
    value, metrics = Symmetric(Contrastive(0.07))(PairEmbeddings(jnp.asarray(IMAGES), jnp.asarray(CAPTIONS)))
    assert float(value) == pytest.approx((rows.mean() + columns.mean()) / 2, rel=1e-5)
    assert float(metrics["accuracy"]) == pytest.approx(np.mean(logits.argmax(1) == np.arange(6)))
    assert float(metrics["accuracy_back"]) == pytest.approx(np.mean(logits.argmax(0) == np.arange(6)))


@pytest.mark.slow
def test_the_temperature_is_learned_from_both_directions():
    loss = Symmetric(Contrastive(0.07, learn_temperature=True))
    pairs = PairEmbeddings(jnp.asarray(IMAGES), jnp.asarray(CAPTIONS))
    value = lambda t: loss(pairs, {"log_temperature": t})[0]  # noqa: E731
    start = loss.init()["log_temperature"]
    slope = (value(start + 1e-2) - value(start - 1e-2)) / 2e-2
    assert float(jax.grad(value)(start)) == pytest.approx(float(slope), rel=1e-2)


def test_ids_are_exchanged_with_their_sides():
    """Two images share a caption: neither is a negative of the other in either direction."""
    ids = np.array([[0, 1], [0, 2], [0, 3], [0, 4], [0, 5], [0, 6]], np.uint32)
    shared = ids.copy()
    shared[1] = shared[0]
    pairs = {"query": jnp.asarray(IMAGES), "target": jnp.asarray(CAPTIONS)}
    masked = Symmetric(Contrastive(0.07))(PairEmbeddings(**pairs, query_id=ids, target_id=shared))[0]
    logits = IMAGES @ CAPTIONS.T / 0.07
    kept = np.ones((6, 6), bool)
    kept[0, 1] = kept[1, 0] = False
    expected = [np.log((np.exp(logits) * kept).sum(axis)) - np.diag(logits) for axis in (0, 1)]
    assert float(masked) == pytest.approx(np.mean(expected), rel=1e-5)


def test_what_has_one_direction_is_refused():
    with pytest.raises(ConfigError, match="Symmetric.loss needs scores, which one side of a pair has"):
        Symmetric(MarginMSE())
    pairs = PairEmbeddings(jnp.asarray(IMAGES), jnp.asarray(CAPTIONS), jnp.zeros((6, 2, 5)))
    with pytest.raises(ConfigError, match="hard negatives, which belong to one side; set Recipe.num_negatives = 0"):
        Symmetric(Contrastive(0.07))(pairs)
