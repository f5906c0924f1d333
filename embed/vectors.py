"""Unit vectors: what models give, losses compare and Matryoshka sizes are cut from."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def normalize(x: Float[Array, "... E"], eps: float = 1e-12) -> Float[Array, "... E"]:
    """Returns x / |x| in float32 (float64 stays); a zero vector stays zero, with a finite gradient."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), -1, keepdims=True), eps**2))


def truncate(x: Float[Array, "... E"], dim: int) -> Float[Array, "... dim"]:
    """Returns the first `dim` values, scaled back to unit length."""
    return normalize(x[..., :dim])


def truncate_numpy(x: np.ndarray, dim: int) -> np.ndarray:
    """Returns `truncate` of a numpy array as float32, without a device."""
    cut = np.asarray(x[..., :dim], np.float64)
    return (cut / np.maximum(np.linalg.norm(cut, axis=-1, keepdims=True), 1e-12)).astype(np.float32)
