"""What a training run carries from step to step, how it lies on the mesh, and how it is divided among a checkpoint's items."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from embed import hosts, sharding, trees
from embed.types import Model, Objective, Params, Variables


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that decides the rest of a run, but the configuration and the data.

    `step` counts batches consumed, so it is the data position too. `skipped` counts steps in a row whose gradient was not
    finite and which therefore changed nothing.
    """

    step: jax.Array
    variables: Variables
    opt_state: Any
    skipped: jax.Array


def create(
    objective: Objective, optimizer: optax.GradientTransformation, seed: int, start: Params | None = None
) -> TrainState:
    """Returns the state before the first step. Call it under jit with `layout` as out_shardings."""
    variables = objective.init(jax.random.key(seed), start)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        opt_state=optimizer.init(variables.params),
        skipped=jnp.zeros((), jnp.int32),
    )


def frozen_reader(objective: Objective) -> Callable[[Params], dict[str, Any]] | None:
    """Returns read_frozen(target) of an objective, or of the one that it wraps; None where it reads nothing."""
    while not hasattr(objective, "read_frozen"):
        if not hasattr(objective, "objective"):
            return None
        objective = objective.objective
    return objective.read_frozen


def with_moments(params: Params, opt_state) -> Params:
    """Returns a tree of bools: whether the optimiser state has an array of the parameter's shape. Frozen parameters have none."""
    kept = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state)
    ]
    has = [any(n.endswith(path) and shape == x.shape for n, shape in kept) for path, x in trees.flatten(params).items()]
    return jax.tree.unflatten(jax.tree.structure(params), has)


def spread(variables: Variables, opt_state) -> Variables:
    """Returns which variables are sharded over the replicas between steps (ZeRO, arXiv:1910.02054): those that a step changes.

    They are the parameters with moments, and what moves, such as an average of them. A step gathers what it computes with.
    """
    return Variables(
        params=with_moments(variables.params, opt_state),
        moving=jax.tree.map(lambda _: True, variables.moving),
        frozen=jax.tree.map(lambda _: False, variables.frozen),
    )


def layout(objective: Objective, abstract: TrainState, mesh: Mesh) -> TrainState:
    """Returns the shardings of a state. Variables lie as `spread` says, moments as their parameters do, others everywhere."""
    spread_over = spread(abstract.variables, abstract.opt_state)
    variables = sharding.shardings(objective.axes(), abstract.variables, mesh, spread=spread_over)
    params = trees.flatten(abstract.variables.params)
    placed = [
        (path, x.shape, s) for (path, x), s in zip(params.items(), jax.tree.leaves(variables.params), strict=True)
    ]

    def of(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for param, shape, param_sharding in placed:
            if name.endswith(param):
                if leaf.shape == shape:
                    return param_sharding
                break
        return jax.sharding.NamedSharding(mesh, PartitionSpec())

    return TrainState(
        step=sharding.replicated(mesh),
        variables=variables,
        opt_state=jax.tree_util.tree_map_with_path(of, abstract.opt_state),
        skipped=sharding.replicated(mesh),
    )


def with_shardings(abstract, shardings):
    """Returns the tree of ShapeDtypeStruct that says how each array is to be laid out when restored."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)


def gathered(params: Params, model: Model, mesh: Mesh) -> Params:
    """Returns exported parameters laid out as the model runs with them; all hosts must call it."""
    if mesh.shape["data"] == 1:
        return params
    hosts.meet(mesh.devices.flat, "the parameters are gathered")
    return jax.jit(lambda x: x, out_shardings=sharding.shardings(model.axes, params, mesh))(params)


@dataclasses.dataclass(frozen=True)
class Items:
    """How the state of an objective is divided among the items of a checkpoint.

    `params` are what the objective exports. A variable that `export` passes on unchanged, as is usual, is saved there alone;
    `learned` and `moving` hold the others. Frozen variables are not saved. `opt_state` is an item of its own.
    """

    objective: Objective
    abstract: TrainState

    @functools.cached_property
    def exported(self) -> dict[str, str]:
        """{path of a variable: its path among the exported parameters} of what `export` passes on unchanged."""
        traced = jax.make_jaxpr(self.objective.export)(self.abstract.variables).jaxpr
        inputs = {id(x): path for x, path in zip(traced.invars, trees.flatten(self.abstract.variables), strict=True)}
        results = trees.flatten(jax.eval_shape(self.objective.export, self.abstract.variables))
        return {inputs[id(x)]: path for x, path in zip(traced.outvars, results, strict=True) if id(x) in inputs}

    @functools.cached_property
    def export(self) -> Callable[[Variables], Params]:
        """`objective.export`, compiled where it computes something."""
        exported = jax.eval_shape(self.objective.export, self.abstract.variables)
        computes = len(self.exported) < len(jax.tree.leaves(exported))
        return jax.jit(self.objective.export) if computes else self.objective.export

    def exported_target(self, placed: TrainState, model: Model, mesh: Mesh) -> Params:
        """Returns the shapes of what `export` gives, laid out as the variables that it passes on, others as the model runs."""
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        at, of_variables = trees.flatten(sharding.shardings(model.axes, shapes, mesh)), trees.flatten(placed.variables)
        at |= {path: of_variables[variable] for variable, path in self.exported.items()}
        return with_shardings(shapes, trees.unflatten(at))

    def split(self, state: TrainState) -> dict[str, Any]:
        """Returns {item: tree} of a state, or of its shapes or shardings, without `params`."""
        leaves = {p: x for p, x in trees.flatten(state.variables).items() if p not in self.exported}
        parts = {"learned": trees.below(leaves, "params"), "moving": trees.below(leaves, "moving")}
        return {"opt_state": state.opt_state} | {name: trees.unflatten(part) for name, part in parts.items() if part}

    def join(self, items: Mapping[str, Any], frozen: Variables) -> Variables:
        """Returns the variables of restored items, `params` among them. Those that are frozen come from `frozen`."""
        leaves = {path: x for path, x in trees.flatten(frozen).items() if path.startswith("frozen/")}
        params = trees.flatten(items["params"])
        leaves |= {path: params[exported] for path, exported in self.exported.items() if path not in leaves}
        for name, item in (("params", "learned"), ("moving", "moving")):
            leaves |= {f"{name}/{path}": x for path, x in trees.flatten(items.get(item, {})).items()}
        treedef = jax.tree.structure(self.abstract.variables)
        return jax.tree.unflatten(treedef, [leaves[path] for path in trees.flatten(self.abstract.variables)])
