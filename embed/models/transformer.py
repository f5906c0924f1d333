"""The transformer all families share: blocks, their stack, and the encoder around it. A family says what it is made of."""

import dataclasses
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from msgspec import Meta

from embed import ranges
from embed.errors import ConfigError, did_you_mean
from embed.models import layout
from embed.models.attention import Attention, Heads, rotary_table, segment_positions
from embed.models.kernels import Reach, Xla, choose, cross_attention_bias
from embed.models.layers import MLP, PRODUCT, Embedding, LayerScale, Norm, activation, compute_dtype
from embed.ranges import Count, Layers, Size
from embed.sharding import constrain, platform

# What the forward pass keeps for the backward pass; the rest is computed again.
REMAT = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    # By name: JAX's own policies of dots do not see into `layers.product`, whose gradient is our own.
    "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT),
}
PLACEMENTS = ("before", "after", "sandwich")


@dataclasses.dataclass(frozen=True)
class Blocks:
    """What the blocks of a family are made of.

    `norm_placement`: 'before' each branch, 'after' each sum with the residual (BERT), or 'sandwich', before and after the
    branch (Gemma). Layers in `local_layers` have the reach `local`, the others `reach`. `first_norm` False leaves the first
    block's attention norm out (ModernBERT). `branch_gain` is the size that attention and MLP start with: 1 in Gemma; a
    small one lets a model that is trained from nothing start as a bag of words. `layer_scale` multiplies each branch by a learned
    vector that starts at this value (arXiv:2103.17239); None has none.
    """

    num_layers: int
    width: int
    mlp_dim: int
    heads: Heads
    norm: Norm
    norm_placement: str
    activation: str
    gated: bool
    reach: Reach
    local: Reach | None = None
    local_layers: tuple[bool, ...] = ()
    mlp_bias: bool = False
    first_norm: bool = True
    branch_gain: float = 1.0
    layer_scale: float | None = None


@dataclasses.dataclass(frozen=True)
class Running:
    """How a stack is run, which changes no parameter.

    `dropout` is of single numbers of a branch. `stochastic_depth` is of whole branches of an example: the rate of the last
    layer, from 0 in the first, and what stays is scaled up (arXiv:1603.09382).
    """

    dropout: float
    remat: str
    unroll: int
    dtype: str
    attention: str
    stochastic_depth: float = 0.0

    def unroll_of(self, is_training: bool) -> int:
        """Returns how many blocks each turn of a scan has: `unroll` in training and on a CPU, else 1.

        Without a backward pass a TPU gains 5 % by unrolling (v5e, by the compiler's estimate), and compiles many times longer.
        """
        return self.unroll if is_training or platform() == "cpu" else 1


class Block(nn.Module):
    """Attention and MLP, added to the residual stream in float32; in a decoder, cross-attention between the two."""

    blocks: Blocks
    running: Running
    kernel: Xla
    deterministic: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], kind, prepared, rotaries, context=None):
        """`kind` is (is local, is first, how deep from 0 to 1) of this layer; `prepared` what the kernel made of the segment ids;
        `context` the encoder's states and the bias of attention to them, in a decoder."""
        is_local, is_first, depth = kind
        b = self.blocks
        local, full = rotaries
        rotary = full if local is None else jnp.where(is_local, local, full)
        attention = Attention(b.width, b.heads, self.kernel, self.running.dtype, name="attention")
        mlp = MLP(b.width, b.mlp_dim, b.activation, b.gated, b.mlp_bias, self.running.dtype, name="mlp")
        skip_norm = None if b.first_norm else is_first
        x = self._branch(x, "attention", lambda y: attention(y, prepared, is_local, rotary), depth, skip_norm)
        if context is not None:
            states, bias = context
            kernel = Xla(b.reach, None, b.heads.query_scale, compute_dtype(self.running.dtype), b.heads.softcap)
            cross = Attention(b.width, b.heads, kernel, self.running.dtype, name="cross_attention")
            x = self._branch(x, "cross_attention", lambda y: cross(y, (None, bias), False, None, states), depth)
        return self._branch(x, "mlp", mlp, depth), None

    @nn.nowrap
    def _branch(self, x, name: str, function, depth, skip_norm=None):
        b = self.blocks
        drop = lambda y: self._drop(y, depth)  # noqa: E731
        norm = b.norm.make(f"{name}_norm")
        if b.norm_placement == "after":
            x = norm(x + drop(function(x)))
        else:
            y = norm(x)
            y = function(y if skip_norm is None else jnp.where(skip_norm, x, y))
            if b.norm_placement == "sandwich":
                y = b.norm.make(f"{name}_post_norm", gain=b.branch_gain)(y)
            if b.layer_scale is not None:
                y = LayerScale(b.layer_scale, name=f"{name}_layer_scale")(y)
            x = x + drop(y)
        return constrain(x, "batch", "length", None)

    @nn.nowrap
    def _drop(self, y, depth):
        """Returns a branch with some numbers dropped, or the whole of it for some examples; called inside `__call__`."""
        y = nn.Dropout(self.running.dropout, deterministic=self.deterministic)(y)
        if self.deterministic or self.running.stochastic_depth == 0:
            return y
        kept = 1.0 - self.running.stochastic_depth * depth
        stays = jax.random.bernoulli(self.make_rng("dropout"), kept, (y.shape[0], 1, 1))
        return jnp.where(stays, y / kept, 0.0)


