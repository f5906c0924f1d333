"""Matryoshka training: the same loss on several prefixes of the embedding, added without weights."""

import dataclasses
from typing import Any

from jaxtyping import Array, Float

from embed import ranges
from embed.errors import ConfigError
from embed.ranges import NonNegative, Size
from embed.types import INTERMEDIATE, Metrics, PairEmbeddings, Params, needs_of
from embed.vectors import truncate


@dataclasses.dataclass(frozen=True)
class Matryoshka:
    """Sum over `dims` of `loss` on prefixes scaled back to unit length. Source: arXiv:2205.13147; arXiv:2503.07891 s3.2.

    `weights` default to one each, as both papers add the terms.
    """

    loss: Any
    dims: tuple[Size, ...]
    weights: tuple[NonNegative, ...] | None = None

    def __post_init__(self):
        ranges.check_fields(self)
        if not self.dims or len(set(self.dims)) != len(self.dims):
            raise ConfigError(f"Matryoshka.dims = {self.dims}; give different positive sizes")
        if self.weights is not None and len(self.weights) != len(self.dims):
            raise ConfigError(
                f"Matryoshka.weights has {len(self.weights)} values for {len(self.dims)} dims; give one each"
            )
        if any(name.endswith(INTERMEDIATE) for name in needs_of(self.loss)):
            raise ConfigError(
                "Matryoshka.loss learns from the intermediate embedding, which has no prefixes here; put that loss beside "
                "Matryoshka in losses.total.Total"
            )

    def init(self) -> Params:
        """Returns the parameters of `loss`, which all prefixes share."""
        return self.loss.init()

    def __call__(
        self, pairs: PairEmbeddings, params: Params | None = None, step: Any = 0
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the sum, the metrics of the largest size, and each size's loss as `loss@dim`."""
        size = pairs.query.shape[-1]
        if max(self.dims) > size:
            raise ConfigError(f"Matryoshka.dims = {self.dims}, but the embedding has {size} values; make them fit")
        total, metrics = 0.0, {}
        weights = self.weights or (1.0,) * len(self.dims)
        for dim, weight in sorted(zip(self.dims, weights)):
            value, loss_metrics = self.loss(pairs.map(lambda x, dim=dim: truncate(x, dim)), params, step)
            total = total + weight * value
            metrics = {**metrics, **loss_metrics, f"loss@{dim}": value}
        return total, metrics
