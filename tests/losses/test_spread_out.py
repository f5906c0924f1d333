"""The spread-out regulariser against its golden value and loops in float64, with equal items, in one piece and in several."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed.errors import ConfigError
from embed.losses import contrastive
from embed.losses.matryoshka import Matryoshka
from embed.losses.spread_out import SpreadOut
from embed.types import Loss, PairEmbeddings

QUERY = [[1, 0, 0, 0], [0, 1, 0, 0], [0.6, 0.8, 0, 0]]
TARGET = [[0.8, 0.6, 0, 0], [0, 0.6, 0.8, 0], [0.6, 0, 0.8, 0]]


def batch(seed=0, size=12, dim=5, equal=False) -> PairEmbeddings:
    random = np.random.default_rng(seed)
    x = random.normal(size=(2, size, dim))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    numbers = random.integers(0, size // 2, (2, size)) if equal else np.arange(2 * size).reshape(2, size)
    ids = np.stack([numbers, np.ones_like(numbers)], -1).astype(np.uint32)
    return PairEmbeddings(x[0], x[1], query_id=ids[0], target_id=ids[1])


def moments(x, ids) -> tuple[float, float]:
    """Returns the means of the cosines of different items and of their squares, by a loop."""
    cosines = [
        float(x[i] @ x[j])
        for i, j in itertools.permutations(range(len(x)), 2)
        if ids is None or tuple(ids[i]) != tuple(ids[j])
    ]
    return (float(np.mean(cosines)), float(np.mean(np.square(cosines)))) if cosines else (0.0, 0.0)


def test_the_golden_value():
    """Worked out by hand for the vectors of the contrastive loss's golden values."""
    with jax.enable_x64(True):
        value, metrics = SpreadOut()(PairEmbeddings(np.array(QUERY), np.array(TARGET)))
    # Cosines of the queries: 0, 0.6, 0.8; of the targets: 0.36, 0.48, 0.64.
    np.testing.assert_allclose(metrics["query"], (0.36 + 0.64) / 3, rtol=1e-12)
    np.testing.assert_allclose(metrics["target"], (0.36**2 + 0.48**2 + 0.64**2) / 3, rtol=1e-12)
    np.testing.assert_allclose(value, 0.589866666666667, rtol=1e-12)


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("chunks", [1, 4])
@pytest.mark.parametrize(
    "loss", [SpreadOut(), SpreadOut(("target",), False), SpreadOut(mean_weight=0.5, hinge=True)], ids=str
)
def test_the_loss_is_that_of_its_equation(loss, chunks, equal, monkeypatch):
    monkeypatch.setattr(contrastive, "MAX_LOGITS", 144 // chunks)
    pairs, expected = batch(equal=equal), 0.0
    for tower in loss.towers:
        ids = getattr(pairs, f"{tower}_id") if loss.mask_duplicates else None
        mean, moment = moments(getattr(pairs, tower), ids)
        expected += (max(moment - 1 / 5, 0.0) if loss.hinge else moment) + loss.mean_weight * mean**2
    with jax.enable_x64(True):
        np.testing.assert_allclose(loss(pairs)[0], expected, rtol=1e-12)


@pytest.mark.slow
def test_the_gradient_is_that_of_finite_differences_and_of_one_piece(monkeypatch):
    pairs, loss = batch(equal=True), SpreadOut()

    def value(x):
        return loss(PairEmbeddings(x, pairs.target, query_id=pairs.query_id, target_id=pairs.target_id))[0]

    with jax.enable_x64(True):
        x = jnp.asarray(pairs.query)
        gradient = np.asarray(jax.grad(value)(x))
        step = np.zeros(x.shape)
        step[3, 1] = 1e-6
        difference = (value(x + step) - value(x - step)) / 2e-6
        np.testing.assert_allclose(gradient[3, 1], difference, rtol=1e-6)
        monkeypatch.setattr(contrastive, "MAX_LOGITS", 36)
        np.testing.assert_allclose(jax.grad(value)(x), gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.slow
def test_uniform_vectors_have_one_over_their_size_and_equal_items_nothing():
    x = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)
    _, metrics = SpreadOut()(PairEmbeddings(x, x))
    assert float(metrics["query"]) == pytest.approx(1 / 16, rel=0.02)
    ids = np.ones((4, 2), np.uint32)
    value, _ = SpreadOut()(PairEmbeddings(x[:4], x[:4], query_id=ids, target_id=ids))
    assert float(value) == 0.0
    value, _ = SpreadOut()(PairEmbeddings(x[:1], x[:1]))
    assert float(value) == 0.0  # a batch of one


def test_prefixes_are_spread_too():
    pairs = batch(dim=8)
    value, metrics = Matryoshka(SpreadOut(), (8, 4))(pairs)
    expected = 0.0
    for dim in (8, 4):
        for x in (pairs.query, pairs.target):
            prefix = x[:, :dim] / np.linalg.norm(x[:, :dim], axis=-1, keepdims=True)
            expected += moments(prefix, None)[1]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert isinstance(SpreadOut(), Loss) and {"loss@8", "loss@4"} <= set(metrics)


@pytest.mark.parametrize("towers", [(), ("query", "query")])
def test_towers_are_named_once(towers):
    with pytest.raises(ConfigError, match="name 'query', 'target' or both"):
        SpreadOut(towers)
