"""Cross-entropy of the next token, over a large vocabulary in few logits at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from embed.losses.chunks import chunked_sums

_MAX_LOGITS = 1 << 24  # values of one chunk
_MIN_TOKENS = 512  # a chunk reads the whole token table, so it must have work for it


def token_sums(
    logits_of: Callable[[Any, Float[Array, "1 C D"]], Float[Array, "1 C V"]],
    params: Any,
    states: Float[Array, "B L D"],
    labels: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    z_loss: float = 0.0,
) -> dict[str, Float[Array, ""]]:
    """Returns sums over the tokens of `mask`: {"loss", "tokens", "correct"} and, with `z_loss`, {"z_loss"}.

    `logits_of` takes `params` and states. "loss" is the sum of -log p(label), in nats; `z_loss` adds
    z_loss * (log of the sum of exponentials)^2 of each token to it, which keeps logits near 0 (arXiv:2204.02311 s5). "correct"
    counts tokens whose most probable token is the label. Tokens are taken in chunks (`chunks.chunked_sums`), so that the logits
    of all are never in memory at once.
    """
    vocabulary = jax.eval_shape(logits_of, params, states[:1, :1]).shape[-1]

    def sums_of(params, states, labels, mask):
        logits = logits_of(params, states[None]).astype(jnp.float32)[0]
        log_sum = jax.nn.logsumexp(logits, -1)
        picked = jnp.take_along_axis(logits, labels[..., None], -1)[..., 0]
        regulariser = z_loss * jnp.square(log_sum)
        correct = jnp.argmax(logits, -1) == labels
        values = {"loss": log_sum - picked + regulariser, "tokens": jnp.ones_like(log_sum), "correct": correct}
        values |= {"z_loss": regulariser} if z_loss else {}
        return {name: jnp.sum(jnp.where(mask, x, 0.0)) for name, x in values.items()}

    flat = tuple(x.reshape(-1, *x.shape[2:]) for x in (states, labels, mask))
    return chunked_sums(sums_of, params, flat, max(_MIN_TOKENS, _MAX_LOGITS // vocabulary))
