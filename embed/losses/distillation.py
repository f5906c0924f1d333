"""Losses that learn from a teacher's scores."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from embed import ranges
from embed.errors import ConfigError
from embed.ranges import Positive
from embed.types import Metrics, PairEmbeddings, Params
from embed.vectors import normalize


@dataclasses.dataclass(frozen=True)
class MarginMSE:
    """The squared error of a query's margins, each the score of its target minus that of one of its hard negatives.

    L = mean over the hard negatives of ((s(q,p) - s(q,n)) scale - margin of the teacher)^2, where s is the cosine. Needs the role
    `scores`: the teacher's scores of the target and of every negative, or its margins (`data.features.Scores`). A teacher whose
    scores are not cosines wants a `scale`. Source: arXiv:2010.02666 eq. 5.
    """

    scale: Positive = 1.0
    needs: ClassVar[tuple[str, ...]] = ("scores",)

    def __post_init__(self):
        ranges.check_fields(self)

    def init(self) -> Params:
        """Returns {}: nothing is learned."""
        return {}

    def __call__(self, pairs: PairEmbeddings, params: Params | None = None) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss, and what to report: `margin` and `teacher_margin`, means over the hard negatives."""
        del params
        if pairs.scores is None:
            raise ConfigError("MarginMSE needs the teacher's scores; map the role 'scores' in the sources")
        if pairs.negatives is None:
            raise ConfigError("MarginMSE needs hard negatives; map the role 'negatives' and set Recipe.num_negatives")
        pairs = pairs.map(normalize)
        positive = jnp.sum(pairs.query * pairs.target, -1, keepdims=True)
        hard = jnp.einsum("BE,BNE->BN", pairs.query, pairs.negatives, precision="highest")
        margin, teacher = self.scale * (positive - hard), pairs.scores[:, :1] - pairs.scores[:, 1:]
        is_there = jnp.ones(hard.shape, bool) if pairs.negatives_mask is None else pairs.negatives_mask
        count = jnp.maximum(jnp.sum(is_there), 1)

        def mean(x):
            return jnp.sum(jnp.where(is_there, x, 0.0)) / count

        return mean((margin - teacher) ** 2), {"margin": mean(margin), "teacher_margin": mean(teacher)}
