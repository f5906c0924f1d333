"""A stack of layers of two shapes: periods of local layers with a global one behind them, scanned without padding.

Every layer ends in a branch that its own projection of the token embeddings gates ("per-layer embeddings"). The stack of
EmbeddingGemma 2. Source: transformers 5.23 and 5.24, models/embedding_gemma2.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from embed.models import layout
from embed.models.attention import rotary_table
from embed.models.kernels import Xla
from embed.models.layers import PRODUCT, Linear, activation, compute_dtype, fan_in_normal, product, unit_rms
from embed.models.transformer import REMAT, Block, Blocks, Running, Stack
from embed.sharding import constrain


@dataclasses.dataclass(frozen=True)
class Periods:
    """What the stack is made of: `local` blocks, and a `full` one as the last of every `global_every` and of all.

    The two kinds may differ in their heads and their reach. `per_layer_dim` is the size of a layer's own embeddings.
    """

    local: Blocks
    full: Blocks
    global_every: int
    per_layer_dim: int

    @property
    def num_layers(self) -> int:
        return self.local.num_layers + self.full.num_layers


def global_layers(num_layers: int, global_every: int) -> tuple[bool, ...]:
    """Returns which layers are global: every `global_every`-th, and the last."""
    return tuple((i + 1) % global_every == 0 or i + 1 == num_layers for i in range(num_layers))


class GatedBlock(Block):
    """Attention, MLP, and a third branch: norm(output(act(gate(x)) * own)) of the layer's own embeddings of the tokens.

    `own` is norm(inputs projection / sqrt(D)) of the stack's input; the norm's scale is shared by all layers. At the end the
    whole stream is multiplied by a constant of the checkpoint, which is not trained.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], projection: Float[Array, "D F"], attended, embedded):
        """`attended` is (what the kernel made of the segment ids, the rotary table); `embedded` is (the stack's input, the norm's
        scale [F])."""
        prepared, rotary = attended
        x, _ = super().__call__(x, (False, False, 0.0), prepared, (None, rotary))
        b, size, dtype = self.blocks, projection.shape[-1], self.running.dtype
        gate = Linear("BLD,DF->BLF", (b.width, size), ("width", "mlp"), dtype=dtype, name="per_layer_gate")(x)
        y = activation(b.activation)(gate.astype(jnp.float32)) * self._own_embeddings(projection, *embedded)
        axes = ("mlp", "width")
        y = Linear("BLF,FD->BLD", (size, b.width), axes, dtype=dtype, to_residual=True, name="per_layer_output")(y)
        y = b.norm.make("per_layer_post_norm", gain=b.branch_gain)(y)
        x = x + nn.Dropout(self.running.dropout, deterministic=self.deterministic)(y)
        init = nn.with_logical_partitioning(nn.initializers.ones, ("norm",))
        x = x * jax.lax.stop_gradient(self.param("output_scale", init, (1,), jnp.float32))
        return constrain(x, "batch", "length", None), None

    @nn.nowrap
    def _own_embeddings(self, projection, inputs, scale) -> Float[Array, "B L F"]:
        dtype = compute_dtype(self.running.dtype)
        y = checkpoint_name(product("BLD,DF->BLF", inputs, projection, dtype).astype(dtype), PRODUCT)
        return unit_rms(y.astype(jnp.float32) * self.blocks.width**-0.5, self.blocks.norm.eps) * scale


class Period(nn.Module):
    """`num_local` local blocks, scanned, and a global one behind them. `is_looped` says that it is itself part of a scan."""

    periods: Periods
    num_local: int
    running: Running
    kernels: tuple[Xla, Xla]
    deterministic: bool
    is_looped: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], projections: Float[Array, "n D F"], attended, embedded):
        """`projections` are those of the period's layers; `attended` are the local blocks' and the global one's."""
        unroll = min(self.running.unroll_of(not self.deterministic), self.num_local)
        if self.num_local:
            block = self._block_class(self.is_looped or unroll < self.num_local)
            local = nn.scan(
                block,
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, nn.broadcast, nn.broadcast),
                length=self.num_local,
                unroll=unroll,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )(self.periods.local, self.running, self.kernels[0], self.deterministic, name=layout.LOCAL)
            x, _ = local(x, projections[:-1], attended[0], embedded)
        block = self._block_class(self.is_looped)
        full = block(self.periods.full, self.running, self.kernels[1], self.deterministic, name=layout.GLOBAL)
        return full(x, projections[-1], attended[1], embedded)

    @nn.nowrap
    def _block_class(self, is_looped: bool) -> type[nn.Module]:
        # Within a loop nothing is computed twice in one place; laid out whole, XLA would merge what is computed again.
        remat = self.running.remat
        return GatedBlock if remat == "none" else nn.remat(GatedBlock, policy=REMAT[remat], prevent_cse=not is_looped)


