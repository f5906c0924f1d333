"""Low-rank adapters: a frozen model learns through small factors beside some of its kernels. Source: arXiv:2106.09685.

The training parameters are {"base": the model's own, "lora": the factors}. What is saved, evaluated, averaged and exported
is the merged model, kernel + alpha / rank * a b, which nothing else has to know about.
"""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp

from embed import ranges
from embed.arrays import unflatten
from embed.checkpoints import flatten
from embed.errors import ConfigError
from embed.ranges import Size
from embed.types import Model, Params

BASE, FACTORS = "base", "lora"


@dataclasses.dataclass(frozen=True)
class Lora:
    """Adapters of `rank` on every kernel whose path holds `pattern` (a regular expression); `alpha` scales what they add."""

    pattern: str = r"attention/(query|key|value|output)/kernel|mlp/(gate|up|down)/kernel"
    rank: Size = 16
    alpha: float = 32.0

    def __post_init__(self):
        ranges.check_fields(self)
        try:
            re.compile(self.pattern)
        except re.error as e:
            raise ConfigError(f"Lora.pattern = {self.pattern!r}: not a regular expression ({e})") from e

    def adapt(self, model: Model) -> Model:
        """Returns the model whose factors learn and whose base does not."""
        shapes = flatten(jax.eval_shape(model.init, jax.random.key(0)))
        axes = flatten_axes(model.axes)
        splits = {
            path: _split(axes[path], shapes[path].shape)
            for path in shapes
            if path.endswith("kernel") and re.search(self.pattern, path)
        }
        if not splits:
            kernels = [p for p in shapes if p.endswith("kernel")]
            raise ConfigError(
                f"Lora.pattern = {self.pattern!r} matches no kernel; they are like {', '.join(kernels[:4])}"
            )

        def init(rng):
            factors = {}
            for number, (path, (lead, inputs, outputs)) in enumerate(splits.items()):
                key = jax.random.fold_in(rng, number)
                factors[f"{path}/a"] = jax.random.normal(key, (*lead, inputs, self.rank)) * inputs**-0.5
                factors[f"{path}/b"] = jnp.zeros((*lead, self.rank, outputs))
            return {BASE: model.init(rng), FACTORS: unflatten(factors)}

        def merge(params: Params) -> Params:
            leaves, factors = flatten(params[BASE]), flatten(params[FACTORS])
            merged = dict(leaves)
            for path in splits:
                added = jnp.matmul(factors[f"{path}/a"], factors[f"{path}/b"], precision="highest")
                merged[path] = leaves[path] + (self.alpha / self.rank * added).reshape(leaves[path].shape)
            return unflatten(merged)

        def apply(params, tokens, segment_ids, rng=None, max_segments=None):
            frozen = jax.tree.map(jax.lax.stop_gradient, params[BASE])
            return model.apply(merge({**params, BASE: frozen}), tokens, segment_ids, rng, max_segments)

        whole = {f"{path}/{f}": ("norm",) * (len(s[0]) + 2) for path, s in splits.items() for f in "ab"}
        return dataclasses.replace(
            model,
            init=init,
            apply=apply,
            axes={BASE: model.axes, FACTORS: unflatten(whole)},
            frozen=BASE,
            serving=merge,
        )


def flatten_axes(axes: Params) -> dict[str, tuple]:
    """Returns {path: logical axes} of a model's axes."""
    leaves = jax.tree_util.tree_flatten_with_path(axes, is_leaf=lambda x: isinstance(x, tuple))[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _split(axes: tuple, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int, int]:
    """Returns (stacked layers, inputs, outputs) of a kernel. It leads from the width or back to it: the width stands alone."""
    lead = shape[:1] if axes[0] == "layers" else ()
    names, sizes = axes[len(lead) :], shape[len(lead) :]
    if names[-1] == "width":
        return lead, math.prod(sizes[:-1]), sizes[-1]
    return lead, sizes[0], math.prod(sizes[1:])
