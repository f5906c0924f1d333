"""ModernBERT: norms before each branch, gated MLPs, local and global layers. Source: arXiv:2412.13663."""

import flax.linen as nn

from embed.models.attention import Heads
from embed.models.kernels import Reach
from embed.models.layers import Norm
from embed.models.transformer import Blocks, TransformerEncoder
from embed.ranges import Layers, Natural, Positive, Size


class ModernBert(TransformerEncoder):
    """Token ids to one vector per token. Defaults are ModernBERT-base's.

    `window` 128 means 64 tokens to each side. Layer 0 and every `global_every`-th after it see the whole text. The first
    block has no attention norm: the embedding's norm stands right before it.
    """

    vocab_size: Size = 50_368
    width: Size = 768
    num_layers: Layers = 22
    num_heads: Size = 12
    mlp_dim: Size = 1152
    window: Natural = 128
    global_every: Size = 3
    local_rope_base: Positive = 10_000.0
    global_rope_base: Positive = 160_000.0
    activation: str = "gelu"
    norm_eps: Positive = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False

    @nn.nowrap
    def blocks(self) -> Blocks:
        size = self.width // self.num_heads
        heads = Heads(
            self.num_heads,
            self.num_heads,
            size,
            query_scale=size**-0.5,
            input_bias=self.attention_bias,
            output_bias=self.attention_bias,
        )
        return Blocks(
            num_layers=self.num_layers,
            width=self.width,
            mlp_dim=self.mlp_dim,
            heads=heads,
            norm=Norm("layer", self.norm_eps, self.norm_bias),
            norm_placement="before",
            activation=self.activation,
            gated=True,
            mlp_bias=self.mlp_bias,
            reach=Reach(rope_base=self.global_rope_base),
            local=Reach(self.window // 2, self.window // 2, self.local_rope_base),
            local_layers=tuple(i % self.global_every != 0 for i in range(self.num_layers)),
            first_norm=False,
        )

    @nn.nowrap
    def read(self, x, tokens, positions, is_training):
        del tokens, positions
        x = self.blocks().norm.make("embedding_norm")(x)
        return nn.Dropout(self.dropout, deterministic=not is_training)(x)
