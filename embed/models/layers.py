"""The pieces every transformer here is made of, each parameter with its logical axes.

Computation runs in `dtype`; parameters, normalisation and the residual stream stay in float32. Products of bfloat16 matrices
leave their float32 accumulator before they are rounded: a bfloat16 result is 4-5 times slower on CPU, and free elsewhere.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from embed.errors import ConfigError, did_you_mean
from embed.sharding import constrain

# The standard deviation of a unit normal that is cut at two deviations.
_TRUNCATED_DEVIATION = 0.87962566
Initializer = Callable[..., Array]
PRODUCT = "product"  # the name of what linear maps return, by which `transformer.REMAT` keeps it

ACTIVATIONS = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),
    "silu": nn.silu,
    "relu": nn.relu,
}


def kernel_inputs(axes: Sequence[str | None]) -> tuple[int, ...]:
    """Returns which axes of a kernel with these logical axes are summed over.

    A kernel leads from the width or back to it, and the width stands alone. Stacks of layers are in front of both; layers in
    periods are stacked twice.
    """
    first = next(i for i, name in enumerate(axes) if name != "layers")
    return tuple(range(first, len(axes) - 1)) if axes[-1] == "width" else (first,)


def compute_dtype(name: str) -> jnp.dtype:
    """Returns the dtype called `name`; float16 is refused, because Gemma's activations reach 8e5 and overflow it."""
    if name == "float16":
        raise ConfigError(
            "dtype 'float16' overflows (Gemma activations reach 8e5, float16 ends at 65504); use 'bfloat16'"
        )
    if name not in ("float32", "bfloat16"):
        raise ConfigError(f"dtype {name!r}; known: float32, bfloat16")
    return jnp.dtype(name)


