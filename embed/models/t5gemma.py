"""The encoder of T5Gemma: Gemma 2's blocks, bidirectional, with capped attention logits. Source: arXiv:2504.06225."""

import flax.linen as nn

from embed.models.attention import Heads
from embed.models.kernels import Reach
from embed.models.layers import Embedding, Norm
from embed.models.transformer import Blocks, TransformerEncoder


class T5GemmaEncoder(TransformerEncoder):
    """Token ids to one vector per token. Defaults are T5Gemma 2B's.

    Unlike Gemma 3's, `window` counts one side: 4096 means 4,096 tokens to each, as transformers 5 reads it (4.57 and the
    first release: 4,095). Every `global_every`-th layer is global.
    """

    vocab_size: int = 256_000
    width: int = 2304
    num_layers: int = 26
    num_heads: int = 8
    num_kv_heads: int = 4
    head_dim: int = 256
    mlp_dim: int = 9216
    window: int = 4096
    global_every: int = 2
    query_scale: float = 256**-0.5
    softcap: float | None = 50.0
    rope_base: float = 10_000.0
    norm_eps: float = 1e-6

    @nn.nowrap
    def blocks(self) -> Blocks:
        return Blocks(
            num_layers=self.num_layers,
            width=self.width,
            mlp_dim=self.mlp_dim,
            heads=Heads(
                self.num_heads, self.num_kv_heads, self.head_dim, query_scale=self.query_scale, softcap=self.softcap
            ),
            norm=Norm("rms_offset", self.norm_eps),
            norm_placement="sandwich",
            activation="gelu_tanh",
            gated=True,
            reach=Reach(rope_base=self.rope_base),
            local=Reach(self.window, self.window, self.rope_base),
            local_layers=tuple((i + 1) % self.global_every != 0 for i in range(self.num_layers)),
        )

    @nn.nowrap
    def read(self, tokens, positions, is_training):
        del positions, is_training
        return Embedding(self.vocab_size, self.width, scale=self.width**0.5, name="embedding")(tokens)
