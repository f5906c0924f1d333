"""What a training run carries from step to step, and how it lies on the mesh."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from embed import sharding
from embed.trees import flatten
from embed.types import Model, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that decides the rest of a run, but the configuration and the data.

    `step` counts batches consumed, so it is the data position too. `skipped` counts steps in a row whose gradient was not
    finite and which therefore changed nothing.
    """

    step: jax.Array
    params: Params
    opt_state: Any
    ema: Params | None
    skipped: jax.Array

    def trees(self, frozen: str | None = None) -> dict[str, Any]:
        """Returns what a run needs to go on, as items of their own; the part `frozen` of the parameters is read elsewhere."""
        if frozen is not None:
            return {"learning": {k: v for k, v in self.params.items() if k != frozen}, "opt_state": self.opt_state}
        kept = {"params": self.params, "opt_state": self.opt_state}
        return kept if self.ema is None else {**kept, "ema": self.ema}

    @property
    def serving(self) -> Params:
        """The parameters to evaluate and serve: the moving average when there is one."""
        return self.params if self.ema is None else self.ema


def create(model: Model, optimizer: optax.GradientTransformation, use_ema: bool, seed: int) -> TrainState:
    """Returns the state before the first step. Call it under jit with `layout` as out_shardings."""
    params = model.init(jax.random.key(seed))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, params) if use_ema else None,
        skipped=jnp.zeros((), jnp.int32),
    )


def layout(model: Model, abstract: TrainState, mesh: Mesh) -> TrainState:
    """Returns the shardings of a state: optimiser moments lie as the parameters they belong to, the rest is replicated."""
    by_params = sharding.shardings(model.axes, abstract.params, mesh)
    whole = sharding.replicated(mesh)
    known = [(path, x.shape, s) for (path, x), s in zip(flatten(abstract.params).items(), jax.tree.leaves(by_params))]

    def of(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for param, shape, placed in known:
            if name.endswith(param):
                if leaf.shape == shape:
                    return placed
                break
        return jax.sharding.NamedSharding(mesh, PartitionSpec())

    return TrainState(
        step=whole,
        params=by_params,
        opt_state=jax.tree_util.tree_map_with_path(of, abstract.opt_state),
        ema=None if abstract.ema is None else by_params,
        skipped=whole,
    )


def with_shardings(abstract, shardings):
    """Returns the tree of ShapeDtypeStruct that says how each array is to be laid out when restored."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
