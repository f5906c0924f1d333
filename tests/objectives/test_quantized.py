"""Quantisation-aware training around an objective: what it sees, what learns, what is exported; on meshes, in micro-batches."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_batches import bag_of_words, batch, examples, fast, only, rows

from embed import sharding
from embed.errors import ConfigError
from embed.losses.contrastive import Contrastive
from embed.models.lora import Lora
from embed.models.quantization import Quantization, Rule
from embed.objectives.adapters import Adapters
from embed.objectives.moving_average import MovingAverage
from embed.objectives.pairs import Pairs
from embed.objectives.quantized import Quantized
from embed.quantized_arrays import Scheme, rounded
from embed.training.optimizers import adamw
from embed.training.state import Items, create, layout
from embed.training.step import loss_and_gradient, make_step, make_validation
from embed.trees import flatten
from embed.types import Variables

RULES = Quantization((Rule("table", 4, 2), Rule("kernel", 8)))
SCHEMES = {"table": Scheme(4, 2, (1,)), "kernel": Scheme(8, None, (0,))}
PAIRS = Pairs(Contrastive(0.2, learn_temperature=True), bag_of_words())
OBJECTIVE = Quantized(PAIRS, RULES)


def quantized(model) -> dict[str, np.ndarray]:
    return {path: rounded(np.asarray(x), SCHEMES[path]) for path, x in model.items()}


@pytest.fixture(scope="module")
def variables() -> Variables:
    return OBJECTIVE.init(jax.random.key(0))


def test_parameters_and_axes_are_the_objectives(variables):
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, PAIRS.init(jax.random.key(0))))
    assert OBJECTIVE.axes() == PAIRS.axes() and OBJECTIVE.served(variables) is variables


@pytest.mark.slow
def test_it_is_computed_and_exported_with_quantised_values(variables):
    values = quantized(variables.params["model"])
    inner = dataclasses.replace(variables, params={**variables.params, "model": values})
    one = only(batch())
    outputs, expected = OBJECTIVE.forward(variables, one, None, 0), PAIRS.forward(inner, one, None, 0)
    for path, x in flatten(expected).items():
        np.testing.assert_allclose(flatten(outputs)[path], x, rtol=1e-6)
    assert float(OBJECTIVE.loss(variables.params, outputs, one, 0)[0]) == float(
        PAIRS.loss(inner.params, outputs, one, 0)[0]
    )
    exported = OBJECTIVE.export(variables)
    for path, x in values.items():
        np.testing.assert_array_equal(exported[path], x)
        assert np.any(x != variables.params["model"][path])


@pytest.mark.slow
def test_the_gradient_is_that_at_the_quantised_values(variables):
    """But for values outside of the range, whose gradient is zero."""
    values = quantized(variables.params["model"])
    inner = dataclasses.replace(variables, params={**variables.params, "model": values})
    gradients = [
        flatten(fast(lambda v, o=o: loss_and_gradient(o, v, batch(), jax.random.key(1), 0)[2])(v))
        for o, v in ((OBJECTIVE, variables), (PAIRS, inner))
    ]
    table = np.asarray(variables.params["model"]["table"]).reshape(50, 2, 2)
    largest = np.take_along_axis(table, np.abs(table).argmax(-1, keepdims=True), -1)
    outside = (table / largest < -15 / 16).reshape(50, 4)
    assert 0 < outside.sum() < 20
    for path, x in gradients[1].items():
        expected = np.where(outside, 0, x) if path == "model/table" else x
        np.testing.assert_allclose(gradients[0][path], expected, rtol=1e-5, atol=1e-7)
        assert np.any(expected)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [2, 4, 8])
def test_the_gradient_by_micro_batches_is_that_of_the_whole_batch(variables, parts):
    with jax.enable_x64(True):
        double = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, variables)
        whole, cut = (
            fast(lambda v, b: loss_and_gradient(OBJECTIVE, v, b, jax.random.key(1), 0))(double, batch(parts=n))
            for n in (1, parts)
        )
        assert float(cut[0]) == pytest.approx(float(whole[0]), rel=1e-6)
        for path, x in flatten(whole[2]).items():
            np.testing.assert_allclose(flatten(cut[2])[path], x, rtol=0, atol=1e-6 * np.abs(x).max())


def steps(objective, count: int = 3, optimizer=None):
    """Returns the state after some steps."""
    optimizer = optimizer or adamw(0.05)
    state = fast(lambda: create(objective, optimizer, 0))()
    step = fast(make_step(objective, optimizer, seed=0))
    for seed in range(count):
        state, metrics = step(state, batch(seed))
    return state, metrics


@pytest.mark.slow
def test_float32_parameters_learn_by_steps_smaller_than_a_scale():
    state, _ = steps(OBJECTIVE, 1, adamw(1e-5))
    first = OBJECTIVE.init(jax.random.key(0)).params["model"]
    moved = state.variables.params["model"]
    assert all(0 < np.abs(moved[path] - first[path]).max() < 1e-3 for path in first)
    exported, before = OBJECTIVE.export(state.variables), quantized(first)
    assert np.mean(np.asarray(exported["table"]) == before["table"]) > 0.5


def test_a_checkpoint_holds_both_the_quantised_values_and_what_learns():
    abstract = jax.eval_shape(lambda: create(OBJECTIVE, adamw(0.1), 0))
    items = Items(OBJECTIVE, abstract)
    split = items.split(abstract)
    assert items.exported == {} and set(split) == {"opt_state", "learned"}
    assert set(flatten(split["learned"])) == {"model/table", "model/kernel", "loss/log_temperature"}


@pytest.mark.slow
def test_the_moving_average_is_of_float32_and_is_quantised_when_it_is_exported():
    objective = MovingAverage(OBJECTIVE, 0.5)
    state, _ = steps(objective)
    average = state.variables.moving["ema"]["model"]
    exported = objective.export(state.variables)
    for path, x in quantized(average).items():
        np.testing.assert_array_equal(exported[path], x)
        assert np.any(x != average[path])
    validate = fast(make_validation(objective))
    served = dataclasses.replace(
        state.variables, params={**state.variables.moving["ema"], "model": exported}, moving={}
    )
    expected = fast(make_validation(PAIRS))((served, state.step), batch())
    assert float(validate((state.variables, state.step), batch())["loss"]) == pytest.approx(
        float(expected["loss"]), rel=1e-5
    )


@pytest.mark.slow
def test_with_adapters_the_merged_model_is_quantised():
    objective = Adapters(OBJECTIVE, Lora("kernel", rank=2))
    state, _ = steps(objective)
    factors, base = state.variables.params["model"]["kernel"], state.variables.frozen["base"]
    merged = np.asarray(base["kernel"] + 16.0 * jnp.matmul(factors["a"], factors["b"], precision="highest"))
    assert np.any(factors["b"])
    exported = objective.export(state.variables)
    np.testing.assert_allclose(exported["kernel"], rounded(merged, SCHEMES["kernel"]), rtol=1e-5)
    np.testing.assert_array_equal(exported["table"], rounded(np.asarray(base["table"]), SCHEMES["table"]))


def on_mesh(size: int, parts: int):
    """Returns the loss and the gradient of a batch on a mesh of `size` devices."""
    shape = {1: (1, 1, 1), 2: (1, 2, 1), 4: (2, 2, 1), 8: (2, 2, 2)}[size]
    mesh = sharding.make_mesh(sharding.MeshShape(*shape), jax.devices()[: math.prod(shape)])
    shards = sharding.batch_shards(mesh)
    with jax.set_mesh(mesh):
        abstract = jax.eval_shape(lambda: create(OBJECTIVE, adamw(0.1), 0))
        placed = layout(OBJECTIVE, abstract, mesh).variables
        variables = jax.device_put(OBJECTIVE.init(jax.random.key(0)), placed)
        local = rows(examples(0, 16), shards=shards, parts=parts)
        whole = sharding.to_global(local, mesh, shards)
        key = jax.random.key(1)
        value, _, gradient, _ = fast(lambda v, b: loss_and_gradient(OBJECTIVE, v, b, key, 0))(variables, whole)
        return float(value), jax.device_get(flatten(gradient)), jax.device_get(fast(OBJECTIVE.export)(variables))


@pytest.fixture(scope="module")
def on_one():
    return on_mesh(1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "parts"), [(2, 1), (4, 2), (8, 2)])
def test_every_mesh_gives_the_same_loss_gradient_and_values(size, parts, on_one):
    value, gradient, exported = on_mesh(size, parts)
    assert value == pytest.approx(on_one[0], rel=1e-5)
    for path, x in on_one[1].items():
        np.testing.assert_allclose(gradient[path], x, rtol=1e-4, atol=1e-6)
    for path, x in on_one[2].items():
        np.testing.assert_array_equal(exported[path], x)


def test_rules_that_change_nothing_are_refused_before_a_run_begins():
    with pytest.raises(
        ConfigError, match="'custom' changes nothing: no path matches its rules; they are like kernel, table"
    ):
        Quantized(PAIRS, Quantization((Rule("kernels", 4),)))


@dataclasses.dataclass(frozen=True)
class Tower(Pairs):
    """Calls the parameters of its model otherwise."""

    def init(self, key, start=None):
        first = super().init(key, start)
        return dataclasses.replace(first, params={"tower": first.params["model"]})


def test_an_objective_without_a_model_is_refused():
    with pytest.raises(
        ConfigError, match="Tower has no parameters 'model', which quantisation is of, but tower; call those"
    ):
        Quantized(Tower(Contrastive(), bag_of_words()), RULES)


@pytest.mark.slow
def test_a_trained_model_that_learns_on_for_few_bits_is_better_than_one_rounded_afterwards():
    """Direction alone: the loss of the quantised model on the batches that were learned, the mean of twelve starts.

    A single start decides nothing: rounding costs between 0.00 and 0.33 of a loss of 0.5, by chance.
    """
    pairs = Pairs(Contrastive(0.2), bag_of_words())
    objective = Quantized(pairs, Quantization((Rule("table|kernel", 4),)))
    batches = [batch(seed) for seed in range(8)]
    score = fast(lambda v, b: make_validation(objective)((v, 0), b)["loss"])
    first = fast(make_step(pairs, adamw(0.03), seed=0))
    then = [fast(make_step(learned, adamw(0.003), seed=0)) for learned in (pairs, objective)]

    def trained(state, step, count):
        for t in range(count):
            state, _ = step(state, batches[t % len(batches)])
        return state

    differences = []
    for start in range(12):
        state = trained(fast(lambda start=start: create(pairs, adamw(0.03), start))(), first, 300)
        states = [trained(state, step, 400) for step in then]
        rounded_afterwards, trained_for = (np.mean([float(score(s.variables, b)) for b in batches]) for s in states)
        differences.append(rounded_afterwards - trained_for)
    assert np.mean(differences) > 0.01, differences
