"""The contrastive loss of Gemini Embedding and EmbeddingGemma.

    L = 1/B sum_i -log  e^(s(q_i,p_i)/tau) / ( sum_k w_ik e^(s(q_i,n_ik)/tau) + sum_j mask(i,j) e^(s(q_i,p_j)/tau) )

s is the cosine; mask(i,j) is 0 where j != i and q_i = q_j or p_i = p_j as items; only a query's own hard negatives enter.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from embed.errors import ConfigError
from embed.types import Metrics, Outputs
from embed.vectors import normalize

_NEVER = -1e9  # a logit that adds nothing; finite, so that gradients are


@dataclasses.dataclass(frozen=True)
class Contrastive:
    """In-batch softmax with a query's own hard negatives. Source: arXiv:2503.07891 eq. 2-3, arXiv:2509.20354 eq. 2-3.

    `temperature` divides the cosine (neither paper publishes it; 0.05 is our choice). `hardness` is alpha in
    w = exp(alpha * stop_gradient(s(q, n))): 0 is Gemini Embedding, 5 is EmbeddingGemma. Read to the letter the papers'
    mask takes the positive itself out of the denominator; `literal_mask` does that, and a query left without any negative
    then adds nothing.
    """

    temperature: float = 0.05
    hardness: float = 0.0
    literal_mask: bool = False

    def __post_init__(self):
        if not self.temperature > 0:
            raise ConfigError(
                f"Contrastive.temperature = {self.temperature}; it divides the cosine and must be positive"
            )

    def __call__(self, outputs: Outputs) -> tuple[Float[Array, ""], Metrics]:
        """Returns the mean over the batch, and what to report: `accuracy` (share of queries whose target is nearer than
        every negative), `masked_share` (of in-batch pairs, as duplicates) and `positive_similarity` (mean cosine)."""
        query, target = normalize(outputs.query), normalize(outputs.target)
        size = query.shape[0]
        if self.literal_mask and size == 1 and outputs.negatives is None:
            raise ConfigError(
                "Contrastive.literal_mask leaves a batch of one without hard negatives no denominator; use more"
            )
        diagonal = jnp.eye(size, dtype=bool)
        duplicate = _duplicates(outputs, size) & ~diagonal
        cosine = jnp.matmul(query, target.T, precision="highest")
        positive = jnp.sum(query * target, -1)
        kept = ~duplicate & ~diagonal if self.literal_mask else ~duplicate
        logits = jnp.where(kept, cosine / self.temperature, _NEVER)
        rivals = jnp.where(duplicate | diagonal, -1.0, cosine)
        if outputs.negatives is not None:
            hard = jnp.einsum("BE,BNE->BN", query, normalize(outputs.negatives), precision="highest")
            there = jnp.ones(hard.shape, bool) if outputs.negatives_mask is None else outputs.negatives_mask
            weighted = hard / self.temperature + self.hardness * jax.lax.stop_gradient(hard)
            logits = jnp.concatenate([logits, jnp.where(there, weighted, _NEVER)], axis=1)
            rivals = jnp.concatenate([rivals, jnp.where(there, hard, -1.0)], axis=1)
        per_query = jax.nn.logsumexp(logits, axis=1) - positive / self.temperature
        # Without any negative the literal denominator is empty and the term undefined: it adds nothing.
        undefined = jnp.all(logits <= 0.5 * _NEVER, axis=1)
        return jnp.mean(jnp.where(undefined, 0.0, per_query)), {
            "accuracy": jnp.mean(positive > jnp.max(rivals, axis=1)),
            "masked_share": jnp.sum(duplicate) / max(size * (size - 1), 1),
            "positive_similarity": jnp.mean(positive),
        }


def same(ids) -> Bool[Array, "B B"]:
    """Returns whether items i and j are the same, for content hashes uint32 [B, 2]."""
    return jnp.all(ids[:, None, :] == ids[None, :, :], axis=-1)


def _duplicates(outputs: Outputs, size: int):
    """Returns which pairs of rows share their query or their target as items."""
    none = jnp.zeros((size, size), bool)
    by_query = none if outputs.query_id is None else same(outputs.query_id)
    by_target = none if outputs.target_id is None else same(outputs.target_id)
    return by_query | by_target
