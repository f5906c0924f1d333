"""Self-attention: who sees whom as biases, rotary positions, grouped queries, normalised queries and keys, capped logits."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from embed.models.layers import Linear, Norm, compute_dtype

MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)  # finite: a row that sees nothing stays finite, forward and backward


def segment_positions(segments: Int[Array, "B L"]) -> Int[Array, "B L"]:
    """Returns each token's position within its own text, for rows that hold several texts one after the other.

    Padding is at position 0: a long run of it must not lead out of a table of learned positions.
    """
    places = jnp.arange(segments.shape[1])
    begins = jnp.concatenate([jnp.ones_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]], 1)
    positions = places - jax.lax.cummax(jnp.where(begins, places, 0), axis=1)
    return jnp.where(segments > 0, positions, 0)


def rotary_table(positions: Array, head_dim: int, base: float, scale: float = 1.0) -> Float[Array, "2 *P K"]:
    """Returns cosines and sines of position / scale * base^(-2i/K), the K/2 angles repeated for both halves of a head."""
    exponents = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    angles = positions.astype(jnp.float32)[..., None] * (1.0 / base**exponents / scale)
    angles = jnp.concatenate([angles, angles], -1)
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)])


def rotate(x: Float[Array, "B L H K"], table: Float[Array, "2 *P K"]) -> Float[Array, "B L H K"]:
    """Returns x with rotary positions; the halves of a head pair up, as in Gemma. Source: arXiv:2104.09864.

    The table is of positions [L], or [B, L] where every row has its own.
    """
    first, second = jnp.split(x, 2, axis=-1)
    cosine, sine = (t[..., :, None, :] for t in table)
    return x * cosine + jnp.concatenate([-second, first], -1) * sine


def attention_bias(
    segments: Int[Array, "B L"] | Bool[Array, "B L"], left: int | None = None, right: int | None = None
) -> Float[Array, "B 1 1 L L"]:
    """Returns 0 where a query may see a key and MASKED elsewhere: real keys of its own text, from `left` positions before
    the query to `right` after it; None sets no limit. `segments` is a mask of the real tokens of one text a row, or the
    number of each token's text, 0 for padding."""
    if segments.dtype == bool:
        visible = segments[:, None, :]
    else:
        visible = (segments[:, None, :] == segments[:, :, None]) & (segments > 0)[:, None, :]
    length = segments.shape[1]
    if left is not None or right is not None:
        positions = jnp.arange(length)
        ahead = positions[None, :] - positions[:, None]
        if left is not None:
            visible = visible & (ahead >= -left)[None]
        if right is not None:
            visible = visible & (ahead <= right)[None]
    visible = jnp.broadcast_to(visible, (segments.shape[0], length, length))
    return jnp.where(visible, 0.0, MASKED)[:, None, None].astype(jnp.float32)


def attend(
    q: Array, k: Array, v: Array, bias: Array, scale: float, dtype: jnp.dtype, softcap: float | None = None
) -> Float[Array, "B L H K"]:
    """Returns softmax(q k^T * scale + bias) v for q [B L H K] and k, v [B L G K], where G divides H.

    `softcap` c bends the logits to c * tanh(logits / c) (Gemma 2). Heads come before positions so that each product is a
    plain matrix product, and the softmax is divided out after the product with v: 1.6 times faster on CPU than the
    textbook order.
    """
    batch, length, heads, size = q.shape
    groups = k.shape[2]
    # [B, L, H, K] -> [B, G, H/G, L, K]
    q = q.reshape(batch, length, groups, heads // groups, size).transpose(0, 2, 3, 1, 4).astype(dtype)
    k, v = (x.transpose(0, 2, 1, 3).astype(dtype) for x in (k, v))
    logits = jnp.einsum("BGRQK,BGSK->BGRQS", q, k, preferred_element_type=jnp.float32) * scale
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    logits = logits + bias
    weights = jnp.exp(logits - jnp.max(logits, -1, keepdims=True))
    out = jnp.einsum("BGRQS,BGSK->BGRQK", weights.astype(dtype), v, preferred_element_type=jnp.float32)
    out = out / jnp.sum(weights, -1, keepdims=True)
    # [B, G, H/G, L, K] -> [B, L, H, K]
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, size).astype(dtype)


@dataclasses.dataclass(frozen=True)
class Heads:
    """What the attention of a family is made of. `query_key_norm` normalises every head before the rotary positions."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    query_scale: float
    query_key_norm: Norm | None = None
    input_bias: bool = False
    output_bias: bool = False
    softcap: float | None = None


class Attention(nn.Module):
    """Grouped-query attention. `rotary` None leaves queries and keys without positions (BERT adds them to the input)."""

    width: int
    heads: Heads
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], bias: Array, rotary: Array | None) -> Float[Array, "B L D"]:
        h = self.heads
        query_shape, kv_shape = ((self.width, n, h.head_dim) for n in (h.num_heads, h.num_kv_heads))
        kv_axes = ("width", "kv_heads", "head_dim")
        common = {"bias": h.input_bias, "dtype": self.dtype}
        q = Linear("BLD,DHK->BLHK", query_shape, ("width", "heads", "head_dim"), **common, name="query")(x)
        k = Linear("BLD,DGK->BLGK", kv_shape, kv_axes, **common, name="key")(x)
        v = Linear("BLD,DGK->BLGK", kv_shape, kv_axes, **common, name="value")(x)
        if h.query_key_norm is not None:
            q = h.query_key_norm.make("query_norm", axis="head_dim")(q)
            k = h.query_key_norm.make("key_norm", axis="head_dim")(k)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        out = attend(q, k, v, bias, h.query_scale, compute_dtype(self.dtype), h.softcap)
        return Linear(
            "BLHK,HKD->BLD",
            (h.num_heads, h.head_dim, self.width),
            ("heads", "head_dim", "width"),
            input_axes=(0, 1),
            bias=h.output_bias,
            dtype=self.dtype,
            to_residual=True,
            name="output",
        )(out)
