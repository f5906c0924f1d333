"""Weights rounded as a smaller file would hold them, to measure what that costs. The arrays stay float32."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from embed.errors import UsageError, did_you_mean
from embed.models.quantization import PRESETS, fake_quantize, stored_bytes
from embed.quantized_arrays import Scheme
from embed.trees import flatten
from embed.types import Params

KINDS = ("float32", "bfloat16", *PRESETS)


def check(kind: str) -> None:
    """Raises UsageError unless `kind` is one of KINDS."""
    if kind not in KINDS:
        raise UsageError(f"weights {kind!r}{did_you_mean(kind, KINDS)}")


def rounded(params: Params, kind: str, axes: Params) -> Params:
    """Returns the parameters, with these logical axes, as `kind` holds them.

    'bfloat16' rounds all of them. The others are those of `models.quantization`, and leave norms and biases as they are.
    """
    check(kind)
    if kind == "float32":
        return params
    if kind == "bfloat16":
        return jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), params)
    schemes = PRESETS[kind]().plan(params, axes).schemes
    return jax.jit(lambda params: fake_quantize(params, schemes))(params)


def notes(params: Params, kind: str, axes: Params) -> list[str]:
    """Returns what a person should know of what `rounded` does to parameters of these shapes."""
    if kind not in PRESETS:
        return []
    return PRESETS[kind]().plan(params, axes).lines({path: x.shape for path, x in flatten(params).items()})


def size(params: Params, kind: str, axes: Params, packed: Mapping[str, Scheme]) -> int:
    """Returns the bytes of the parameters in a file of `kind`; `packed` are the schemes that their own file has."""
    shapes = {path: x.shape for path, x in flatten(params).items()}
    if kind == "bfloat16":
        return stored_bytes(shapes, {}) // 2
    return stored_bytes(shapes, PRESETS[kind]().plan(params, axes).schemes if kind in PRESETS else packed)