def activation(name: str) -> Callable[[Array], Array]:
    """Returns the activation called `name`; 'gelu' is the exact one, 'gelu_tanh' its approximation."""
    if name not in ACTIVATIONS:
        raise ConfigError(f"activation {name!r}{did_you_mean(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]


def product(equation: str, x: Array, kernel: Array, dtype: jnp.dtype) -> Array:
    """Returns einsum(equation, x, kernel) of operands in `dtype`, as the float32 it is accumulated in.

    So are its gradients: the cotangent is rounded to `dtype` like the operands, and what comes out of the products is not.
    Left to itself, JAX multiplies the float32 cotangent with the rounded operand, at a quarter of the speed or less. Every
    letter of an operand must be in the other one or in the result.
    """
    if dtype == jnp.float32:
        return jnp.einsum(equation, x.astype(dtype), kernel.astype(dtype), preferred_element_type=jnp.float32)
    types = tuple(jnp.dtype(t).name for t in (dtype, x.dtype, kernel.dtype))
    return _rounded_product(equation, types, x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _rounded_product(equation: str, types: tuple[str, str, str], x: Array, kernel: Array) -> Array:
    """`types` are those of computation, of x, and of the kernel."""
    return jnp.einsum(equation, x.astype(types[0]), kernel.astype(types[0]), preferred_element_type=jnp.float32)


def _rounded_product_forward(equation, types, x, kernel):
    # Of x the rounded copy is kept, which is half as large; the kernel is a parameter, which is there anyway.
    return _rounded_product(equation, types, x, kernel), (x.astype(types[0]), kernel)


def _rounded_product_backward(equation, types, operands, cotangent):
    x, kernel = operands
    dtype, of_x, of_kernel = types
    inputs, out = equation.split("->")
    left, right = inputs.split(",")
    cotangent = cotangent.astype(dtype)
    multiply = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    by_x = multiply(f"{out},{right}->{left}", cotangent, kernel.astype(dtype))
    by_kernel = multiply(f"{left},{out}->{right}", x, cotangent)
    return by_x.astype(of_x), by_kernel.astype(of_kernel)


_rounded_product.defvjp(_rounded_product_forward, _rounded_product_backward)


def fan_in_normal(*input_axes: int) -> Initializer:
    """Returns an initialiser: truncated normal of variance 1 / (product of the input axes' sizes)."""

    def init(rng, shape, dtype=jnp.float32):
        fan_in = 1
        for axis in input_axes:
            fan_in *= shape[axis]
        return jax.random.truncated_normal(rng, -2, 2, shape, dtype) / _TRUNCATED_DEVIATION * fan_in**-0.5

    return init


class Linear(nn.Module):
    """Linear map given as an einsum, e.g. '...D,DHK->...HK'. `axes` are the kernel's logical axes.

    The axes that are not `input_axes` are the result's; with `bias` one of their shape is added. What goes into the float32
    residual stream is not rounded to `dtype` before (`to_residual`).
    """

    equation: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    input_axes: tuple[int, ...] = (0,)
    bias: bool = False
    dtype: str = "float32"
    to_residual: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        dtype = compute_dtype(self.dtype)
        init = nn.with_logical_partitioning(fan_in_normal(*self.input_axes), self.axes)
        kernel = self.param("kernel", init, self.shape, jnp.float32)
        y = product(self.equation, x, kernel, dtype)
        if self.bias:
            kept = [i for i in range(len(self.shape)) if i not in self.input_axes]
            init = nn.with_logical_partitioning(nn.initializers.zeros, tuple(self.axes[i] for i in kept))
            y = y + self.param("bias", init, tuple(self.shape[i] for i in kept), jnp.float32)
        return checkpoint_name(y if self.to_residual else y.astype(dtype), PRODUCT)


def unit_rms(x: Array, eps: float) -> Float[Array, "... D"]:
    """Returns x * rsqrt(mean(x^2) + eps) over the last axis, in float32. Source: arXiv:1910.07467."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + eps)


class RMSNorm(nn.Module):
    """x * rsqrt(mean(x^2) + eps) * (offset + scale) over the last axis, in float32. Source: arXiv:1910.07467.

    `offset` 1 is Gemma's, 0 everybody else's. `gain` is what offset + scale starts from.
    """

    eps: float = 1e-6
    axis: str = "norm"
    gain: float = 1.0
    offset: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        init = nn.with_logical_partitioning(nn.initializers.constant(self.gain - self.offset), (self.axis,))
        scale = self.param("scale", init, (x.shape[-1],), jnp.float32)
        return unit_rms(x, self.eps) * (self.offset + scale)


class LayerNorm(nn.Module):
    """(x - mean) * rsqrt(variance + eps) * scale + bias over the last axis, in float32. Source: arXiv:1607.06450."""

    eps: float = 1e-12
    axis: str = "norm"
    gain: float = 1.0
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        size = (x.shape[-1],)
        init = nn.with_logical_partitioning(nn.initializers.constant(self.gain), (self.axis,))
        scale = self.param("scale", init, size, jnp.float32)
        x = x.astype(jnp.float32)
        x = x - jnp.mean(x, -1, keepdims=True)
        y = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + self.eps) * scale
        if not self.bias:
            return y
        init = nn.with_logical_partitioning(nn.initializers.zeros, (self.axis,))
        return y + self.param("bias", init, size, jnp.float32)


def project(x: Float[Array, "... D"], sizes: Sequence[int]) -> list[Float[Array, "... _"]]:
    """Returns `x` and what each linear map `projection_0`, `projection_1`, ... makes of it; called inside `__call__`.

    The maps have no biases. A wide inner size is split over `tensor`; the embedding is whole everywhere.
    """
    steps = [x]
    for i, size in enumerate(sizes):
        axes = ("width" if i == 0 else "hidden", "hidden" if i + 1 < len(sizes) else "embedding")
        linear = Linear("...D,DE->...E", (steps[-1].shape[-1], size), axes, name=f"projection_{i}")
        steps.append(linear(steps[-1]))
    return steps


class LayerScale(nn.Module):
    """Multiplies the last axis by a learned vector that starts at `value`, in float32. Source: arXiv:2103.17239."""

    value: float

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        init = nn.with_logical_partitioning(nn.initializers.constant(self.value), ("norm",))
        return x * self.param("scale", init, (x.shape[-1],), jnp.float32)


@dataclasses.dataclass(frozen=True)
class Norm:
    """Which normalisation a family uses: 'rms' (scale), 'rms_offset' (1 + scale), 'layer' (scale, and a bias if `bias`)."""

    kind: str
    eps: float
    bias: bool = False

    def make(self, name: str, *, axis: str = "norm", gain: float = 1.0) -> nn.Module:
        """Returns the module called `name`."""
        if self.kind == "layer":
            return LayerNorm(self.eps, axis, gain, self.bias, name=name)
        return RMSNorm(self.eps, axis, gain, {"rms": 0.0, "rms_offset": 1.0}[self.kind], name=name)


class Embedding(nn.Module):
    """Token table [V, D], multiplied by `scale` when read."""

    vocab_size: int
    width: int
    scale: float = 1.0

    @nn.compact
    def __call__(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        init = nn.with_logical_partitioning(nn.initializers.normal(self.width**-0.5), ("vocab", "width"))
        table = self.param("table", init, (self.vocab_size, self.width), jnp.float32)
        # Gathered whole along the width: looked up from a split table, every device would hold the whole batch.
        x = jnp.take(constrain(table, "vocab", None), tokens, axis=0).astype(jnp.float32)
        return x if self.scale == 1 else x * self.scale


class MLP(nn.Module):
    """down(act(gate(x)) * up(x)) when `gated` (arXiv:2002.05202), else down(act(up(x)))."""

    width: int
    hidden: int
    activation: str
    gated: bool
    bias: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        act = activation(self.activation)
        common = {"bias": self.bias, "dtype": self.dtype}
        into = {"equation": "BLD,DF->BLF", "shape": (self.width, self.hidden), "axes": ("width", "mlp"), **common}
        up = Linear(**into, name="up")(x)
        first = Linear(**into, name="gate")(x) if self.gated else up
        hidden = act(first.astype(jnp.float32)).astype(up.dtype)
        hidden = hidden * up if self.gated else hidden
        axes = ("mlp", "width")
        return Linear("BLF,FD->BLD", (self.hidden, self.width), axes, **common, to_residual=True, name="down")(hidden)
