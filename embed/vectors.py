"""Unit vectors: what models give, losses compare and Matryoshka sizes are cut from."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from embed.errors import NumericError


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


def quantize_int8(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (int8 [n, E], scale float32 [n]): x is about values * scale[:, None], each vector with a scale of its own.

    The dot product of two such vectors is that of the integers times both scales. No calibration set is needed, so that a
    vector does not depend on which others were encoded with it. Values that are not finite are a NumericError.
    """
    x = _finite(np.asarray(x, np.float32))
    scale = np.maximum(np.abs(x).max(-1), 1e-12) / np.float32(127)
    return np.rint(x / scale[:, None]).astype(np.int8), scale.astype(np.float32)


def quantize_binary(x: np.ndarray) -> np.ndarray:
    """Returns uint8 [n, E/8], the signs of the values (1 for positive) packed eight to a byte, first value in the highest bit.

    The Hamming distance of two such vectors orders as the angle does. E that 8 does not divide is filled up with zeros.
    Values that are not finite are a NumericError.
    """
    return np.packbits(_finite(np.asarray(x)) > 0, axis=-1)


def _finite(x: np.ndarray) -> np.ndarray:
    finite = np.isfinite(x).all(axis=-1)
    if not finite.all():
        raise NumericError(
            f"vector {int(np.argmin(finite))} is not finite, so it cannot be rounded; look at the model's weights"
        )
    return x
