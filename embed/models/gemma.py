"""The Gemma 3 transformer as a bidirectional encoder: the backbone of EmbeddingGemma. Source: arXiv:2509.20354 s2.1.

Defaults are EmbeddingGemma's: 24 layers of width 768, three query heads and one key-value head of 256, every sixth layer
global. `window` 512 means 256 tokens to each side, as in the released weights.
"""

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from embed.errors import ConfigError
from embed.models.layers import Embedding, RMSNorm, compute_dtype
from embed.models.transformer import Stack
from embed.sharding import constrain


class Gemma(nn.Module):
    """Token ids to one vector per token."""

    vocab_size: int = 262_144
    width: int = 768
    num_layers: int = 24
    num_heads: int = 3
    num_kv_heads: int = 1
    head_dim: int = 256
    mlp_dim: int = 1152
    window: int = 512
    global_every: int = 6
    local_rope_base: float = 10_000.0
    global_rope_base: float = 1_000_000.0
    branch_gain: float = 1.0
    dropout: float = 0.0
    remat: str = "none"
    unroll: int = 1
    dtype: str = "float32"

    def setup(self):
        self.embedding = Embedding(self.vocab_size, self.width)
        self.stack = Stack(**self._stack_fields())
        self.final_norm = RMSNorm()

    @nn.nowrap
    def _check(self) -> None:
        """Raises ConfigError for a size that no Gemma can have."""
        compute_dtype(self.dtype)
        sizes = (
            "vocab_size",
            "width",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "head_dim",
            "mlp_dim",
            "global_every",
            "unroll",
        )
        for name in sizes:
            if getattr(self, name) < 1:
                raise ConfigError(f"Gemma.{name} = {getattr(self, name)}; it must be at least 1")
        if self.window < 0 or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"Gemma.window = {self.window} must not be negative, Gemma.dropout = {self.dropout} in [0, 1)"
            )
        if self.num_heads % self.num_kv_heads or self.head_dim % 2:
            raise ConfigError(
                f"Gemma.num_heads = {self.num_heads} must be a multiple of num_kv_heads = {self.num_kv_heads}, "
                f"and head_dim = {self.head_dim} even"
            )

    @nn.nowrap
    def _stack_fields(self) -> dict:
        return {
            "num_layers": self.num_layers,
            "width": self.width,
            "num_heads": self.num_heads,
            "num_kv_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "mlp_dim": self.mlp_dim,
            "query_scale": self.head_dim**-0.5,
            "radius": self.window // 2,
            "global_every": self.global_every,
            "local_rope_base": self.local_rope_base,
            "global_rope_base": self.global_rope_base,
            "branch_gain": self.branch_gain,
            "dropout": self.dropout,
            "remat": self.remat,
            "unroll": self.unroll,
            "dtype": self.dtype,
        }

    def __call__(
        self, tokens: Int[Array, "B L"], mask: Bool[Array, "B L"], is_training: bool = False
    ) -> Float[Array, "B L D"]:
        self._check()
        x = constrain(self.embedding(tokens), "batch", "length", None)
        return self.final_norm(self.stack(x, mask, is_training))

    @nn.nowrap
    def forward_flops(self, length: int) -> float:
        """Returns the FLOPs of one text of `length` tokens; reading the token table costs none."""
        return Stack(**self._stack_fields(), parent=None).forward_flops(length)
