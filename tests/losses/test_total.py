"""Several losses as one weighted sum, with every part reported."""

import jax.numpy as jnp
import numpy as np
import pytest

from embed.losses.contrastive import Contrastive
from embed.losses.matryoshka import Matryoshka
from embed.losses.total import Total
from embed.types import Loss, PairEmbeddings


def outputs() -> PairEmbeddings:
    return PairEmbeddings(*(jnp.asarray(x, jnp.float32) for x in np.random.default_rng(0).normal(size=(2, 4, 6))))


PARTS = {"a": Contrastive(0.1), "b": Contrastive(0.5)}


@pytest.mark.parametrize("weights", [{}, {"b": 3.0}, {"a": 0.0, "b": 0.25}])
def test_is_the_weighted_sum(weights):
    o = outputs()
    value, metrics = Total(PARTS, weights)(o)
    each = {name: loss(o) for name, loss in PARTS.items()}
    assert float(value) == pytest.approx(sum(weights.get(n, 1.0) * float(v) for n, (v, _) in each.items()), rel=1e-6)
    for name, (part, own) in each.items():
        assert float(metrics[name]) == float(part)
        assert {k: float(metrics[f"{name}/{k}"]) for k in own} == {k: float(v) for k, v in own.items()}


def test_is_a_loss():
    assert isinstance(Total(PARTS), Loss)


def test_a_weight_may_follow_a_schedule_and_is_reported():
    o = outputs()
    total = Total(PARTS, {"b": lambda step: 0.5 * step})
    each = {name: float(loss(o)[0]) for name, loss in PARTS.items()}
    for step in (0, 3):
        value, metrics = total(o, None, step)
        assert float(value) == pytest.approx(each["a"] + 0.5 * step * each["b"], rel=1e-6)
        assert metrics["b/weight"] == 0.5 * step and "a/weight" not in metrics


class Stepped:
    """A loss that is the step."""

    def init(self):
        return {}

    def __call__(self, pairs, params=None, step=0):
        return jnp.float32(step), {}


def test_the_step_reaches_every_part():
    assert Total({"a": Stepped(), "b": Matryoshka(Stepped(), (6, 2))})(outputs(), None, 2)[0] == 6
