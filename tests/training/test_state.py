"""The state of a run: what it begins with, how it lies on a mesh, and how a checkpoint divides it and puts it together again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from training_batches import bag_of_words

from embed import sharding, trees
from embed.losses.contrastive import Contrastive
from embed.models.lora import Lora
from embed.objectives.adapters import Adapters
from embed.objectives.moving_average import MovingAverage
from embed.objectives.pairs import Pairs
from embed.sharding import MeshShape
from embed.training.optimizers import adamw
from embed.training.state import Items, TrainState, create, gathered, layout, with_shardings
from embed.types import Variables

LEARNS_TEMPERATURE = Contrastive(0.2, learn_temperature=True)
OBJECTIVES = {
    "pairs": Pairs(LEARNS_TEMPERATURE, bag_of_words()),
    "average": MovingAverage(Pairs(LEARNS_TEMPERATURE, bag_of_words()), 0.9),
    "adapters": Adapters(Pairs(Contrastive(), bag_of_words()), Lora("kernel", rank=2)),
    "average of adapters": MovingAverage(Adapters(Pairs(Contrastive(), bag_of_words()), Lora("kernel", rank=2)), 0.9),
}


@pytest.fixture(scope="module")
def state_of():
    """state_of(name) -> (objective, its first state with moments, the same abstractly)."""
    made = {}

    def get(name: str):
        if name not in made:
            objective = OBJECTIVES[name]
            state = create(objective, optax.adam(0.1), seed=3)
            made[name] = objective, state, jax.eval_shape(lambda: create(objective, optax.adam(0.1), seed=3))
        return made[name]

    return get


def paths_of(tree) -> set[str]:
    return set(trees.flatten(tree))


def equal(found, wanted) -> None:
    found, wanted = trees.flatten(found), trees.flatten(wanted)
    assert list(found) == list(wanted)
    for path, x in wanted.items():
        np.testing.assert_array_equal(found[path], x, err_msg=path)


# The beginning.


def test_a_run_begins_at_step_zero_with_the_parameters_of_its_seed(state_of):
    objective, state, _ = state_of("pairs")
    assert (int(state.step), int(state.skipped)) == (0, 0)
    assert state.step.dtype == state.skipped.dtype == jnp.int32
    equal(state.variables, objective.init(jax.random.key(3)))
    moments = state.opt_state[0]
    equal(moments.mu, jax.tree.map(jnp.zeros_like, state.variables.params))
    other = create(objective, optax.sgd(0.1), seed=4).variables.params["model"]["table"]
    assert np.abs(other - state.variables.params["model"]["table"]).max() > 0.1


def test_a_start_takes_the_place_of_random_parameters():
    start = {"table": jnp.ones((50, 4)), "kernel": jnp.full((4, 6), 2.0)}
    state = create(OBJECTIVES["pairs"], optax.sgd(0.1), 0, start)
    equal(state.variables.params["model"], start)


# Its layout.


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(MeshShape(2, 2, 2))


@pytest.fixture
def spreading(monkeypatch):
    """Spreads the parameters of small models too."""
    monkeypatch.setattr(sharding, "SPREAD_FROM", 0)


def test_small_parameters_lie_as_the_model_has_them(state_of, mesh):
    objective, _, abstract = state_of("average")
    placed = layout(objective, abstract, mesh)
    assert placed.variables.params == sharding.shardings(objective.axes().params, abstract.variables.params, mesh)


def test_what_is_learned_lies_over_the_replicas_and_the_rest_on_every_device(state_of, mesh, spreading):
    objective, _, abstract = state_of("average")
    placed = layout(objective, abstract, mesh)
    assert jax.tree.structure(placed) == jax.tree.structure(abstract)
    specs = {path: s.spec for path, s in trees.flatten(placed).items()}
    # Tables are split by vocabulary and width, kernels by width alone: `sharding.RULES`.
    # The table has no dimension left that `data` could split.
    of_learned = {"table": PartitionSpec("tensor", "fsdp"), "kernel": PartitionSpec("fsdp", "data")}
    seen = dict.fromkeys(of_learned, 0)
    for path, spec in specs.items():
        name = path.rpartition("/")[2]
        if name in of_learned:
            assert spec == of_learned[name], path
            seen[name] += 1
        else:
            assert spec == PartitionSpec(), path
    assert seen == {"table": 4, "kernel": 4}  # the parameters, their average and two moments
    assert all(s.mesh == mesh for s in jax.tree.leaves(placed))


def test_what_is_frozen_is_not_spread(state_of, mesh, spreading):
    """A step would gather it though nothing changes it."""
    objective, _, _ = state_of("pairs")
    optimizer = adamw(0.1, frozen=("kernel",))
    placed = layout(objective, jax.eval_shape(lambda: create(objective, optimizer, 0)), mesh)
    assert placed.variables.params["model"]["kernel"].spec == PartitionSpec("fsdp", None)
    learning = layout(objective, jax.eval_shape(lambda: create(objective, adamw(0.1), 0)), mesh)
    assert learning.variables.params["model"]["kernel"].spec == PartitionSpec("fsdp", "data")


def test_what_has_no_moment_of_its_shape_is_not_spread(mesh, spreading):
    """Its update costs little, as that of Adafactor."""
    objective = OBJECTIVES["pairs"]

    def init(params):
        return {"row": jax.tree.map(lambda x: jnp.zeros(x.shape[:1]), params)}

    optimizer = optax.GradientTransformation(init, lambda *_: None)
    placed = layout(objective, jax.eval_shape(lambda: create(objective, optimizer, 0)), mesh)
    assert placed.variables.params["model"]["kernel"].spec == PartitionSpec("fsdp", None)


def test_a_moment_of_another_shape_than_its_parameter_is_on_every_device(mesh):
    """Such as the rows and columns of Adafactor."""
    objective = OBJECTIVES["pairs"]

    def init(params):
        return {"row": jax.tree.map(lambda x: jnp.zeros(x.shape[:1]), params), "whole": params}

    optimizer = optax.GradientTransformation(init, lambda *_: None)
    placed = layout(objective, jax.eval_shape(lambda: create(objective, optimizer, 0)), mesh).opt_state
    assert placed["row"]["model"]["table"].spec == PartitionSpec()
    assert placed["whole"]["model"]["table"].spec == PartitionSpec("tensor", "fsdp")


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_what_is_restored_lies_as_the_step_takes_it(name, state_of, mesh, spreading):
    """Parameters of a checkpoint are those that the objective exports; most are its variables as they are."""
    objective, _, abstract = state_of(name)
    items, placed = Items(objective, abstract), layout(objective, abstract, mesh)
    model = bag_of_words()
    target = trees.flatten(items.exported_target(placed, model, mesh))
    whole = trees.flatten(sharding.shardings(model.axes, jax.eval_shape(model.init, jax.random.key(0)), mesh))
    of_variables = trees.flatten(placed.variables)
    assert target.keys() == whole.keys()
    same = {path: of_variables[variable] for variable, path in items.exported.items()}
    for path, x in target.items():
        assert x.sharding == same.get(path, whole[path]), path
    assert (name != "pairs") or target["kernel"].sharding.spec == PartitionSpec("fsdp", "data")


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 4, 2)], ids=str)
def test_gathered_parameters_lie_as_the_model_runs(state_of, shape, spreading):
    objective, state, abstract = state_of("pairs")
    mesh, model = sharding.make_mesh(MeshShape(*shape)), bag_of_words()
    spread = layout(objective, abstract, mesh).variables.params["model"]
    params = jax.device_put(state.variables.params["model"], spread)
    whole = gathered(params, model, mesh)
    equal(whole, state.variables.params["model"])
    for found, wanted in zip(
        jax.tree.leaves(whole), jax.tree.leaves(sharding.shardings(model.axes, params, mesh)), strict=True
    ):
        assert found.sharding.is_equivalent_to(wanted, found.ndim)


def test_shapes_come_with_their_shardings(mesh):
    replicated = sharding.replicated(mesh)
    found = with_shardings({"a": jnp.zeros((2, 3), jnp.int32)}, {"a": replicated})["a"]
    assert (found.shape, found.dtype, found.sharding) == ((2, 3), jnp.int32, replicated)


# The items of a checkpoint.

SAVED = {
    "pairs": {"opt_state", "learned"},  # the temperature is learned; the model's parameters are `params`
    "average": {"opt_state", "learned", "moving"},
    "adapters": {"opt_state", "learned"},
    "average of adapters": {"opt_state", "learned", "moving"},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_items_hold_everything_once_and_join_to_what_was_split(state_of, name):
    objective, state, abstract = state_of(name)
    items = Items(objective, abstract)
    parts = items.split(state)
    assert set(parts) == SAVED[name]
    assert parts["opt_state"] is state.opt_state
    saved = {"params": items.export(state.variables), **parts}
    nothing = jax.tree.map(jnp.zeros_like, state.variables)
    given = dataclasses.replace(nothing, frozen=state.variables.frozen)
    equal(items.join(saved, given), state.variables)
    items_of = {"params": "learned", "moving": "moving"}
    divided = [f"{kind}/{path}" for kind, item in items_of.items() for path in paths_of(parts.get(item, {}))]
    is_kept = lambda path: not path.startswith("frozen/")  # noqa: E731
    assert sorted(filter(is_kept, [*divided, *items.exported])) == sorted(filter(is_kept, paths_of(state.variables)))


def test_what_is_exported_unchanged_is_saved_there_alone(state_of):
    expected = {
        "pairs": {"params/model/table": "table", "params/model/kernel": "kernel"},
        "average": {"moving/ema/model/table": "table", "moving/ema/model/kernel": "kernel"},
        "adapters": {"frozen/base/table": "table"},  # the kernel is computed from the base and the factors
    }
    for name, exported in expected.items():
        objective, _, abstract = state_of(name)
        assert Items(objective, abstract).exported == exported


def test_frozen_variables_are_not_saved_and_come_from_the_start(state_of):
    objective, state, abstract = state_of("adapters")
    items = Items(objective, abstract)
    parts = {"params": items.export(state.variables), **items.split(state)}
    assert {p.partition("/")[0] for p in paths_of(parts["learned"])} == {"model"}
    other = dataclasses.replace(state.variables, frozen=jax.tree.map(lambda x: x + 1, state.variables.frozen))
    found = items.join(parts, other)
    equal(found.frozen, other.frozen)
    equal(found.params, state.variables.params)


def test_an_export_is_compiled_only_where_it_computes(state_of):
    objective, _, abstract = state_of("pairs")
    assert Items(objective, abstract).export == objective.export
    objective, state, abstract = state_of("adapters")
    items = Items(objective, abstract)
    assert items.export is items.export and hasattr(items.export, "lower")
    equal(
        jax.tree.map(np.shape, items.export(state.variables)),
        jax.tree.map(np.shape, bag_of_words().init(jax.random.key(0))),
    )


def test_shardings_are_divided_as_values_are(state_of, mesh):
    objective, state, abstract = state_of("average")
    items = Items(objective, abstract)
    placed = items.split(layout(objective, abstract, mesh))
    assert jax.tree.structure(placed) == jax.tree.structure(items.split(state))
    assert isinstance(state, TrainState) and isinstance(state.variables, Variables)
