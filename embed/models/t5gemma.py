"""T5Gemma: Gemma 2's blocks with capped attention logits, bidirectional in the encoder, causal in the decoder.

Source: arXiv:2504.06225.
"""

import flax.linen as nn

from embed.models.attention import Heads
from embed.models.kernels import Reach
from embed.models.layers import Norm
from embed.models.transformer import Blocks, TransformerEncoder
from embed.ranges import Layers, Natural, Positive, Size


class T5GemmaEncoder(TransformerEncoder):
    """Token ids to one vector per token. Defaults are T5Gemma 2B's.

    Unlike Gemma 3's, `window` counts one side: 4096 means 4,096 tokens to each, as transformers 5 reads it (4.57 and the
    first release: 4,095). Every `global_every`-th layer is global.
    """

    vocab_size: Size = 256_000
    width: Size = 2304
    num_layers: Layers = 26
    num_heads: Size = 8
    num_kv_heads: Size = 4
    head_dim: Size = 256
    mlp_dim: Size = 9216
    window: Natural = 4096
    global_every: Size = 2
    query_scale: Positive = 256**-0.5
    softcap: Positive | None = 50.0
    rope_base: Positive = 10_000.0
    norm_eps: Positive = 1e-6
    causal = False

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
            reach=Reach(None, 0 if self.causal else None, self.rope_base),
            local=self._local(),
            local_layers=tuple((i + 1) % self.global_every != 0 for i in range(self.num_layers)),
        )

    @nn.nowrap
    def _local(self) -> Reach:
        if self.causal:
            return Reach(max(self.window - 1, 0), 0, self.rope_base)
        return Reach(self.window, self.window, self.rope_base)

    @property
    def embedding_scale(self) -> float:
        return self.width**0.5


class T5GemmaDecoder(T5GemmaEncoder):
    """The decoder: causal, `window` 4096 being the token itself and 4,095 before it. Logits are capped at `final_softcap`."""

    final_softcap: Positive | None = 30.0
    causal = True
