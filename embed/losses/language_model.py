"""Cross-entropy of the next token, over a large vocabulary in few logits at a time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from embed import sharding

_MAX_LOGITS = 1 << 24  # values of one chunk, on each shard of the batch


def token_sums(
    logits_of: Callable[[Float[Array, "B C D"]], Float[Array, "B C V"]],
    states: Float[Array, "B L D"],
    labels: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    z_loss: float = 0.0,
) -> dict[str, Float[Array, ""]]:
    """Returns sums over the tokens of `mask`: {"loss", "tokens", "correct"} and, with `z_loss`, {"z_loss"}.

    "loss" is the sum of -log p(label), in nats; `z_loss` adds z_loss * (log of the sum of exponentials)^2 of each token to it,
    which keeps logits near 0 (arXiv:2204.02311 s5). "correct" counts tokens whose most probable token is the label. Positions
    are taken in chunks, whose logits are computed again in the backward pass, so that those of all are never in memory at once.
    """
    batch, length = labels.shape
    vocabulary = jax.eval_shape(logits_of, states[:, :1]).shape[-1]
    size = max(1, min(length, _MAX_LOGITS * sharding.shards_here() // (batch * vocabulary)))
    count = -(-length // size)
    padding = count * size - length

    def chunks(x):
        x = jnp.pad(x, ((0, 0), (0, padding), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(batch, count, size, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def sums_of(chunk):
        states, labels, mask = chunk
        logits = logits_of(states).astype(jnp.float32)
        log_sum = jax.nn.logsumexp(logits, -1)
        picked = jnp.take_along_axis(logits, labels[..., None], -1)[..., 0]
        regulariser = z_loss * jnp.square(log_sum)
        correct = jnp.argmax(logits, -1) == labels
        values = {"loss": log_sum - picked + regulariser, "tokens": jnp.ones_like(log_sum), "correct": correct}
        values |= {"z_loss": regulariser} if z_loss else {}
        return {name: jnp.sum(jnp.where(mask, x, 0.0)) for name, x in values.items()}

    per_chunk = jax.lax.map(sums_of, tuple(map(chunks, (states, labels, mask))))
    return {name: jnp.sum(x) for name, x in per_chunk.items()}
