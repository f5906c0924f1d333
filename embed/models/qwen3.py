"""The Qwen3 decoder as an encoder: causal, the last token is the text. Source: arXiv:2505.09388, arXiv:2506.05176."""

import flax.linen as nn

from embed.models.attention import Heads
from embed.models.kernels import Reach
from embed.models.layers import Norm
from embed.models.transformer import Blocks, TransformerEncoder
from embed.ranges import Layers, Positive, Size


class Qwen3(TransformerEncoder):
    """Token ids to one vector per token. Defaults are Qwen3-Embedding-0.6B's. `causal` False opens it to both sides."""

    vocab_size: Size = 151_669
    width: Size = 1024
    num_layers: Layers = 28
    num_heads: Size = 16
    num_kv_heads: Size = 8
    head_dim: Size = 128
    mlp_dim: Size = 3072
    causal: bool = True
    rope_base: Positive = 1_000_000.0
    norm_eps: Positive = 1e-6
    attention_bias: bool = False

    @nn.nowrap
    def blocks(self) -> Blocks:
        norm = Norm("rms", self.norm_eps)
        return Blocks(
            num_layers=self.num_layers,
            width=self.width,
            mlp_dim=self.mlp_dim,
            heads=Heads(
                self.num_heads,
                self.num_kv_heads,
                self.head_dim,
                query_scale=self.head_dim**-0.5,
                query_key_norm=norm,
                input_bias=self.attention_bias,
                output_bias=self.attention_bias,
            ),
            norm=norm,
            norm_placement="before",
            activation="silu",
            gated=True,
            reach=Reach(None, 0 if self.causal else None, self.rope_base),
        )
