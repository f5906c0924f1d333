"""Weights rounded as a smaller file would hold them, to measure what that costs. The arrays stay float32."""

import jax
import jax.numpy as jnp

from embed.errors import UsageError, did_you_mean
from embed.types import Params

BLOCK = 32  # values that share a scale, along the last axis
_STEPS = {"int8": 127, "int4": 7}
KINDS = ("float32", "bfloat16", *_STEPS)


def rounded(params: Params, kind: str) -> Params:
    """Returns the parameters as `kind` holds them.

    'bfloat16' rounds all of them. 'int8' and 'int4' round kernels and token tables to integers with one scale for a block
    of 32 values (absmax, symmetric), as arXiv:2509.20354 table 1 does; norms and biases stay as they are.
    """
    if kind not in KINDS:
        raise UsageError(f"weights {kind!r}{did_you_mean(kind, KINDS)}")
    if kind == "float32":
        return params
    if kind == "bfloat16":
        return jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), params)
    return jax.tree_util.tree_map_with_path(
        lambda path, x: _blocks(x, _STEPS[kind]) if path[-1].key in ("kernel", "table") else x, params
    )


def _blocks(x: jax.Array, steps: int) -> jax.Array:
    size = BLOCK if x.shape[-1] % BLOCK == 0 else x.shape[-1]
    blocks = x.reshape(*x.shape[:-1], -1, size)
    scale = jnp.maximum(jnp.abs(blocks).max(-1, keepdims=True), 1e-12) / steps
    return (jnp.clip(jnp.round(blocks / scale), -steps, steps) * scale).reshape(x.shape)


def stored_bytes(params: Params, kind: str) -> int:
    """Returns the size of the parameters in a file: a float16 scale for each block, what is not rounded in bfloat16."""
    total = 0
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        if kind in _STEPS and path[-1].key in ("kernel", "table"):
            size = BLOCK if x.shape[-1] % BLOCK == 0 else x.shape[-1]
            total += x.size * (1 if kind == "int8" else 0.5) + x.size // size * 2
        else:
            total += x.size * (4 if kind == "float32" else 2)
    return int(total)
