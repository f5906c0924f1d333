"""Cross-entropy of the next token against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed.losses import language_model
from embed.losses.language_model import token_sums

B, L, D, V = 3, 7, 5, 11


def arrays(seed=0):
    random = np.random.default_rng(seed)
    states, table = random.normal(size=(B, L, D)), random.normal(size=(V, D))
    return states, table, random.integers(0, V, (B, L)), random.random((B, L)) < 0.7


def by_loops(states, table, labels, mask, z_loss):
    """Returns the sums, token by token."""
    sums = {"loss": 0.0, "tokens": 0, "correct": 0, "z_loss": 0.0}
    for b, i in zip(*np.nonzero(mask)):
        logits = table @ states[b, i]
        log_sum = np.log(np.sum(np.exp(logits)))
        sums["z_loss"] += z_loss * log_sum**2
        sums["loss"] += log_sum - logits[labels[b, i]] + z_loss * log_sum**2
        sums["correct"] += int(np.argmax(logits) == labels[b, i])
        sums["tokens"] += 1
    return sums


@pytest.mark.parametrize(
    "chunk, z_loss",
    [
        (3, 0.1),
        *(
            pytest.param(*both, marks=pytest.mark.slow)
            for both in ((1, 0.0), (1, 0.1), (3, 0.0), (100, 0.0), (100, 0.1))
        ),
    ],
)
def test_sums_and_gradients_in_chunks_of_any_size(z_loss, chunk, monkeypatch):
    monkeypatch.setattr(language_model, "_MAX_LOGITS", chunk * B * V)
    monkeypatch.setattr(language_model, "_MIN_TOKENS", 1)
    with jax.enable_x64(True):
        states, table, labels, mask = arrays()

        def sums(states, table):
            return token_sums(lambda table, x: jnp.einsum("BLD,VD->BLV", x, table), table, states, labels, mask, z_loss)

        expected = by_loops(states, table, labels, mask, z_loss)
        found = sums(jnp.asarray(states), jnp.asarray(table))
        assert set(found) == set(expected) - ({"z_loss"} if not z_loss else set())
        for name, value in found.items():
            assert float(value) == pytest.approx(expected[name], rel=1e-5)
        by_table = jax.grad(lambda t: sums(jnp.asarray(states), t)["loss"])(jnp.asarray(table))
        step = np.zeros_like(table)
        step[4, 2] = 1e-5
        slope = [by_loops(states, table + s, labels, mask, z_loss)["loss"] for s in (step, -step)]
        assert float(by_table[4, 2]) == pytest.approx((slope[0] - slope[1]) / 2e-5, rel=1e-4)
