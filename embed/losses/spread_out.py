"""The spread-out regulariser: items of one tower that are not the same lie apart on the sphere."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from embed import ranges
from embed.errors import ConfigError
from embed.losses.contrastive import num_chunks, same
from embed.ranges import NonNegative
from embed.sharding import split_batch
from embed.types import Metrics, PairEmbeddings, Params
from embed.vectors import normalize


@dataclasses.dataclass(frozen=True)
class SpreadOut:
    """The second moment of the cosines within a tower, summed over `towers`. Source: arXiv:2509.20354 eq. 4.

        L = sum over towers of  1/(B(B-1)) sum over i != j of (x_i . x_j)^2

    Vectors that are uniform on the sphere have 1/E in each tower. Truncated and quantised embeddings then lose less. Two equal
    items of a tower are not compared, and not counted: their cosine is 1 whatever the model does. The paper does not say what
    it does with them; without `mask_duplicates` they count. The last two fields are of the original regulariser
    (arXiv:1708.06320), of which the paper keeps the second moment alone: `mean_weight` weighs the squared mean of the
    cosines, and with `hinge` a second moment below 1/E costs nothing.
    """

    towers: tuple[Literal["query", "target"], ...] = ("query", "target")
    mask_duplicates: bool = True
    mean_weight: NonNegative = 0.0
    hinge: bool = False

    def __post_init__(self):
        ranges.check_fields(self)
        if not self.towers or len(set(self.towers)) != len(self.towers):
            raise ConfigError(f"SpreadOut.towers = {self.towers}; name 'query', 'target' or both, each once")

    def init(self) -> Params:
        """Returns {}: nothing is learned."""
        return {}

    def __call__(
        self, pairs: PairEmbeddings, params: Params | None = None, step: Any = 0
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the sum, and the second moment of each tower as `query` and `target`.

        A large batch is compared a few rows at a time and again for the gradient, so that B x B values are never held.
        """
        del params, step
        pairs, total, metrics = pairs.map(normalize), 0.0, {}
        for tower in self.towers:
            vectors = getattr(pairs, tower)
            mean, moment = self._moments(vectors, getattr(pairs, f"{tower}_id") if self.mask_duplicates else None)
            excess = jnp.maximum(moment - 1.0 / vectors.shape[-1], 0.0) if self.hinge else moment
            total = total + excess + self.mean_weight * mean**2
            metrics[tower] = moment
        return total, metrics

    def _moments(self, vectors, ids) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Returns the means of the cosines of different items and of their squares; 0 where there are none."""
        size = len(vectors)
        whole = (jnp.arange(size), vectors, ids)
        chunks = num_chunks(size)
        compare = jax.checkpoint(lambda rows: _sums(rows, whole))
        if chunks == 1:
            sums = _sums(whole, whole)
        else:
            rows = jax.tree.map(lambda x: split_batch(x, chunks), whole)
            sums = jax.tree.map(lambda x: jnp.sum(x, 0), jax.lax.map(compare, rows))
        first, second, count = sums
        count = jnp.maximum(count, 1.0)
        return first / count, second / count


def _sums(rows, whole) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Returns the sums of the cosines of some rows with all other items, of their squares, and how many there are."""
    (index, vectors, ids), (all_index, all_vectors, all_ids) = rows, whole
    is_other: Bool[Array, "b B"] = index[:, None] != all_index[None, :]
    if ids is not None:
        is_other &= ~same(ids, all_ids)
    cosine = jnp.where(is_other, jnp.matmul(vectors, all_vectors.T, precision="highest"), 0.0)
    return jnp.sum(cosine), jnp.sum(jnp.square(cosine)), jnp.sum(is_other, dtype=cosine.dtype)
