"""Several losses as one."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Array, Float

from embed import ranges
from embed.errors import ConfigError, did_you_mean
from embed.ranges import NonNegative
from embed.types import Metrics, PairEmbeddings, Params


@dataclasses.dataclass(frozen=True)
class Total:
    """Weighted sum of named losses. A weight is a number, or a schedule: a function of the step, such as those of optax.

    Weights default to one: EmbeddingGemma (arXiv:2509.20354 s2.2) publishes none.
    """

    losses: Mapping[str, Any]
    weights: Mapping[str, NonNegative | Callable[[Any], Any]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        ranges.check_fields(self)
        for name in self.weights:
            if name not in self.losses:
                raise ConfigError(f"Total.weights: no loss {name!r}{did_you_mean(name, self.losses)}")

    def init(self) -> Params:
        """Returns {name: parameters} of the losses that have some."""
        params = {name: loss.init() for name, loss in self.losses.items()}
        return {name: p for name, p in params.items() if p}

    def __call__(
        self, pairs: PairEmbeddings, params: Params | None = None, step: Any = 0
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the sum, and every part's value and metrics under its name; a scheduled weight as `NAME/weight`."""
        total, metrics = 0.0, {}
        for name, loss in self.losses.items():
            value, loss_metrics = loss(pairs, (params or {}).get(name), step)
            weight = self.weights.get(name, 1.0)
            if callable(weight):
                weight = weight(step)
                loss_metrics = {**loss_metrics, "weight": weight}
            total = total + weight * value
            metrics |= {name: value, **{f"{name}/{metric}": x for metric, x in loss_metrics.items()}}
        return total, metrics
