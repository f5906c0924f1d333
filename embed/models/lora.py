"""Low-rank adapters: small factors beside some kernels of a model that does not learn itself. Source: arXiv:2106.09685.

The adapted kernel is kernel + alpha / rank * a b. Factors are {path of the kernel: {"a": [inputs, rank], "b": [rank, outputs]}}
as nested dicts, with the layers of a stack in front.
"""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp

from embed import ranges
from embed.errors import ConfigError
from embed.models.layers import kernel_inputs
from embed.ranges import Size
from embed.trees import flatten, flatten_axes, unflatten
from embed.types import Params


@dataclasses.dataclass(frozen=True)
class Lora:
    """Adapters of `rank` on every kernel whose path matches `pattern`, a regular expression; `alpha` scales what they add."""

    pattern: str = r"attention/(query|key|value|output)/kernel|mlp/(gate|up|down)/kernel"
    rank: Size = 16
    alpha: float = 32.0

    def __post_init__(self):
        ranges.check_fields(self)
        try:
            re.compile(self.pattern)
        except re.error as e:
            raise ConfigError(f"Lora.pattern = {self.pattern!r}: not a regular expression ({e})") from e

    def init(self, key, params: Params, axes: Params) -> Params:
        """Returns the first factors for a model of these parameters and logical axes: a at random, b zero."""
        factors = {}
        for number, (path, (lead, inputs, outputs)) in enumerate(self._splits(params, axes).items()):
            a = jax.random.normal(jax.random.fold_in(key, number), (*lead, inputs, self.rank))
            factors[f"{path}/a"] = a * inputs**-0.5
            factors[f"{path}/b"] = jnp.zeros((*lead, self.rank, outputs))
        return unflatten(factors)

    def axes(self, params: Params, axes: Params) -> Params:
        """Returns the logical axes of the factors: every device holds them whole."""
        splits = self._splits(params, axes)
        return unflatten(
            {
                f"{path}/{factor}": ("norm",) * (len(lead) + 2)
                for path, (lead, _, _) in splits.items()
                for factor in "ab"
            }
        )

    def merge(self, params: Params, factors: Params) -> Params:
        """Returns the parameters with what the factors add."""
        leaves, added = flatten(params), flatten(factors)
        merged = dict(leaves)
        for path in [path.removesuffix("/a") for path in added if path.endswith("/a")]:
            product = jnp.matmul(added[f"{path}/a"], added[f"{path}/b"], precision="highest")
            merged[path] = leaves[path] + (self.alpha / self.rank * product).reshape(leaves[path].shape)
        return unflatten(merged)

    def _splits(self, params: Params, axes: Params) -> dict[str, tuple[tuple[int, ...], int, int]]:
        """Returns {path: (stacked layers, inputs, outputs)} of the kernels that are adapted; none is a ConfigError."""
        shapes, axes_of = flatten(params), flatten_axes(axes)
        kernels = [path for path in shapes if path.endswith("kernel")]
        splits = {p: _split(axes_of[p], shapes[p].shape) for p in kernels if re.search(self.pattern, p)}
        if not splits:
            raise ConfigError(
                f"Lora.pattern = {self.pattern!r} matches no kernel; they are like {', '.join(kernels[:4])}"
            )
        return splits


def _split(axes: tuple, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int, int]:
    """Returns (stacked layers, inputs, outputs) of a kernel."""
    inputs = kernel_inputs(axes)
    first, behind = inputs[0], inputs[-1] + 1
    return shape[:first], math.prod(shape[first:behind]), math.prod(shape[behind:])
