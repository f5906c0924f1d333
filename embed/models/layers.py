"""The pieces every transformer here is made of, each parameter with its logical axes.

Computation runs in `dtype`; parameters, normalisation and the residual stream stay in float32. Products of bfloat16 matrices
leave their float32 accumulator before they are rounded: a bfloat16 result is 4-5 times slower on CPU, and free elsewhere.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from embed.errors import ConfigError
from embed.sharding import constrain

# The standard deviation of a unit normal that is cut at two deviations.
_TRUNCATED_DEVIATION = 0.87962566
Initializer = Callable[..., Array]


def compute_dtype(name: str) -> jnp.dtype:
    """Returns the dtype called `name`; float16 is refused, because Gemma's activations reach 8e5 and overflow it."""
    if name == "float16":
        raise ConfigError(
            "dtype 'float16' overflows (Gemma activations reach 8e5, float16 ends at 65504); use 'bfloat16'"
        )
    if name not in ("float32", "bfloat16"):
        raise ConfigError(f"dtype {name!r}; known: float32, bfloat16")
    return jnp.dtype(name)


def product(equation: str, x: Array, kernel: Array, dtype: jnp.dtype) -> Array:
    """Returns einsum(equation, x, kernel) computed in `dtype` with float32 accumulation."""
    y = jnp.einsum(equation, x.astype(dtype), kernel.astype(dtype), preferred_element_type=jnp.float32)
    return y.astype(dtype)


def fan_in_normal(*input_axes: int) -> Initializer:
    """Returns an initialiser: truncated normal of variance 1 / (product of the input axes' sizes)."""

    def init(rng, shape, dtype=jnp.float32):
        fan_in = 1
        for axis in input_axes:
            fan_in *= shape[axis]
        return jax.random.truncated_normal(rng, -2, 2, shape, dtype) / _TRUNCATED_DEVIATION * fan_in**-0.5

    return init


class Linear(nn.Module):
    """Linear map without bias given as an einsum, e.g. '...D,DHK->...HK'. `axes` are the kernel's logical axes."""

    equation: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    input_axes: tuple[int, ...] = (0,)
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = nn.with_logical_partitioning(fan_in_normal(*self.input_axes), self.axes)
        kernel = self.param("kernel", init, self.shape, jnp.float32)
        return product(self.equation, x, kernel, compute_dtype(self.dtype))


class RMSNorm(nn.Module):
    """x * rsqrt(mean(x^2) + eps) * (1 + scale) over the last axis, in float32. Source: arXiv:1910.07467, Gemma's 1 + scale.

    `gain` is what 1 + scale starts from.
    """

    eps: float = 1e-6
    axis: str = "norm"
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        init = nn.with_logical_partitioning(nn.initializers.constant(self.gain - 1), (self.axis,))
        scale = self.param("scale", init, (x.shape[-1],), jnp.float32)
        x = x.astype(jnp.float32)
        return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + self.eps) * (1 + scale)


class Embedding(nn.Module):
    """Token table [V, D], scaled by sqrt(D) when read."""

    vocab_size: int
    width: int

    @nn.compact
    def __call__(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        init = nn.with_logical_partitioning(nn.initializers.normal(self.width**-0.5), ("vocab", "width"))
        table = self.param("table", init, (self.vocab_size, self.width), jnp.float32)
        # Gathered whole along the width: looked up from a split table, every device would hold the whole batch.
        return jnp.take(constrain(table, "vocab", None), tokens, axis=0) * self.width**0.5


class GatedMLP(nn.Module):
    """down(gelu(gate(x)) * up(x)) with the tanh approximation of GELU and no biases (GeGLU)."""

    width: int
    hidden: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        into = {
            "equation": "BLD,DF->BLF",
            "shape": (self.width, self.hidden),
            "axes": ("width", "mlp"),
            "dtype": self.dtype,
        }
        gate = Linear(**into, name="gate")(x)
        up = Linear(**into, name="up")(x)
        hidden = nn.gelu(gate.astype(jnp.float32), approximate=True).astype(gate.dtype) * up
        return Linear("BLF,FD->BLD", (self.hidden, self.width), ("mlp", "width"), dtype=self.dtype, name="down")(hidden)
