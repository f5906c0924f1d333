"""From one vector per token to one per text, in float32. A text without tokens gives finite values (and gradients).

Every pooling takes the mask of one text a row and gives [B, D], or the numbers of each token's text (from 1, 0 for padding)
with `max_segments` and gives [B, S, D]; a number no token has gives a finite vector that nobody reads. `packs` says so; a
module without it is only ever given one text a row, and a mask.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from embed.models.kernels import MASKED
from embed.models.layers import Linear
from embed.ranges import Size


def members(segment_ids: Array, max_segments: int | None) -> Bool[Array, "B S L"]:
    """Returns which tokens each text of a row is made of."""
    if max_segments is None:
        return segment_ids[:, None, :]
    return segment_ids[:, None, :] == jnp.arange(1, max_segments + 1)[:, None]


def _pick(x: Array, weights: Float[Array, "B S L"], max_segments: int | None) -> Array:
    """Returns the weighted sums of token vectors, one a text."""
    pooled = jnp.einsum("BSL,BLD->BSD", weights, x.astype(jnp.float32), precision="highest")
    return pooled[:, 0] if max_segments is None else pooled


class MeanPooling(nn.Module):
    """Mean over the real tokens, prompt and special tokens included. Source: arXiv:2503.07891 s3.1."""

    packs = True

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], segment_ids: Array, max_segments: int | None = None) -> Array:
        weights = members(segment_ids, max_segments).astype(jnp.float32)
        count = jnp.maximum(jnp.sum(weights, -1, keepdims=True), 1.0)
        return _pick(x, weights, max_segments) / (count[:, 0] if max_segments is None else count)


class FirstPooling(nn.Module):
    """The first token (BERT's [CLS])."""

    packs = True

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], segment_ids: Array, max_segments: int | None = None) -> Array:
        if max_segments is None:
            return x[:, 0].astype(jnp.float32)
        membership = members(segment_ids, max_segments)
        first = membership & (jnp.cumsum(membership, -1) == 1)
        return _pick(x, first.astype(jnp.float32), max_segments)


class LastPooling(nn.Module):
    """The last real token; padding is on the right."""

    packs = True

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], segment_ids: Array, max_segments: int | None = None) -> Array:
        membership = members(segment_ids, max_segments)
        last = jnp.maximum(jnp.max(jnp.where(membership, jnp.arange(x.shape[1]), 0), -1), 0)
        pooled = jnp.take_along_axis(x, last[:, :, None], 1).astype(jnp.float32)
        return pooled[:, 0] if max_segments is None else pooled


class AttentionPooling(nn.Module):
    """softmax(q k^T / sqrt(D)) v with one learned query and `num_heads` heads. Source: arXiv:2509.20354 s3.2."""

    num_heads: Size = 4
    packs = True

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], segment_ids: Array, max_segments: int | None = None) -> Array:
        width = x.shape[-1]
        heads, size = self.num_heads, width // self.num_heads
        init = nn.with_logical_partitioning(nn.initializers.normal(1.0), ("norm",))
        query = self.param("query", init, (width,), jnp.float32).reshape(heads, size)
        into = {"equation": "BLD,DHK->BLHK", "shape": (width, heads, size), "axes": ("width", "heads", "head_dim")}
        k = Linear(**into, name="key")(x)
        v = Linear(**into, name="value")(x)
        logits = jnp.einsum("HK,BLHK->BHL", query, k) * width**-0.5
        membership = members(segment_ids, max_segments)
        logits = jnp.where(membership[:, None], logits[:, :, None], MASKED)
        pooled = jnp.einsum("BHSL,BLHK->BSHK", nn.softmax(logits), v).reshape(*membership.shape[:2], width)
        return pooled[:, 0] if max_segments is None else pooled