class PerLayerInput(nn.Module):
    """The projections [N, D, F] of the stack's input to every layer's own embeddings, and the scale [F] of their norm."""

    num_layers: int
    width: int
    size: int

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        init = nn.with_logical_partitioning(fan_in_normal(0), ("width", "layers", "mlp"))
        kernel = self.param("kernel", init, (self.width, self.num_layers, self.size), jnp.float32)
        init = nn.with_logical_partitioning(nn.initializers.ones, ("norm",))
        return jnp.moveaxis(kernel, 1, 0), self.param("scale", init, (self.size,), jnp.float32)


class PeriodStack(nn.Module):
    """The periods, scanned, and what is left of the last one. Recomputed in the backward pass by policy, block by block.

    `unroll` blocks are compiled one after the other: up to a period's local blocks in the inner scan, and whole periods in the
    outer one. Parameters that lie as in `layout.apart` are run in a loop of Python's.
    """

    periods: Periods
    running: Running

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], segment_ids: Array, positions: Array, is_training: bool
    ) -> Float[Array, "B L D"]:
        p = self.periods
        projections, scale = PerLayerInput(p.num_layers, p.local.width, p.per_layer_dim, name="per_layer_input")()
        kernels = tuple(self._kernel(blocks, segment_ids.shape[1]) for blocks in (p.local, p.full))
        attended = tuple(
            (
                kernel.prepare(segment_ids),
                rotary_table(positions, b.heads.head_dim, b.reach.rope_base, b.reach.rope_scale),
            )
            for kernel, b in zip(kernels, (p.local, p.full))
        )
        shared = (attended, (x, scale))
        if self.has_variable("params", layout.layer(0)):
            return self._layer_by_layer(x, projections, kernels, *shared)
        count, rest = divmod(p.num_layers, p.global_every)
        scanned = count * p.global_every
        if count:
            unroll = min(max(1, self.running.unroll_of(is_training) // p.global_every), count)
            period = nn.scan(
                Period,
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, nn.broadcast, nn.broadcast),
                length=count,
                unroll=unroll,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )(p, p.global_every - 1, self.running, kernels, not is_training, unroll < count, name=layout.PERIODS)
            in_periods = projections[:scanned].reshape(count, p.global_every, *projections.shape[1:])
            x, _ = period(x, in_periods, *shared)
        if rest:
            last = Period(p, rest - 1, self.running, kernels, not is_training, False, name=layout.LAST)
            x, _ = last(x, projections[scanned:], *shared)
        return x

    @nn.nowrap
    def _layer_by_layer(self, x, projections, kernels, attended, embedded) -> Float[Array, "B L D"]:
        """Returns the same from parameters that lie as in `layout.apart`; called inside `__call__`."""
        kinds = (self.periods.local, self.periods.full)
        for number, is_global in enumerate(global_layers(self.periods.num_layers, self.periods.global_every)):
            block = GatedBlock(kinds[is_global], self.running, kernels[is_global], True, name=layout.layer(number))
            x, _ = block(x, projections[number], attended[is_global], embedded)
        return x

    @nn.nowrap
    def _kernel(self, blocks: Blocks, length) -> Xla:
        return Stack(blocks, self.running, parent=None).kernel(length, None)

    @nn.nowrap
    def forward_flops(self, length: int) -> float:
        """Returns the FLOPs of one text of `length` tokens, counted as `transformer.Stack` does."""
        p = self.periods
        blocks = sum(Stack(b, self.running, parent=None).forward_flops(length) for b in (p.local, p.full))
        return blocks + length * 2.0 * p.num_layers * 3 * p.local.width * p.per_layer_dim
