"""The contrastive loss of Gemini Embedding and EmbeddingGemma.

    L = 1/B sum_i -log  e^(s(q_i,p_i)/tau) / ( sum_k w_ik e^(s(q_i,n_ik)/tau) + sum_j mask(i,j) e^(s(q_i,p_j)/tau) )

s is the cosine; mask(i,j) is 0 where j != i and q_i = q_j or p_i = p_j as items; only a query's own hard negatives enter, and
of those none that is a positive of the query in this batch.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from embed import ranges
from embed.errors import ConfigError
from embed.ranges import NonNegative, Positive
from embed.sharding import shards_here, split_batch
from embed.types import Metrics, PairEmbeddings, Params
from embed.vectors import normalize

_NEVER = -1e9  # a logit that adds nothing; finite, so that gradients are
MAX_LOGITS = 1 << 24  # that a device holds of one size at once: 64 MB in float32


@dataclasses.dataclass(frozen=True)
class Contrastive:
    """In-batch softmax with a query's own hard negatives. Source: arXiv:2503.07891 eq. 2-3, arXiv:2509.20354 eq. 2-3.

    `temperature` divides the cosine (neither paper publishes it; 0.05 is our choice). With `learn_temperature` it is where the
    temperature starts, which is then learned with the model, as in CLIP (arXiv:2103.00020 s2.5): its logarithm is the
    parameter, and it stays between `min_temperature` and `max_temperature`. `hardness` is alpha in
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
    learn_temperature: bool = False
    min_temperature: Positive = 0.01
    max_temperature: Positive = 1.0

    def __post_init__(self):
        ranges.check_fields(self)
        for name in ("min_temperature", "max_temperature"):
            if not self.learn_temperature and getattr(self, name) != getattr(type(self), name):
                raise ConfigError(f"Contrastive.{name} has an effect with learn_temperature = True only; leave it out")
        if self.learn_temperature and not self.min_temperature <= self.temperature <= self.max_temperature:
            raise ConfigError(
                f"Contrastive.temperature = {self.temperature} must lie between min_temperature = {self.min_temperature} and "
                f"max_temperature = {self.max_temperature}"
            )

    def init(self) -> Params:
        """Returns {"log_temperature": float32} where the temperature is learned, else {}."""
        return {"log_temperature": jnp.log(jnp.float32(self.temperature))} if self.learn_temperature else {}

    def __call__(
        self, pairs: PairEmbeddings, params: Params | None = None, step: Any = 0
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the mean over the batch, and what to report: `accuracy` (share of queries whose target is nearer than
        every negative), `masked_share` (of in-batch pairs, as duplicates), `positive_similarity` (mean cosine), and
        `temperature` where it is learned.

        A large batch is compared a few queries at a time and again for the gradient, so that B x B values are never held.
        """
        del step
        pairs = pairs.map(normalize)
        size = pairs.query.shape[0]
        if self.literal_mask and size == 1 and pairs.negatives is None:
            raise ConfigError(
                "Contrastive.literal_mask leaves a batch of one without hard negatives no denominator; use more"
            )
        temperature: Any = self.temperature
        if self.learn_temperature:
            bounds = math.log(self.min_temperature), math.log(self.max_temperature)
            temperature = jnp.exp(clamp(params["log_temperature"], *bounds))
        chunks = num_chunks(size)
        if chunks == 1:
            sums = self._compare(jnp.arange(size), pairs, pairs, temperature)
        else:
            rows = jax.tree.map(lambda x: split_batch(x, chunks), (jnp.arange(size), pairs))
            compare = jax.checkpoint(lambda some: self._compare(*some, pairs, temperature))
            sums = jax.tree.map(lambda x: jnp.sum(x, 0), jax.lax.map(compare, rows))
        num_pairs = float(size) * (size - 1)  # more than 32 bits count, from 46,342 on
        metrics = {
            "accuracy": sums["nearest"] / size,
            "masked_share": sums["masked"] / max(num_pairs, 1.0),
            "positive_similarity": sums["positive"] / size,
        }
        return sums["loss"] / size, metrics | ({"temperature": temperature} if self.learn_temperature else {})

    def _compare(self, index, rows: PairEmbeddings, whole: PairEmbeddings, temperature) -> dict[str, Float[Array, ""]]:
        """Returns sums over the rows of a batch with the given indices, each compared with the targets of all."""
        diagonal = index[:, None] == jnp.arange(whole.target.shape[0])
        duplicate = _duplicates(rows, whole, diagonal.shape) & ~diagonal & self.mask_duplicates
        cosine = jnp.matmul(rows.query, whole.target.T, precision="highest")
        positive = jnp.sum(rows.query * rows.target, -1)
        kept = ~duplicate & ~diagonal if self.literal_mask else ~duplicate
        logits = jnp.where(kept, cosine / temperature, _NEVER)
        rivals = jnp.where(duplicate | diagonal, -1.0, cosine)
        if self.same_tower:
            queries = jnp.matmul(rows.query, whole.query.T, precision="highest")
            others = jnp.where(duplicate | diagonal, _NEVER, queries / temperature)
            logits = jnp.concatenate([logits, others], axis=1)
        if rows.negatives is not None:
            hard = jnp.einsum("BE,BNE->BN", rows.query, rows.negatives, precision="highest")
            present = jnp.ones(hard.shape, bool) if rows.negatives_mask is None else rows.negatives_mask
            if self.mask_duplicates:
                present &= ~_positive_negatives(rows, whole)
            weighted = hard / temperature + self.hardness * jax.lax.stop_gradient(hard)
            logits = jnp.concatenate([logits, jnp.where(present, weighted, _NEVER)], axis=1)
            rivals = jnp.concatenate([rivals, jnp.where(present, hard, -1.0)], axis=1)
        per_query = jax.nn.logsumexp(logits, axis=1) - positive / temperature
        # Without any negative the literal denominator is empty and the term undefined: it adds nothing.
        undefined = jnp.all(logits <= 0.5 * _NEVER, axis=1)
        return {
            "loss": jnp.sum(jnp.where(undefined, 0.0, per_query)),
            "nearest": jnp.sum(positive > jnp.max(rivals, axis=1)),
            "masked": jnp.sum(duplicate.astype(jnp.float32)),
            "positive": jnp.sum(positive),
        }


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def clamp(x: Float[Array, ""], low: float, high: float) -> Float[Array, ""]:
    """Returns `x` within [low, high]. Outside, only a gradient that leads back into the range is passed on.

    The gradient of `jnp.clip` is zero outside, so that a parameter that once left the range would never move again.
    """
    return jnp.clip(x, low, high)


def _clamp_forward(x, low, high):
    return jnp.clip(x, low, high), x


def _clamp_backward(low, high, x, gradient):
    leads_out = (x <= low) & (gradient > 0) | (x >= high) & (gradient < 0)
    return (jnp.where(leads_out, 0.0, gradient),)


clamp.defvjp(_clamp_forward, _clamp_backward)


def num_chunks(size: int) -> int:
    """Returns in how many chunks a batch is compared with itself, so that a device holds few of the B x B values at once."""
    rows = size // shards_here()
    return next(n for n in range(1, rows + 1) if rows % n == 0 and rows // n * size <= MAX_LOGITS or n == rows)


def same(one, other) -> Bool[Array, "b B"]:
    """Returns whether item i of one and j of the other are the same, for content hashes uint32 [., 2]."""
    return jnp.all(one[:, None, :] == other[None, :, :], axis=-1)


def _positive_negatives(rows: PairEmbeddings, whole: PairEmbeddings) -> Bool[Array, "b N"]:
    """Returns which hard negatives are the target of a row that asks the same query, their own row among them."""
    if rows.negatives_id is None or rows.target_id is None:
        return jnp.zeros(rows.negatives.shape[:2], bool)
    same_query = same(rows.query_id, whole.query_id)
    columns = range(rows.negatives_id.shape[1])
    return jnp.stack([jnp.any(same_query & same(rows.negatives_id[:, n], whole.target_id), 1) for n in columns], 1)


def _duplicates(rows: PairEmbeddings, whole: PairEmbeddings, shape):
    """Returns which rows share their query or their target as items."""
    none = jnp.zeros(shape, bool)
    by_query = none if rows.query_id is None else same(rows.query_id, whole.query_id)
    by_target = none if rows.target_id is None else same(rows.target_id, whole.target_id)
    return by_query | by_target