class Stack(nn.Module):
    """One block's code scanned over all layers, recomputed in the backward pass by policy.

    Each turn of the scan has `unroll` blocks. 1 compiles fastest. All of them run a small model 1.5 times faster on CPU. On a TPU
    they train faster where little is recomputed, because a scan copies every saved activation into a stacked array. Parameters
    that lie as in `layout.apart` are run in a loop of Python's.
    """

    blocks: Blocks
    running: Running

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], segment_ids: Array, positions: Array, is_training: bool, context=None
    ) -> Float[Array, "B L D"]:
        b, remat = self.blocks, self.running.remat
        layers = jnp.arange(b.num_layers)
        is_local = jnp.array(b.local_layers) if b.local_layers else jnp.zeros(b.num_layers, bool)
        local = b.local if any(b.local_layers) else None
        kernel = self.kernel(segment_ids.shape[1], local)
        if context is not None:
            context = (context[0], cross_attention_bias(segment_ids, context[1]))
        shared = (kernel.prepare(segment_ids), self._rotaries(positions, local), context)
        if self.has_variable("params", layout.layer(0)):
            for number in range(b.num_layers):
                kind = (local is not None and b.local_layers[number], number == 0, 0.0)
                block = Block(b, self.running, kernel, not is_training, name=layout.layer(number))
                x, _ = block(x, kind, *shared)
            return x
        # Within a loop nothing is computed twice in one place; laid out whole, XLA would merge what is computed again.
        unroll = self.running.unroll_of(is_training)
        whole = unroll >= b.num_layers
        block = Block if remat == "none" else nn.remat(Block, policy=REMAT[remat], prevent_cse=whole)
        scanned = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
            length=b.num_layers,
            unroll=unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(b, self.running, kernel, not is_training, name="layers")
        return scanned(x, (is_local, layers == 0, layers / max(1, b.num_layers - 1)), *shared)[0]

    @nn.nowrap
    def kernel(self, length, local: Reach | None) -> Xla:
        """Returns what attends in rows of `length` tokens."""
        b, h = self.blocks, self.blocks.heads
        dtype = compute_dtype(self.running.dtype)
        return choose(self.running.attention, h.head_dim, length, b.reach, local, h.query_scale, dtype, h.softcap)

    @nn.nowrap
    def _rotaries(self, positions, local: Reach | None):
        full = self.blocks.reach
        if full.rope_base is None:
            return None, None
        if local is not None and (local.rope_base, local.rope_scale) == (full.rope_base, full.rope_scale):
            local = None
        size = self.blocks.heads.head_dim
        return tuple(
            None if r is None else rotary_table(positions, size, r.rope_base, r.rope_scale, r.rope_axes)
            for r in (local, full)
        )

    @nn.nowrap
    def cross_flops(self, length: int, context_length: int) -> float:
        """Returns the FLOPs that cross-attention adds for `length` tokens of a decoder and `context_length` of an encoder of its
        width."""
        b, h = self.blocks, self.blocks.heads
        inner = h.num_heads * h.head_dim
        into = 2.0 * b.width * h.head_dim * h.num_kv_heads * 2 * context_length
        return b.num_layers * (4.0 * b.width * inner * length + into + 4.0 * inner * length * context_length)

    @nn.nowrap
    def forward_flops(self, length: int) -> float:
        """Returns the FLOPs of one text of `length` tokens: two per weight and token, four per head value and seen key."""
        b, h = self.blocks, self.blocks.heads
        attention = b.width * h.head_dim * (2 * h.num_heads + 2 * h.num_kv_heads)
        weights = b.num_layers * (attention + (3 if b.gated else 2) * b.width * b.mlp_dim)
        local = sum(b.local_layers)
        keys = (b.num_layers - local) * b.reach.keys(length) + (local * b.local.keys(length) if local else 0)
        return length * (2.0 * weights + 4.0 * h.num_heads * h.head_dim * keys)


