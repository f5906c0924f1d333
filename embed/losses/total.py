"""Several losses as one."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float

from embed import ranges
from embed.errors import ConfigError, did_you_mean
from embed.ranges import NonNegative
from embed.types import Metrics, PairEmbeddings, Params


@dataclasses.dataclass(frozen=True)
class Total:
    """Weighted sum of named losses; weights default to one (EmbeddingGemma publishes none)."""

    losses: Mapping[str, Any]
    weights: Mapping[str, NonNegative] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        ranges.check_fields(self)
        for name in self.weights:
            if name not in self.losses:
                raise ConfigError(f"Total.weights: no loss {name!r}{did_you_mean(name, self.losses)}")

    def init(self) -> Params:
        """Returns {name: parameters} of the losses that have some."""
        params = {name: loss.init() for name, loss in self.losses.items()}
        return {name: p for name, p in params.items() if p}

    def __call__(self, pairs: PairEmbeddings, params: Params | None = None) -> tuple[Float[Array, ""], Metrics]:
        """Returns the sum, and every part's value and metrics under its name."""
        total, metrics = 0.0, {}
        for name, loss in self.losses.items():
            value, loss_metrics = loss(pairs, (params or {}).get(name))
            total = total + self.weights.get(name, 1.0) * value
            metrics |= {name: value, **{f"{name}/{metric}": x for metric, x in loss_metrics.items()}}
        return total, metrics
