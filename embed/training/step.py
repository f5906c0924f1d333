"""One training step: embed both sides, compare, update, and refuse what is not finite. A pure function, jitted by the loop."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from embed.sharding import constrain
from embed.training.state import TrainState
from embed.types import Batch, Loss, Metrics, Model, Outputs, Params


def embed_batch(model: Model, params: Params, batch: Batch, rng=None) -> Outputs:
    """Returns the embeddings of all towers of a batch as global arrays, split over the batch."""

    def tower(name: str, salt: int):
        tokens, lengths = batch[name], batch[f"{name}_length"]
        lead = tokens.shape[:-1]
        flat = tokens.reshape(-1, tokens.shape[-1])
        mask = jnp.arange(flat.shape[-1]) < lengths.reshape(-1, 1)
        key = None if rng is None else jax.random.fold_in(rng, salt)
        return constrain(model.apply(params, flat, mask, key), "batch", None).reshape(*lead, -1)

    return Outputs(
        query=tower("query", 0),
        target=tower("target", 1),
        negatives=tower("negatives", 2) if "negatives" in batch else None,
        negatives_mask=batch.get("negatives_mask"),
        query_id=batch["query_id"],
        target_id=batch["target_id"],
    )


def loss_and_gradient(model: Model, loss: Loss, params: Params, batch: Batch, rng, micro_batches: int = 1):
    """Returns (loss, metrics, gradient), averaged over `micro_batches` parts that are contrasted each on its own."""

    def of(params, part, key):
        return loss(embed_batch(model, params, part, key))

    both = jax.value_and_grad(of, has_aux=True)
    if micro_batches == 1:
        (value, metrics), gradient = both(params, batch, rng)
        return value, metrics, gradient

    def cut(x):
        x = x.reshape(micro_batches, x.shape[0] // micro_batches, *x.shape[1:])
        return constrain(x, None, "batch", *(None,) * (x.ndim - 2))

    def add(total, item):
        number, part = item
        key = None if rng is None else jax.random.fold_in(rng, number)
        found = both(params, part, key)
        return jax.tree.map(jnp.add, total, found), None

    parts = jax.tree.map(cut, dict(batch))
    shapes = jax.eval_shape(both, params, jax.tree.map(lambda x: x[0], parts), rng)
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = jax.lax.scan(add, zero, (jnp.arange(micro_batches), parts))
    (value, metrics), gradient = jax.tree.map(lambda x: x / micro_batches, total)
    return value, metrics, gradient


def make_step(
    model: Model,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    dropout: bool = False,
    ema_decay: float | None = None,
    micro_batches: int = 1,
) -> Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, Metrics]]:
    """Returns step(state, batch) -> (state, metrics).

    A step whose loss or gradient is not finite changes neither parameters nor optimiser nor average; it is counted in
    `skipped`. Randomness is a function of the seed and the step number alone.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        rng = jax.random.fold_in(jax.random.key(seed), state.step) if dropout else None
        value, metrics, gradient = loss_and_gradient(model, loss, state.params, batch, rng, micro_batches)
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema if ema_decay is None else moving_average(state.ema, params, ema_decay, state.step)
        keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)  # noqa: E731
        advanced = TrainState(
            step=state.step + 1,
            params=keep(params, state.params),
            opt_state=keep(opt_state, state.opt_state),
            ema=None if state.ema is None else keep(ema, state.ema),
            skipped=jnp.where(finite, 0, state.skipped + 1),
        )
        return advanced, {"loss": value, "gradient_norm": norm, "skipped": advanced.skipped, **metrics}

    return step


def moving_average(ema: Params, params: Params, decay: float, step) -> Params:
    """Returns decay * ema + (1 - decay) * params; early steps forget faster: decay is at most (1 + t) / (10 + t)."""
    rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda e, p: rate * e + (1 - rate) * p, ema, params)
