"""The Gemma 3 transformer: bidirectional as in EmbeddingGemma, or causal as the decoder it began as.

Source: arXiv:2509.20354 s2.1, arXiv:2503.19786. Defaults are EmbeddingGemma's: 24 layers of width 768, three query heads and
one key-value head of 256, every sixth layer global.
"""

import flax.linen as nn

from embed.models.attention import Heads
from embed.models.kernels import Reach
from embed.models.layers import Norm
from embed.models.transformer import Blocks, TransformerEncoder
from embed.ranges import Layers, Natural, Positive, Size


class Gemma(TransformerEncoder):
    """Token ids to one vector per token.

    `window` 512 means 256 tokens to each side, as in the released weights; 511 before and none after when `causal`.
    `query_scale` None is head_dim^-0.5. `global_rope_scale` stretches the positions of global layers (8 in Gemma 3 4B).
    """

    vocab_size: Size = 262_144
    width: Size = 768
    num_layers: Layers = 24
    num_heads: Size = 3
    num_kv_heads: Size = 1
    head_dim: Size = 256
    mlp_dim: Size = 1152
    window: Natural = 512
    global_every: Size = 6
    causal: bool = False
    query_scale: Positive | None = None
    local_rope_base: Positive = 10_000.0
    global_rope_base: Positive = 1_000_000.0
    global_rope_scale: Positive = 1.0
    norm_eps: Positive = 1e-6
    branch_gain: Positive = 1.0

    @nn.nowrap
    def blocks(self) -> Blocks:
        norm = Norm("rms_offset", self.norm_eps)
        left, right = (max(self.window - 1, 0), 0) if self.causal else (self.window // 2, self.window // 2)
        return Blocks(
            num_layers=self.num_layers,
            width=self.width,
            mlp_dim=self.mlp_dim,
            heads=Heads(
                self.num_heads,
                self.num_kv_heads,
                self.head_dim,
                query_scale=self.query_scale or self.head_dim**-0.5,
                query_key_norm=norm,
            ),
            norm=norm,
            norm_placement="sandwich",
            activation="gelu_tanh",
            gated=True,
            reach=Reach(None, 0 if self.causal else None, self.global_rope_base, self.global_rope_scale),
            local=Reach(left, right, self.local_rope_base),
            local_layers=tuple((i + 1) % self.global_every != 0 for i in range(self.num_layers)),
            branch_gain=self.branch_gain,
        )

    @property
    def embedding_scale(self) -> float:
        return self.width**0.5
