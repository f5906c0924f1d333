"""The text model of EmbeddingGemma 2: bidirectional, with wider heads in global layers and per-layer embeddings.

Source: transformers 5.23 and 5.24, models/embedding_gemma2. Defaults are those of its configuration: 24 layers of width 512,
every sixth global, and vectors of 768 values.
"""

import flax.linen as nn

from embed.errors import ConfigError
from embed.models.attention import Heads
from embed.models.kernels import Reach
from embed.models.layers import Linear, Norm
from embed.models.periods import Periods, PeriodStack, global_layers
from embed.models.transformer import Blocks, TransformerEncoder
from embed.ranges import Layers, Positive, Size


class EmbeddingGemma2(TransformerEncoder):
    """Token ids to one vector of `output_dim` values per token: the last states are mapped there, which commutes with pooling.

    `window` is a radius: 512 means 512 tokens to each side. The last of every `global_every` layers, and the last of all, sees
    the whole text, and has `global_num_kv_heads` and `global_head_dim`. `per_layer_dim` is the size of each layer's own embeddings
    of the tokens. An `unroll` of `global_every` or more compiles whole periods.
    """

    vocab_size: Size = 262_144
    width: Size = 512
    num_layers: Layers = 24
    num_heads: Size = 4
    num_kv_heads: Size = 2
    head_dim: Size = 256
    global_num_kv_heads: Size = 1
    global_head_dim: Size = 512
    mlp_dim: Size = 2048
    per_layer_dim: Size = 512
    output_dim: Size = 768
    window: Size = 512
    global_every: Size = 6
    local_rope_base: Positive = 10_000.0
    global_rope_base: Positive = 1_000_000.0
    norm_eps: Positive = 1e-6
    branch_gain: Positive = 1.0

    @nn.nowrap
    def blocks(self) -> Blocks:
        """Returns what the local blocks are made of."""
        count = self.num_layers - sum(global_layers(self.num_layers, self.global_every))
        reach = Reach(self.window, self.window, self.local_rope_base)
        return self._blocks(count, self.num_kv_heads, self.head_dim, reach)

    @nn.nowrap
    def global_blocks(self) -> Blocks:
        """Returns what the global blocks are made of."""
        count = sum(global_layers(self.num_layers, self.global_every))
        return self._blocks(
            count, self.global_num_kv_heads, self.global_head_dim, Reach(rope_base=self.global_rope_base)
        )

    @nn.nowrap
    def _blocks(self, num_layers: int, num_kv_heads: int, head_dim: int, reach: Reach) -> Blocks:
        norm = Norm("rms", self.norm_eps)
        heads = Heads(
            self.num_heads, num_kv_heads, head_dim, query_scale=1.0, query_key_norm=norm, value_norm_eps=self.norm_eps
        )
        return Blocks(
            num_layers=num_layers,
            width=self.width,
            mlp_dim=self.mlp_dim,
            heads=heads,
            norm=norm,
            norm_placement="sandwich",
            activation="gelu_tanh",
            gated=True,
            reach=reach,
            branch_gain=self.branch_gain,
        )

    @nn.nowrap
    def make_stack(self) -> PeriodStack:
        return PeriodStack(self._periods(), self.running(), name="stack")

    @nn.nowrap
    def _periods(self) -> Periods:
        return Periods(self.blocks(), self.global_blocks(), self.global_every, self.per_layer_dim)

    @property
    def embedding_scale(self) -> float:
        return self.width**0.5

    @nn.nowrap
    def finish(self, x):
        x = super().finish(x)
        shape, axes = (self.width, self.output_dim), ("width", "embedding")
        return Linear("BLD,DE->BLE", shape, axes, dtype=self.dtype, to_residual=True, name="output")(x)

    @nn.nowrap
    def check(self) -> None:
        super().check()
        if self.num_heads % self.global_num_kv_heads or self.global_head_dim % 2:
            raise ConfigError(
                f"{type(self).__name__}.num_heads = {self.num_heads} must be a multiple of global_num_kv_heads = "
                f"{self.global_num_kv_heads}, and global_head_dim = {self.global_head_dim} even"
            )

    @nn.nowrap
    def forward_flops(self, length: int) -> float:
        output = 2.0 * length * self.width * self.output_dim
        return PeriodStack(self._periods(), self.running(), parent=None).forward_flops(length) + output
