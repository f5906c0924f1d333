"""The moving average of what an objective learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_batches import bag_of_words, batch, fast

from embed.errors import ConfigError
from embed.losses.contrastive import Contrastive
from embed.models.lora import Lora
from embed.objectives.adapters import Adapters
from embed.objectives.moving_average import MovingAverage, moving_average
from embed.objectives.pairs import Pairs
from embed.training.optimizers import adamw
from embed.training.state import create
from embed.training.step import make_step
from embed.trees import flatten


@pytest.mark.parametrize(("step", "rate"), [(0, 0.1), (1, 2 / 11), (8, 0.5), (80, 0.9), (1000, 0.9)])
def test_it_forgets_faster_at_first(step, rate):
    average, params = {"x": jnp.asarray([1.0, -2.0])}, {"x": jnp.asarray([3.0, 5.0])}
    found = moving_average(average, params, 0.9, jnp.asarray(step, jnp.int32))["x"]
    np.testing.assert_allclose(found, rate * np.array([1.0, -2.0]) + (1 - rate) * np.array([3.0, 5.0]), rtol=1e-6)
    assert found.dtype == jnp.float32


@pytest.mark.slow
def test_the_average_is_exported_and_averages_learned_temperatures_and_factors():
    pairs = Pairs(Contrastive(0.2, learn_temperature=True), bag_of_words())
    objective = MovingAverage(Adapters(pairs, Lora("kernel", rank=2)), 0.5)
    optimizer = adamw(0.1)
    state = create(objective, optimizer, seed=1)
    step = fast(make_step(objective, optimizer, seed=0))
    for seed in range(3):
        state, _ = step(state, batch(seed))
    variables = state.variables
    assert variables.moving["ema"].keys() == {"model", "loss"}
    assert float(variables.moving["ema"]["loss"]["log_temperature"]) != float(
        variables.params["loss"]["log_temperature"]
    )
    factors = variables.moving["ema"]["model"]["kernel"]
    base = variables.frozen["base"]
    expected = np.asarray(base["kernel"]) + 32.0 / 2 * np.asarray(factors["a"]) @ np.asarray(factors["b"])
    exported = objective.export(variables)
    np.testing.assert_allclose(exported["kernel"], expected, rtol=1e-5)
    np.testing.assert_array_equal(exported["table"], base["table"])


def test_the_first_average_is_a_copy():
    objective = MovingAverage(Pairs(Contrastive(), bag_of_words()), 0.9)
    first = objective.init(jax.random.key(0))
    for path, x in flatten(first.params).items():
        y = flatten(first.moving["ema"])[path]
        assert x is not y and np.array_equal(x, y)


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0, float("nan")])
def test_a_decay_outside_of_its_range_is_refused(decay):
    with pytest.raises(ConfigError, match="MovingAverage.decay"):
        MovingAverage(Pairs(Contrastive(), bag_of_words()), decay)
