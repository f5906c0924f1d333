"""Parameters of few bits: which arrays are quantised how, and their values while a model is trained for it.

Source: arXiv:2509.20354 s2.3 and table 1 (int4 and int8 in blocks, and a mixture of both with a scale for each channel), and
arXiv:1712.05877 s3 for training with quantised values and straight-through gradients. The arithmetic is that of
`quantized_arrays`; blocks of 32 are our choice, as GGUF's Q4_0 and Q8_0 have them.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from embed import quantized_arrays, ranges
from embed.errors import ConfigError
from embed.models.layers import kernel_inputs
from embed.quantized_arrays import Scheme
from embed.ranges import Size
from embed.trees import flatten, flatten_axes
from embed.types import Params

# Kernels and the token table. Norms, biases, pooling queries and tables of positions and token types stay float32: they are
# small, and GGUF keeps them so.
MATRICES = r"(^|/)kernel$|(^|/)embedding/table$"
_SHOWN = 4  # arrays that a line names


@dataclasses.dataclass(frozen=True)
class Rule:
    """Arrays whose path matches `pattern`, a regular expression, have `bits`, and a scale for each `block_size` inputs.

    `block_size` None is one scale for each output channel.
    """

    pattern: str
    bits: Literal[4, 8]
    block_size: Size | None = None

    def __post_init__(self):
        ranges.check_fields(self)
        try:
            re.compile(self.pattern)
        except re.error as e:
            raise ConfigError(f"Rule.pattern = {self.pattern!r}: not a regular expression ({e})") from e


@dataclasses.dataclass(frozen=True)
class Plan:
    """What becomes of a model's arrays. `refused` says of those that a rule names why they stay float32 all the same."""

    schemes: dict[str, Scheme]
    refused: dict[str, str]

    def lines(self, shapes: Mapping[str, Sequence[int]]) -> list[str]:
        """Returns what a person should know of it; `shapes` are those of all arrays by their paths."""
        total = sum(map(math.prod, shapes.values()))
        counts = {bits: [math.prod(shapes[p]) for p, s in self.schemes.items() if s.bits == bits] for bits in (4, 8)}
        parts = [
            f"{len(sizes)} arrays ({sum(sizes) / total:.1%} of the parameters) in {bits} bits"
            for bits, sizes in counts.items()
            if sizes
        ]
        size = stored_bytes(shapes, self.schemes)
        lines = [f"{', '.join(parts)}, the rest in float32: {size / (4 * total):.3f} of the size of float32"]
        if self.refused:
            reasons = [f"{path} {reason}" for path, reason in self.refused.items()]
            more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
            lines.append(f"stay float32: {'; '.join(reasons[:_SHOWN])}{more}")
        return lines


@dataclasses.dataclass(frozen=True)
class Quantization:
    """Which arrays of a model are quantised how: for each the first of `rules` that its path matches; without one it stays float32.

    Paths are those of a checkpoint, such as encoder/stack/layers/mlp/up/kernel.
    """

    rules: Sequence[Rule]

    @property
    def name(self) -> str:
        """The name in `PRESETS`, or 'custom'."""
        return next((name for name, preset in PRESETS.items() if preset().rules == tuple(self.rules)), "custom")

    def describe(self) -> dict[str, Any]:
        """Returns it as JSON, with the name that people know it by."""
        return {"name": self.name, "rules": [dataclasses.asdict(rule) for rule in self.rules]}

    def plan(self, params: Params, axes: Params) -> Plan:
        """Returns what becomes of parameters with these shapes and logical axes. ConfigError where nothing is quantised."""
        arrays, axes_of = flatten(params), flatten_axes(axes)
        schemes, refused = {}, {}
        for path, x in arrays.items():
            rule = next((rule for rule in self.rules if re.search(rule.pattern, path)), None)
            if rule is None:
                continue
            reason = _no_matrix(axes_of[path])
            if reason is None:
                scheme = Scheme(rule.bits, rule.block_size, _inputs(path, axes_of[path]))
                count = scheme.num_inputs(x.shape)
                if count % (rule.block_size or 1):
                    reason = f"has {count} inputs, not a multiple of {rule.block_size}"
            if reason is None:
                schemes[path] = scheme
            else:
                refused[path] = reason
        if not schemes:
            reasons = "; ".join(f"{path} {reason}" for path, reason in list(refused.items())[:_SHOWN])
            raise ConfigError(
                f"the quantisation {self.name!r} changes nothing: "
                + (reasons or f"no path matches its rules; they are like {', '.join(list(arrays)[:_SHOWN])}")
                + "; use other rules"
            )
        return Plan(schemes, refused)


def from_description(description: Mapping[str, Any]) -> Quantization:
    """Returns the quantisation that `Quantization.describe` described."""
    return Quantization(tuple(Rule(**rule) for rule in description["rules"]))


def int4_blocks() -> Quantization:
    """Returns 4 bits in blocks of 32 inputs for every kernel and the token table: GGUF's Q4_0."""
    return Quantization((Rule(MATRICES, 4, 32),))


def int8_blocks() -> Quantization:
    """Returns 8 bits in blocks of 32 inputs for every kernel and the token table: GGUF's Q8_0."""
    return Quantization((Rule(MATRICES, 8, 32),))


def mixed_channels() -> Quantization:
    """Returns a scale for each output channel: 8 bits for attention, in pooling too, 4 for the rest."""
    return Quantization((Rule(r"(attention|pooling)/\w+/kernel$", 8), Rule(MATRICES, 4)))


PRESETS: dict[str, Callable[[], Quantization]] = {
    "int8_blocks": int8_blocks,
    "int4_blocks": int4_blocks,
    "mixed_channels": mixed_channels,
}


def _no_matrix(axes: Sequence[str | None]) -> str | None:
    """Returns why an array with these logical axes is no matrix of known inputs, or None where it is one."""
    if len(axes) - (axes[:1] == ("layers",)) < 2:
        return "is no matrix"
    return "names no axes that tell its inputs" if len(axes) > 2 and None in axes else None


def _inputs(path: str, axes: Sequence[str | None]) -> tuple[int, ...]:
    """Returns the axes along which blocks lie: the inputs of a kernel, the width of a table."""
    if path.endswith("table"):
        return (len(axes) - 1,)
    return kernel_inputs(axes)


def fake_quantize(params: Params, schemes: Mapping[str, Scheme]) -> Params:
    """Returns the parameters with the values that quantised ones have.

    The gradient goes straight through: it is that of the identity, and zero for a value outside of the range. The scales have
    none. What has no scheme is itself.
    """
    paths = iter(flatten(params))
    return jax.tree.map(lambda x: _rounded(x, schemes[p]) if (p := next(paths)) in schemes else x, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _rounded(x: jax.Array, scheme: Scheme) -> jax.Array:
    return _rounded_forward(x, scheme)[0]


def _rounded_forward(x, scheme):
    codes, scales, is_inside = quantized_arrays.quantize(x, scheme, jnp)
    return quantized_arrays.dequantize(codes, scales, x.shape).astype(x.dtype), is_inside.reshape(x.shape)


def _rounded_backward(scheme, is_inside, cotangent):
    del scheme
    return (jnp.where(is_inside, cotangent, 0),)


_rounded.defvjp(_rounded_forward, _rounded_backward)


def stored_bytes(shapes: Mapping[str, Sequence[int]], schemes: Mapping[str, Scheme]) -> int:
    """Returns the bytes of arrays of these shapes: packed by their schemes, the others in float32."""
    return sum(schemes[p].stored_bytes(shape) if p in schemes else 4 * math.prod(shape) for p, shape in shapes.items())
