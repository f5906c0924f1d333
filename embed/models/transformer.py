"""The block of Gemma 3 and its stack: one block's code scanned over all layers, recomputed in the backward pass by policy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from embed.errors import ConfigError, did_you_mean
from embed.models.attention import Attention, attention_bias, rotary_table
from embed.models.layers import GatedMLP, RMSNorm
from embed.sharding import constrain

# What the forward pass keeps for the backward pass; the rest is computed again.
REMAT = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Block(nn.Module):
    """Attention and MLP, each between two norms (sandwich), added to the residual stream in float32.

    `branch_gain` is the size that attention and MLP start with: 1 in Gemma; a small one lets a model that is trained from
    nothing start as a bag of words.
    """

    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    query_scale: float
    branch_gain: float
    dropout: float
    dtype: str
    deterministic: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], is_global: Bool[Array, ""], biases, rotaries):
        bias, rotary = (_choose(is_global, *pair) for pair in (biases, rotaries))
        drop = nn.Dropout(self.dropout, deterministic=self.deterministic)
        y = RMSNorm(name="attention_norm")(x)
        y = Attention(
            self.width, self.num_heads, self.num_kv_heads, self.head_dim, self.query_scale, self.dtype, name="attention"
        )(y, bias, rotary)
        x = x + drop(RMSNorm(gain=self.branch_gain, name="attention_post_norm")(y))
        y = RMSNorm(name="mlp_norm")(x)
        y = GatedMLP(self.width, self.mlp_dim, self.dtype, name="mlp")(y)
        x = x + drop(RMSNorm(gain=self.branch_gain, name="mlp_post_norm")(y))
        return constrain(x, "batch", "length", None), None


def _choose(is_global, local, full):
    return full if local is None else jnp.where(is_global, full, local)


class Stack(nn.Module):
    """`num_layers` blocks; every `global_every`-th sees the whole text, the others `radius` tokens to each side.

    `unroll` blocks are compiled one after the other in each turn of the scan: 1 compiles fastest, all of them train a small
    model 1.5 times faster on CPU.
    """

    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    query_scale: float
    radius: int
    global_every: int
    local_rope_base: float
    global_rope_base: float
    branch_gain: float = 1.0
    dropout: float = 0.0
    remat: str = "none"
    unroll: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], mask: Bool[Array, "B L"], is_training: bool) -> Float[Array, "B L D"]:
        if self.remat not in REMAT:
            raise ConfigError(f"remat {self.remat!r}{did_you_mean(self.remat, REMAT)}")
        length = x.shape[1]
        is_global = (jnp.arange(self.num_layers) + 1) % self.global_every == 0
        # A text no longer than the radius is seen whole by local layers too.
        local_bias = attention_bias(mask, self.radius) if length > self.radius + 1 else None
        biases = (local_bias, attention_bias(mask, None))
        rotaries = tuple(rotary_table(length, self.head_dim, b) for b in (self.local_rope_base, self.global_rope_base))
        block = Block if self.remat == "none" else nn.remat(Block, policy=REMAT[self.remat], prevent_cse=False)
        scanned = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=self.num_layers,
            unroll=self.unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(
            width=self.width,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            mlp_dim=self.mlp_dim,
            query_scale=self.query_scale,
            branch_gain=self.branch_gain,
            dropout=self.dropout,
            dtype=self.dtype,
            deterministic=not is_training,
            name="layers",
        )
        return scanned(x, is_global, biases, rotaries)[0]

    @nn.nowrap
    def forward_flops(self, length: int) -> float:
        """Returns the FLOPs of one text of `length` tokens: two per weight and token, four per head value and seen key."""
        attention = self.width * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        weights = self.num_layers * (attention + 3 * self.width * self.mlp_dim)
        global_layers = self.num_layers // self.global_every
        keys = global_layers * length + (self.num_layers - global_layers) * min(length, 2 * self.radius + 1)
        return length * (2.0 * weights + 4.0 * self.num_heads * self.head_dim * keys)
