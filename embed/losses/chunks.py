"""Sums over many rows, a few of them at a time: for losses whose logits do not fit the memory together."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from embed import sharding


def chunked_sums(
    function: Callable[..., dict[str, Array]], params: Any, arrays: tuple[Array, ...], size: int
) -> dict[str, Array]:
    """Returns the sums of `function` over chunks of at most `size` rows of `arrays`, each [n, ...].

    `function` takes `params` and one array [size, ...] for each of `arrays`, and returns a dict of sums. The last chunk is filled
    with zeros, which must add nothing. What `function` computes is computed again in the backward pass. On a mesh every device
    takes chunks of its own rows; `params`, a tree of arrays, are gathered once and not for each chunk, and so are their gradients.
    """

    def of_rows(params, *arrays):
        count = len(arrays[0])
        rows = max(1, min(size, count))
        chunks = -(-count // rows)
        padding = chunks * rows - count

        def split(x):
            x = jnp.pad(x, ((0, padding), *((0, 0),) * (x.ndim - 1)))
            return x.reshape(chunks, rows, *x.shape[1:])

        per_chunk = jax.lax.map(jax.checkpoint(lambda chunk: function(params, *chunk)), tuple(map(split, arrays)))
        return jax.tree.map(lambda x: jnp.sum(x, 0), per_chunk)

    return sharding.summed_by_shard(of_rows, params, arrays)
