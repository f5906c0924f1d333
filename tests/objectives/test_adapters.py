"""Low-rank adapters around an objective: the base is frozen, the factors and the loss's own parameters learn."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from training_batches import bag_of_words, batch, fast, only

from embed import sharding
from embed.losses.contrastive import Contrastive
from embed.models.lora import Lora
from embed.objectives.adapters import Adapters
from embed.objectives.pairs import Pairs
from embed.training.optimizers import adamw
from embed.training.state import create, layout
from embed.training.step import loss_and_gradient, make_step
from embed.trees import flatten
from embed.types import Variables


@pytest.fixture(scope="module")
def adapters():
    return Adapters(Pairs(Contrastive(0.2, learn_temperature=True), bag_of_words()), Lora("kernel", rank=2))


def test_only_factors_and_temperature_are_parameters(adapters):
    variables = adapters.init(jax.random.key(0))
    assert set(flatten(variables.params)) == {"model/kernel/a", "model/kernel/b", "loss/log_temperature"}
    assert set(flatten(variables.frozen)) == {"base/kernel", "base/table"}
    assert jax.tree.structure(variables) == jax.tree.structure(
        jax.tree.map(lambda axes: 0, adapters.axes(), is_leaf=lambda x: isinstance(x, tuple))
    )


def test_a_start_becomes_the_base(adapters):
    start = bag_of_words().init(jax.random.key(9))
    variables = adapters.init(jax.random.key(0), start)
    for path, x in flatten(start).items():
        np.testing.assert_array_equal(flatten(variables.frozen["base"])[path], x)
        np.testing.assert_array_equal(flatten(adapters.export(variables))[path], x)


@pytest.mark.slow
def test_the_gradient_is_that_of_the_merged_model(adapters):
    variables = jax.tree.map(lambda x: x + 0.1, adapters.init(jax.random.key(0)))
    plain = adapters.objective
    key, b = jax.random.key(0), batch()
    found = fast(lambda v, b: loss_and_gradient(adapters, v, b, key, 0))(variables, b)

    def by_hand(factors):
        merged = {"model": adapters.lora.merge(variables.frozen["base"], factors), "loss": variables.params["loss"]}
        outputs = plain.forward(Variables(merged, {}, {}), only(b), key, 0)
        return plain.loss(merged, outputs, only(b), 0)[0]

    value, gradient = fast(jax.value_and_grad(by_hand))(variables.params["model"])
    assert float(found[0]) == pytest.approx(float(value), rel=1e-6)
    for path, x in flatten(gradient).items():
        np.testing.assert_allclose(flatten(found[2]["model"])[path], x, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_a_step_leaves_the_base_and_the_base_has_no_moments(adapters):
    optimizer = adamw(1e-2)
    state = create(adapters, optimizer, seed=1)
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim or x.dtype == np.float32]
    assert len(moments) == 2 * len(jax.tree.leaves(state.variables.params))
    after, metrics = fast(make_step(adapters, optimizer, seed=0))(state, batch())
    for path, x in flatten(state.variables.frozen).items():
        np.testing.assert_array_equal(flatten(after.variables.frozen)[path], x)
    params = flatten(state.variables.params)
    changed = {path for path, x in flatten(after.variables.params).items() if np.any(params[path] != x)}
    assert changed == {"model/kernel/b", "loss/log_temperature"}  # a has no gradient while b is zero
    assert float(metrics["temperature"]) == pytest.approx(0.2)


def test_the_base_lies_as_the_model_does(adapters):
    mesh = sharding.make_mesh(sharding.MeshShape(2, 2, 2))
    abstract = jax.eval_shape(lambda: create(adapters, adamw(0.1), 0))
    placed = layout(adapters, abstract, mesh)
    assert placed.variables.frozen["base"]["table"].spec == PartitionSpec("tensor", "fsdp")
    assert placed.variables.params["model"]["kernel"]["a"].is_fully_replicated
