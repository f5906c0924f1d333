"""One training step: embed both sides, compare, update, and refuse what is not finite. A pure function, jitted by the loop."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from embed.sharding import constrain, join_batch, split_batch
from embed.training.state import TrainState
from embed.types import Batch, Loss, Metrics, Model, Outputs, Params


def embed_batch(model: Model, params: Params, batch: Batch, rng=None, max_segments: int | None = None) -> Outputs:
    """Returns the embeddings of a batch as global arrays, split over the batch.

    The arrays of `batch` are those of `data.packing.collate` with the shards as their first dimension. Rows hold up to
    `max_segments` texts each; None is for models of one text a row.
    """
    shards, _, length = batch["tokens"].shape
    tokens, segment_ids = (constrain(batch[n].reshape(-1, length), "batch", None) for n in ("tokens", "segment_ids"))
    if max_segments is None:  # a row without a text gets one token, so that models need not think of empty texts
        segment_ids = (segment_ids > 0) | (jnp.arange(length) == 0)
    found = model.apply(params, tokens, segment_ids, rng, max_segments=max_segments)
    # A shard's texts lie in its own rows: looked up shard by shard, no vector leaves its device.
    vectors = found.reshape(shards, -1, found.shape[-1])

    def tower(places):
        picked = jax.vmap(lambda rows, at: rows[at])(vectors, places)
        return constrain(picked.reshape(-1, *picked.shape[2:]), "batch", *(None,) * (picked.ndim - 2))

    flat = {n: x.reshape(-1, *x.shape[2:]) for n, x in batch.items()}
    return Outputs(
        query=tower(batch["query_index"]),
        target=tower(batch["target_index"]),
        negatives=tower(batch["negatives_index"]) if "negatives_index" in batch else None,
        negatives_mask=flat.get("negatives_mask"),
        query_id=flat["query_id"],
        target_id=flat["target_id"],
        negatives_id=flat.get("negatives_id"),
    )


def loss_and_gradient(model: Model, loss: Loss, params: Params, batch: Batch, rng, max_segments: int | None = None):
    """Returns (loss, metrics, gradient) of a batch, all of whose micro-batches are compared with each other.

    They are the second dimension of the arrays of `batch`; the first is the shards. With several, the memory of the encoder
    is that of one: gradients are cached (`cached_gradient`).
    """
    if batch["tokens"].shape[1] > 1:
        return cached_gradient(model, loss, params, batch, rng, max_segments)

    def of(params):
        return loss(embed_batch(model, params, {n: x[:, 0] for n, x in batch.items()}, rng, max_segments))

    (value, metrics), gradient = jax.value_and_grad(of, has_aux=True)(params)
    return value, metrics, gradient


def cached_gradient(model: Model, loss: Loss, params: Params, batch: Batch, rng, max_segments: int | None = None):
    """Returns (loss, metrics, gradient) of one large batch, embedded in micro-batches. Source: arXiv:2101.06983 (GradCache).

    All are embedded, and nothing but the embeddings is kept; the loss of all is differentiated by these; every micro-batch
    is embedded again, and the gradient by its embeddings led back to the parameters. That is the gradient of the whole
    batch for any loss that is a function of embeddings, dropout included: both times it is drawn by the same keys.
    """

    def embed(params, item) -> Outputs:
        number, part = item
        return embed_batch(model, params, part, None if rng is None else jax.random.fold_in(rng, number), max_segments)

    def first(x):
        return constrain(jnp.moveaxis(x, 1, 0), None, "batch", *(None,) * (x.ndim - 2))

    micro_batches = batch["tokens"].shape[1]
    items = jnp.arange(micro_batches), jax.tree.map(first, dict(batch))
    outputs = jax.tree.map(join_batch, jax.lax.map(lambda item: embed(params, item), items))
    by_towers = jax.value_and_grad(lambda towers: loss(outputs.with_towers(towers)), has_aux=True)
    (value, metrics), cached = by_towers(outputs.towers)

    def lead_back(total, both):
        item, gradient = both
        _, pull = jax.vjp(lambda p: embed(p, item).towers, params)
        return jax.tree.map(jnp.add, total, pull(gradient)[0]), None

    cached = jax.tree.map(lambda x: split_batch(x, micro_batches), cached)
    gradient, _ = jax.lax.scan(lead_back, jax.tree.map(jnp.zeros_like, params), (items, cached))
    return value, metrics, gradient


def make_step(
    model: Model,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    dropout: bool = False,
    ema_decay: float | None = None,
    max_segments: int | None = None,
) -> Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, Metrics]]:
    """Returns step(state, batch) -> (state, metrics).

    A step whose loss or gradient is not finite changes neither parameters nor optimiser nor average; it is counted in
    `skipped`. Randomness is a function of the seed and the step number alone.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        rng = jax.random.fold_in(jax.random.key(seed), state.step) if dropout else None
        value, metrics, gradient = loss_and_gradient(model, loss, state.params, batch, rng, max_segments)
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
