"""The contrastive loss of Gemini Embedding and EmbeddingGemma.

    L = 1/B sum_i -log  e^(s(q_i,p_i)/tau) / ( sum_k w_ik e^(s(q_i,n_ik)/tau) + sum_j mask(i,j) e^(s(q_i,p_j)/tau) )

s is the cosine; mask(i,j) is 0 where j != i and q_i = q_j or p_i = p_j as items; only a query's own hard negatives enter, and
of those none that is a positive of the query in this batch.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from embed import ranges
from embed.errors import ConfigError
from embed.ranges import NonNegative, Positive
from embed.sharding import shards_here, split_batch
from embed.types import Metrics, Outputs
from embed.vectors import normalize

_NEVER = -1e9  # a logit that adds nothing; finite, so that gradients are
MOST_LOGITS = 1 << 24  # that a device holds of one size at once: 64 MB in float32


@dataclasses.dataclass(frozen=True)
class Contrastive:
    """In-batch softmax with a query's own hard negatives. Source: arXiv:2503.07891 eq. 2-3, arXiv:2509.20354 eq. 2-3.

    `temperature` divides the cosine (neither paper publishes it; 0.05 is our choice). `hardness` is alpha in
    w = exp(alpha * stop_gradient(s(q, n))): 0 is Gemini Embedding, 5 is EmbeddingGemma. Read to the letter the papers'
    mask takes the positive itself out of the denominator; `literal_mask` does that, and a query left without any negative
    then adds nothing. Two switches are for comparisons with other recipes: without `mask_duplicates` equal items count as
    negatives; with `same_tower` the other queries count too, as in Gecko (arXiv:2403.20327 eq. 3).
    """

    temperature: Positive = 0.05
    hardness: NonNegative = 0.0
    literal_mask: bool = False
    mask_duplicates: bool = True
    same_tower: bool = False

    def __post_init__(self):
        ranges.check_fields(self)

    def __call__(self, outputs: Outputs) -> tuple[Float[Array, ""], Metrics]:
        """Returns the mean over the batch, and what to report: `accuracy` (share of queries whose target is nearer than
        every negative), `masked_share` (of in-batch pairs, as duplicates) and `positive_similarity` (mean cosine).

        A large batch is compared a few queries at a time and again for the gradient, so that B x B values are never held.
        """
        outputs = outputs.with_towers({name: normalize(x) for name, x in outputs.towers.items()})
        size = outputs.query.shape[0]
        if self.literal_mask and size == 1 and outputs.negatives is None:
            raise ConfigError(
                "Contrastive.literal_mask leaves a batch of one without hard negatives no denominator; use more"
            )
        parts = parts_of(size)
        if parts == 1:
            sums = self._compare(jnp.arange(size), outputs, outputs)
        else:
            rows = jax.tree.map(lambda x: split_batch(x, parts), (jnp.arange(size), outputs))
            compare = jax.checkpoint(lambda some: self._compare(*some, outputs))
            found = jax.lax.map(compare, rows)
            sums = jax.tree.map(lambda x: jnp.sum(x, 0), found)
        pairs = float(size) * (size - 1)  # more than 32 bits count, from 46,342 on
        return sums["loss"] / size, {
            "accuracy": sums["nearest"] / size,
            "masked_share": sums["masked"] / max(pairs, 1.0),
            "positive_similarity": sums["positive"] / size,
        }

    def _compare(self, number, own: Outputs, whole: Outputs) -> dict[str, Float[Array, ""]]:
        """Returns sums over some rows of a batch, of the given numbers, compared with the targets of all."""
        diagonal = number[:, None] == jnp.arange(whole.target.shape[0])
        duplicate = _duplicates(own, whole, diagonal.shape) & ~diagonal & self.mask_duplicates
        cosine = jnp.matmul(own.query, whole.target.T, precision="highest")
        positive = jnp.sum(own.query * own.target, -1)
        kept = ~duplicate & ~diagonal if self.literal_mask else ~duplicate
        logits = jnp.where(kept, cosine / self.temperature, _NEVER)
        rivals = jnp.where(duplicate | diagonal, -1.0, cosine)
        if self.same_tower:
            queries = jnp.matmul(own.query, whole.query.T, precision="highest")
            others = jnp.where(duplicate | diagonal, _NEVER, queries / self.temperature)
            logits = jnp.concatenate([logits, others], axis=1)
        if own.negatives is not None:
            hard = jnp.einsum("BE,BNE->BN", own.query, own.negatives, precision="highest")
            there = jnp.ones(hard.shape, bool) if own.negatives_mask is None else own.negatives_mask
            if self.mask_duplicates:
                there &= ~_positive_negatives(own, whole)
            weighted = hard / self.temperature + self.hardness * jax.lax.stop_gradient(hard)
            logits = jnp.concatenate([logits, jnp.where(there, weighted, _NEVER)], axis=1)
            rivals = jnp.concatenate([rivals, jnp.where(there, hard, -1.0)], axis=1)
        per_query = jax.nn.logsumexp(logits, axis=1) - positive / self.temperature
        # Without any negative the literal denominator is empty and the term undefined: it adds nothing.
        undefined = jnp.all(logits <= 0.5 * _NEVER, axis=1)
        return {
            "loss": jnp.sum(jnp.where(undefined, 0.0, per_query)),
            "nearest": jnp.sum(positive > jnp.max(rivals, axis=1)),
            "masked": jnp.sum(duplicate.astype(jnp.float32)),
            "positive": jnp.sum(positive),
        }


def parts_of(size: int) -> int:
    """Returns in how many parts a batch is compared with itself, so that a device holds few values of B x B at once."""
    rows = size // shards_here()
    return next(p for p in range(1, rows + 1) if rows % p == 0 and rows // p * size <= MOST_LOGITS or p == rows)


def same(one, other) -> Bool[Array, "b B"]:
    """Returns whether item i of one and j of the other are the same, for content hashes uint32 [., 2]."""
    return jnp.all(one[:, None, :] == other[None, :, :], axis=-1)


def _positive_negatives(own: Outputs, whole: Outputs) -> Bool[Array, "b N"]:
    """Returns which hard negatives are the target of a row that asks the same query, their own row among them."""
    if own.negatives_id is None or own.target_id is None:
        return jnp.zeros(own.negatives.shape[:2], bool)
    same_query = same(own.query_id, whole.query_id)
    columns = range(own.negatives_id.shape[1])
    return jnp.stack([jnp.any(same_query & same(own.negatives_id[:, n], whole.target_id), 1) for n in columns], 1)


def _duplicates(own: Outputs, whole: Outputs, shape):
    """Returns which rows share their query or their target as items."""
    none = jnp.zeros(shape, bool)
    by_query = none if own.query_id is None else same(own.query_id, whole.query_id)
    by_target = none if own.target_id is None else same(own.target_id, whole.target_id)
    return by_query | by_target
