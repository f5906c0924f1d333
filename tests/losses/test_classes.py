"""Metric learning from classes: both kinds by loops in float64, items alone with their class, and proxies of any length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed.losses.classes import ByClass

CLASSES = np.array([0, 2, 0, 1, 2, 2, 3])


def drawn(seed, shape):
    x = np.random.default_rng(seed).normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_proxies_are_a_cross_entropy_of_scaled_cosines():
    loss, x, proxies = ByClass(5, 4, scale=16.0), drawn(0, (7, 4)), drawn(1, (5, 4))
    params = {"proxies": jnp.float32(proxies * np.array([[1], [2], [0.5], [3], [9]]))}
    value, metrics = loss(params, jnp.float32(x), jnp.asarray(CLASSES))
    logits = 16 * x @ proxies.T
    rows = [np.log(np.exp(row).sum()) - row[c] for row, c in zip(logits, CLASSES)]
    assert float(value) == pytest.approx(np.mean(rows), rel=1e-5)
    assert float(metrics["accuracy"]) == pytest.approx(np.mean(logits.argmax(-1) == CLASSES))
    first = loss.init(jax.random.key(0))
    assert first["proxies"].shape == (5, 4) and loss.axes() == {"proxies": ("vocab", "embedding")}


def test_pairs_are_those_of_the_class_against_all_others():
    loss, x = ByClass(5, 4, "pairs", scale=10.0), drawn(0, (7, 4))
    value, metrics = loss({}, jnp.float32(x), jnp.asarray(CLASSES))
    rows, right = [], []
    for i, c in enumerate(CLASSES):
        others = [j for j in range(7) if j != i]
        same = [j for j in others if CLASSES[j] == c]
        if same:
            total = np.log(sum(np.exp(10 * x[i] @ x[j]) for j in others))
            rows.append(np.mean([total - 10 * x[i] @ x[j] for j in same]))
            right.append(max(others, key=lambda j, i=i: x[i] @ x[j]) in same)
    assert float(value) == pytest.approx(np.mean(rows), rel=1e-5)
    assert float(metrics["accuracy"]) == pytest.approx(np.mean(right))
    assert loss.init(jax.random.key(0)) == {} == loss.axes()


@pytest.mark.slow
def test_a_batch_of_items_that_are_all_alone_has_no_loss_and_no_gradient():
    loss, x = ByClass(9, 4, "pairs"), jnp.float32(drawn(0, (4, 4)))
    value, gradient = jax.value_and_grad(lambda x: loss({}, x, jnp.arange(4))[0])(x)
    assert float(value) == 0 and not np.any(gradient)


@pytest.mark.slow
def test_a_batch_of_one_is_finite():
    x = jnp.float32(drawn(0, (1, 4)))
    for kind in ("proxies", "pairs"):
        loss = ByClass(3, 4, kind)
        gradient = jax.grad(lambda x, loss=loss: loss(loss.init(jax.random.key(0)), x, jnp.zeros(1, int))[0])(x)
        assert np.isfinite(gradient).all()
