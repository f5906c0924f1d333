"""One training step of any objective: outputs, loss, gradient, update. A pure function, jitted by the loop.

With several micro-batches gradients are cached (arXiv:2101.06983, GradCache), so that the encoder needs the memory of one of
them while the loss compares the whole batch. All micro-batches are embedded, and nothing but their outputs is kept. The loss of
the joined outputs is differentiated by them and by the parameters. Then every micro-batch is embedded again, and the gradient
of its outputs is led back to the parameters. The result is the gradient of the whole batch, dropout included: both times it is
drawn from the same keys.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from embed import sharding
from embed.errors import ConfigError
from embed.sharding import constrain, join_batch, split_batch
from embed.training.optimizers import rate_of
from embed.training.state import TrainState, spread
from embed.trees import flatten
from embed.types import Batch, Metrics, Objective, Outputs, Params, Variables


def loss_and_gradient(
    objective: Objective, variables: Variables, batch: Batch, key, step
) -> tuple[jax.Array, Metrics, Params, Outputs]:
    """Returns (loss, metrics, gradient, outputs) of a batch whose arrays lead with [shards, micro-batches].

    The gradient is by `variables.params`. The outputs are those of the whole batch.
    """
    micro_batches = jax.tree.leaves(batch)[0].shape[1]
    compute = _whole if micro_batches == 1 else _cached
    return compute(objective, variables, batch, key, step)


def _whole(objective: Objective, variables: Variables, batch: Batch, key, step):
    """Returns what `loss_and_gradient` does, for one micro-batch: the forward pass is run once."""
    rows = jax.tree.map(lambda x: _join_shards(x[:, 0]), batch)

    def loss(params):
        outputs = objective.forward(dataclasses.replace(variables, params=params), rows, key, step)
        _check_outputs(outputs, rows)
        value, metrics = _loss(objective, params, outputs, rows, step)
        return value, (metrics, outputs)

    (value, (metrics, outputs)), gradient = jax.value_and_grad(loss, has_aux=True)(variables.params)
    return value, metrics, gradient, outputs


def _cached(objective: Objective, variables: Variables, batch: Batch, key, step):
    """Returns what `loss_and_gradient` does, for several micro-batches, by cached gradients."""
    outputs, whole = outputs_of(objective, variables, batch, key, step)
    loss = jax.value_and_grad(lambda p, o: _loss(objective, p, o, whole, step), argnums=(0, 1), has_aux=True)
    (value, metrics), (by_params, by_outputs) = loss(variables.params, outputs)

    def lead_back(total, micro_batch):
        numbered, by_rows = micro_batch
        with jax.named_scope("again"):  # likewise
            _, pull = jax.vjp(
                lambda p: _forward(objective, dataclasses.replace(variables, params=p), numbered, key, step),
                variables.params,
            )
        return jax.tree.map(jnp.add, total, pull(Outputs(by_rows, by_outputs.sums))[0]), None

    numbered = _numbered(batch)
    by_rows = jax.tree.map(lambda x: split_batch(x, len(numbered[0])), by_outputs.rows)
    gradient, _ = jax.lax.scan(lead_back, by_params, (numbered, by_rows))
    return value, metrics, gradient, outputs


def _loss(objective: Objective, params: Params, outputs: Outputs, batch: Batch, step):
    with jax.named_scope("loss"):  # a name that `compilation.parts` knows
        return objective.loss(params, outputs, batch, step)


def outputs_of(objective: Objective, variables: Variables, batch: Batch, key, step) -> tuple[Outputs, Batch]:
    """Returns the outputs of a batch whose arrays lead with [shards, micro-batches], and the batch as `Objective.loss` takes it.

    One micro-batch is computed after the other. `key` None draws nothing.
    """
    stacked = jax.lax.map(lambda x: _forward(objective, variables, x, key, step), _numbered(batch))
    outputs = Outputs(jax.tree.map(join_batch, stacked.rows), jax.tree.map(lambda x: jnp.sum(x, 0), stacked.sums))
    return outputs, jax.tree.map(lambda x: _join_shards(x.reshape(x.shape[0], -1, *x.shape[3:])), batch)


def _numbered(batch: Batch) -> tuple[jax.Array, Batch]:
    """Returns the numbers of the micro-batches, and the batch with them as the first dimension."""

    def first(x):
        return constrain(jnp.moveaxis(x, 1, 0), None, "batch", *(None,) * (x.ndim - 2))

    return jnp.arange(jax.tree.leaves(batch)[0].shape[1]), jax.tree.map(first, batch)


def _forward(objective: Objective, variables: Variables, numbered: tuple[jax.Array, Batch], key, step) -> Outputs:
    """Returns the outputs of one micro-batch, whose arrays lead with [shards]. Its number decides what is drawn."""
    number, part = numbered
    rows = jax.tree.map(_join_shards, part)
    outputs = objective.forward(variables, rows, None if key is None else jax.random.fold_in(key, number), step)
    _check_outputs(outputs, rows)
    return outputs


def _join_shards(x):
    """Returns an array [shards, b, ...] as [shards * b, ...], split over the batch."""
    return constrain(x.reshape(-1, *x.shape[2:]), "batch", *(None,) * (x.ndim - 2))


def _check_outputs(outputs: Outputs, batch: Batch) -> None:
    """Raises ConfigError for outputs that cannot be joined, added or differentiated."""
    for path, x in flatten(outputs).items():
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ConfigError(
                f"the objective returns {path} of type {x.dtype}; outputs are arrays of floats, and ids and masks stay in "
                "the batch"
            )
        if path.startswith("rows") and not x.ndim:
            raise ConfigError(
                f"the objective returns {path} as a scalar; rows lead with the examples, put it into sums"
            )


def make_step(
    objective: Objective, optimizer: optax.GradientTransformation, *, seed: int
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns step(state, batch) -> (state, metrics).

    A step whose loss or gradient is not finite changes no variable and no optimiser state; it is counted in `skipped`.
    Randomness is a function of the seed and the step number alone.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        before, axes = state.variables, objective.axes()
        between = spread(before, state.opt_state)
        whole = sharding.laid_out(before, axes)
        value, metrics, gradient, outputs = loss_and_gradient(objective, whole, batch, key, state.step)
        with jax.named_scope("optimizer"):  # likewise
            # Each replica stores and updates its share of large variables. A step gathers what it computes with at its start.
            gradient = sharding.laid_out(gradient, axes.params, between.params)
            norm = optax.tree.norm(gradient)
            is_finite = jnp.isfinite(value) & jnp.isfinite(norm)
            updates, opt_state = optimizer.update(gradient, state.opt_state, before.params)

            def keep(new, old):
                return jax.tree.map(lambda a, b: jnp.where(is_finite, a, b), new, old)

            params = keep(optax.apply_updates(before.params, updates), before.params)
            moving = objective.update(dataclasses.replace(before, params=params), outputs, state.step)
            moving = sharding.laid_out(moving, axes.moving, between.moving)
            advanced = TrainState(
                step=state.step + 1,
                variables=Variables(params, keep(moving, before.moving), before.frozen),
                opt_state=keep(opt_state, state.opt_state),
                skipped=jnp.where(is_finite, 0, state.skipped + 1),
            )
        reported = {"loss": value, "gradient_norm": norm, "skipped": advanced.skipped}
        rate = rate_of(optimizer, state.opt_state)
        return advanced, reported | ({} if rate is None else {"learning_rate": rate}) | metrics

    return step


def make_validation(objective: Objective) -> Callable[[tuple[Variables, jax.Array], Batch], Metrics]:
    """Returns validate((variables, step), batch) -> the loss and the metrics of held-out examples, with nothing drawn."""

    def validate(state: tuple[Variables, jax.Array], batch: Batch) -> Metrics:
        variables, step = state
        served = objective.served(sharding.laid_out(variables, objective.axes()))
        outputs, whole = outputs_of(objective, served, batch, None, step)
        value, metrics = objective.loss(served.params, outputs, whole, step)
        return {"loss": value, **metrics}

    return validate