class TransformerEncoder(nn.Module):
    """Token ids to one vector per token: token table, stack, final norm. Families give `blocks` and override the rest."""

    vocab_size: Size = 0
    width: Size = 0
    num_layers: Layers = 0
    num_heads: Size = 0
    mlp_dim: Size = 0
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    remat: str = "none"
    unroll: Count = 1
    dtype: str = "float32"
    attention: str = "auto"  # or one of kernels.KERNELS
    packs = True  # rows may hold several texts

    @nn.nowrap
    def blocks(self) -> Blocks:
        """Returns what the family's blocks are made of."""
        raise NotImplementedError

    @nn.nowrap
    def running(self) -> Running:
        """Returns how the stack is run."""
        return Running(self.dropout, self.remat, min(self.unroll, self.num_layers), self.dtype, self.attention)

    @property
    def embedding_scale(self) -> float:
        """What the vectors of the token table are multiplied by."""
        return 1.0

    @nn.nowrap
    def read(self, x: Float[Array, "B L D"], tokens: Int[Array, "B L"], positions: Array, is_training: bool):
        """Returns the input of the first block [B, L, D] from the token embeddings `x`; called inside `__call__`.

        `positions` are [L] or [B, L].
        """
        del tokens, positions, is_training
        return x

    @nn.nowrap
    def embed_tokens(self, tokens, positions, is_training: bool, inserted=None) -> Float[Array, "B L D"]:
        """Embeds tokens and returns the input of the first block; called inside `__call__`, which describes `inserted`."""
        table = Embedding(self.vocab_size, self.width, scale=self.embedding_scale, name="embedding")
        if inserted is None:
            return self.read(table(tokens), tokens, positions, is_training)
        x = jnp.where(tokens[..., None] < 0, inserted, table(jnp.maximum(tokens, 0)))
        return self.read(x, tokens, positions, is_training)

    @nn.nowrap
    def make_stack(self) -> nn.Module:
        """Returns the stack of blocks; called inside `__call__`."""
        return Stack(self.blocks(), self.running(), name="stack")

    @nn.nowrap
    def finish(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Returns the result, from the output of the last block; called inside `__call__`."""
        return self.blocks().norm.make("final_norm")(x)

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B L"],
        segment_ids: Bool[Array, "B L"] | Int[Array, "B L"],
        is_training: bool = False,
        context: tuple[Array, Array] | None = None,
        inserted: Float[Array, "B L W"] | None = None,
    ) -> Float[Array, "B L D"]:
        """`segment_ids` is the mask of the real tokens of one text a row; or, for rows that hold several texts one after the
        other, the number of each token's text from 1, 0 for padding.

        With `context`, the states [B, L', D'] of an encoder and its segment ids, the stack is a decoder: every block attends to the
        states of its own text too. `inserted` replaces the embeddings of tokens below 0, such as those of images, without
        `embedding_scale`. Its other entries are ignored.
        """
        self.check()
        one_a_row = segment_ids.dtype == bool
        positions = jnp.arange(tokens.shape[1]) if one_a_row else segment_positions(segment_ids)
        x = constrain(self.embed_tokens(tokens, positions, is_training, inserted), "batch", "length", None)
        stack = self.make_stack()
        given = () if context is None else (context,)
        return self.finish(stack(x, segment_ids, positions, is_training, *given))

    @property
    def is_causal(self) -> bool:
        """Whether a token sees none that come after it."""
        blocks = self.blocks()
        reaches = [blocks.reach, blocks.local] if blocks.local is not None else [blocks.reach]
        return all(reach.right == 0 for reach in reaches)

    @nn.nowrap
    def check(self) -> None:
        """Raises ConfigError for sizes that no model of the family can have."""
        compute_dtype(self.dtype)
        name = type(self).__name__
        if self.remat not in REMAT:
            raise ConfigError(f"remat {self.remat!r}{did_you_mean(self.remat, REMAT)}")
        ranges.check_fields(self)
        blocks = self.blocks()
        heads = blocks.heads
        if heads.num_heads % heads.num_kv_heads or heads.head_dim % 2 or heads.head_dim < 1:
            raise ConfigError(
                f"{name}.num_heads = {heads.num_heads} must be a multiple of num_kv_heads = {heads.num_kv_heads}, "
                f"and head_dim = {heads.head_dim} even"
            )
        activation(blocks.activation)

    @nn.nowrap
    def forward_flops(self, length: int) -> float:
        """Returns the FLOPs of one text of `length` tokens; reading the token table costs none."""
        return Stack(self.blocks(), self.running(), parent=None).forward_flops(length)

    @nn.nowrap
    def cross_flops(self, length: int, context_length: int) -> float:
        """Returns the FLOPs that attention to the states of an encoder adds, in a decoder."""
        return Stack(self.blocks(), self.running(), parent=None).cross_flops(length, context_length)
