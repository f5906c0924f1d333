"""Learned positions of a grid of patches, resized to the grid of an image.

The rules are those of the frameworks that released the weights: TIPS resizes linearly with antialiasing, Dinov2 cubically without
it, and its variant with registers cubically with it.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from embed.errors import ConfigError, did_you_mean


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Returns Keys' kernel (IEEE TASSP 29, 1981, eq. 4), which is zero from a distance of two on."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


# Kernel, its radius, and whether it grows with the step when a grid is made smaller. PyTorch's cubic kernel has a = -0.75 without
# antialiasing and -0.5 with it.
RESIZES = {
    "linear_antialias": (_triangle, 1, True),
    "cubic": (functools.partial(_cubic, a=-0.75), 2, False),
    "cubic_antialias": (functools.partial(_cubic, a=-0.5), 2, True),
}


def resize_weights(size: int, new_size: int, resize: str) -> np.ndarray:
    """Returns the matrix [new_size, size] that resizes one axis; `resize` is a key of `RESIZES`.

    Samples lie in the middle of their cells. What lies beyond an edge counts as the edge, or with antialiasing not at all.
    """
    if resize not in RESIZES:
        raise ConfigError(f"position_resize {resize!r}{did_you_mean(resize, RESIZES)}")
    kernel, radius, antialias = RESIZES[resize]
    step = size / new_size
    centre = (np.arange(new_size) + 0.5) * step - 0.5
    stretch = max(step, 1.0) if antialias else 1.0
    reach = int(np.ceil(radius * stretch))
    index = np.floor(centre).astype(int)[:, None] + np.arange(-reach, reach + 2)
    weights = kernel((index - centre[:, None]) / stretch)
    if antialias:
        weights = np.where((index >= 0) & (index < size), weights, 0.0)
    matrix = np.zeros((new_size, size))
    rows = np.broadcast_to(np.arange(new_size)[:, None], index.shape)
    np.add.at(matrix, (rows, np.clip(index, 0, size - 1)), weights)
    return matrix / matrix.sum(1, keepdims=True)


def resize_grid(grid: Float[Array, "h w D"], height: int, width: int, resize: str) -> Float[Array, "H W D"]:
    """Returns learned positions for a grid of `height` x `width` patches."""
    if grid.shape[:2] == (height, width):
        return grid
    vertical, horizontal = (
        jnp.asarray(resize_weights(size, new_size, resize), jnp.float32)
        for size, new_size in zip(grid.shape[:2], (height, width))
    )
    return jnp.einsum("Hh,Ww,hwD->HWD", vertical, horizontal, grid, precision="highest")
