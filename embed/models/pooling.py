"""From one vector per token to one per text, in float32. A text without tokens gives finite values (and gradients)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from embed.models.attention import MASKED
from embed.models.layers import Linear


class MeanPooling(nn.Module):
    """Mean over the real tokens, prompt and special tokens included. Source: arXiv:2503.07891 s3.1."""

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
        weights = mask.astype(jnp.float32)[..., None]
        return jnp.sum(x.astype(jnp.float32) * weights, 1) / jnp.maximum(jnp.sum(weights, 1), 1.0)


class FirstPooling(nn.Module):
    """The first token (BERT's [CLS])."""

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
        del mask
        return x[:, 0].astype(jnp.float32)


class LastPooling(nn.Module):
    """The last real token; padding is on the right."""

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
        last = jnp.maximum(jnp.sum(mask, 1) - 1, 0)
        return jnp.take_along_axis(x, last[:, None, None], 1)[:, 0].astype(jnp.float32)


class AttentionPooling(nn.Module):
    """softmax(q k^T / sqrt(D)) v with one learned query and `num_heads` heads. Source: arXiv:2509.20354 s3.2."""

    num_heads: int = 4

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
        width = x.shape[-1]
        heads, size = self.num_heads, width // self.num_heads
        init = nn.with_logical_partitioning(nn.initializers.normal(1.0), ("norm",))
        query = self.param("query", init, (width,), jnp.float32).reshape(heads, size)
        into = {"equation": "BLD,DHK->BLHK", "shape": (width, heads, size), "axes": ("width", "heads", "head_dim")}
        k = Linear(**into, name="key")(x)
        v = Linear(**into, name="value")(x)
        logits = jnp.einsum("HK,BLHK->BHL", query, k) * width**-0.5
        logits = jnp.where(mask[:, None, :], logits, MASKED)
        return jnp.einsum("BHL,BLHK->BHK", nn.softmax(logits), v).reshape(-1, width)
