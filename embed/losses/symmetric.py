"""A loss in both directions: of images and their captions, and of captions and their images."""

import dataclasses
from typing import Any

from jaxtyping import Array, Float

from embed.errors import ConfigError
from embed.types import Metrics, PairEmbeddings, Params, needs_of


@dataclasses.dataclass(frozen=True)
class Symmetric:
    """The mean of `loss` of the pairs and of the pairs exchanged. Its parameters, such as a learned temperature, are shared.

    Source: arXiv:2103.00020 s2.3. Pairs have no hard negatives here, which belong to one side.
    """

    loss: Any

    def __post_init__(self):
        if needs := needs_of(self.loss):
            raise ConfigError(
                f"Symmetric.loss needs {', '.join(needs)}, which one side of a pair has; use it by itself"
            )

    def init(self) -> Params:
        """Returns the parameters of `loss`."""
        return self.loss.init()

    def __call__(
        self, pairs: PairEmbeddings, params: Params | None = None, step: Any = 0
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the mean, the metrics of the pairs as they are, and the accuracy of the exchanged ones as `accuracy_back`."""
        if pairs.negatives is not None:
            raise ConfigError(
                "Symmetric: pairs have hard negatives, which belong to one side; set Recipe.num_negatives = 0"
            )
        exchanged = PairEmbeddings(
            pairs.target, pairs.query, query_id=pairs.target_id, target_id=pairs.query_id, score=pairs.score
        )
        value, metrics = self.loss(pairs, params, step)
        back, metrics_back = self.loss(exchanged, params, step)
        both = {"accuracy_back": metrics_back["accuracy"]} if "accuracy" in metrics_back else {}
        return (value + back) / 2, {**metrics, **both}
