"""Several losses as one."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float

from embed import ranges
from embed.errors import ConfigError, did_you_mean
from embed.ranges import NonNegative
from embed.types import Metrics, Outputs


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

    def __call__(self, outputs: Outputs) -> tuple[Float[Array, ""], Metrics]:
        """Returns the sum, and every part's value and metrics under its name."""
        total, metrics = 0.0, {}
        for name, loss in self.losses.items():
            value, own = loss(outputs)
            total = total + self.weights.get(name, 1.0) * value
            metrics |= {name: value, **{f"{name}/{k}": v for k, v in own.items()}}
        return total, metrics
