"""Losses of pairs of texts with a score of each pair: those with a higher score are to be nearer."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from embed import ranges
from embed.errors import ConfigError
from embed.losses.contrastive import num_chunks
from embed.ranges import Positive
from embed.sharding import split_batch
from embed.types import Metrics, PairEmbeddings, Params
from embed.vectors import normalize

_NEVER = -1e9  # a term that adds nothing; finite, so that gradients are


@dataclasses.dataclass(frozen=True)
class CoSENT:
    """Every two pairs of the batch in the order of their scores, by the cosines of query and target.

    L = log(1 + sum over i, j with score_i < score_j of e^(scale (s_i - s_j))), where s is the cosine of a pair. Needs the role
    `score`. Source: J. Su, CoSENT, 2022 (kexue.fm/archives/8847); `scale` 20 is the default of sentence-transformers.
    """

    scale: Positive = 20.0
    needs: ClassVar[tuple[str, ...]] = ("score",)

    def __post_init__(self):
        ranges.check_fields(self)

    def init(self) -> Params:
        """Returns {}: nothing is learned."""
        return {}

    def similarity(self, pairs: PairEmbeddings) -> Float[Array, " B"]:
        """Returns the cosine of each query and its target."""
        return jnp.sum(pairs.query * pairs.target, -1)

    def __call__(
        self, pairs: PairEmbeddings, params: Params | None = None, step: Any = 0
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss, and what to report: `ordered`, the share of two pairs with different scores that are in their order,
        and `similarity`, the mean over the batch."""
        del params, step
        if pairs.score is None:
            raise ConfigError(
                f"{type(self).__name__} needs the score of each pair; map the role 'score' in the sources"
            )
        similarity, score = self.similarity(pairs.map(normalize)), pairs.score
        chunks = num_chunks(len(score))
        compare = jax.checkpoint(lambda rows: self._compare(*rows, similarity, score))
        rows = (split_batch(similarity, chunks), split_batch(score, chunks))
        sums, ordered, count = jax.lax.map(compare, rows) if chunks > 1 else compare((similarity, score))
        loss = jax.nn.logsumexp(jnp.append(jnp.ravel(sums), 0.0))
        share = jnp.sum(ordered) / jnp.maximum(jnp.sum(count), 1)
        return loss, {"ordered": share, "similarity": jnp.mean(similarity)}

    def _compare(self, own_similarity, own_score, similarity, score):
        """Returns, for some pairs compared with all, the logarithms of their sums, and how many are in order, of how many."""
        is_lower = own_score[:, None] < score[None, :]
        difference = own_similarity[:, None] - similarity[None, :]
        sums = jax.nn.logsumexp(jnp.where(is_lower, self.scale * difference, _NEVER), axis=1)
        return sums, jnp.sum(is_lower & (difference < 0)), jnp.sum(is_lower)


@dataclasses.dataclass(frozen=True)
class AnglE(CoSENT):
    """As `CoSENT`, by the angle between query and target in complex space in place of their cosine.

    The halves of an embedding are the real and the imaginary parts of E/2 complex numbers; the similarity is |sum of the real and
    imaginary parts of query / target|, whose gradient does not vanish where the cosine's does. Source: arXiv:2309.12871 s3.4,
    without its other two terms, which `losses.total.Total` adds.
    """

    def similarity(self, pairs: PairEmbeddings) -> Float[Array, " B"]:
        """Returns the angle similarity of each query and its target."""
        if pairs.query.shape[-1] % 2:
            raise ConfigError(f"AnglE needs embeddings of an even size, not {pairs.query.shape[-1]}")
        a, b = jnp.split(pairs.query, 2, axis=-1)
        c, d = jnp.split(pairs.target, 2, axis=-1)
        return jnp.abs(jnp.sum(a * c + b * d, -1) + jnp.sum(b * c - a * d, -1))
