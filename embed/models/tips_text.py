"""TIPS' text tower: sinusoid positions, norms before each branch, a ReLU MLP. Source: arXiv:2410.16512 and its released code."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from embed.models.attention import equal_heads
from embed.models.kernels import Reach
from embed.models.layers import Norm
from embed.models.transformer import Blocks, TransformerEncoder
from embed.ranges import Layers, Positive, Size

MAX_TIMESCALE = 10_000.0


def sinusoids(positions, width: int):
    """Returns [..., width]: sines, then cosines, of positions over timescales from 1 to 10,000 in geometric steps."""
    scales = np.exp(np.arange(width // 2) * -(np.log(MAX_TIMESCALE) / max(1, width // 2 - 1)))
    angles = positions[..., None].astype(jnp.float32) * jnp.asarray(scales, jnp.float32)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


class TipsText(TransformerEncoder):
    """Token ids to one vector per token. Defaults are S/14's; texts are lower-cased and cut at 64 tokens.

    The embedding of a text is the mean over its real tokens, without a projection. So400m has 27 layers.
    """

    vocab_size: Size = 32_000
    width: Size = 384
    num_layers: Layers = 12
    num_heads: Size = 6
    mlp_dim: Size = 1536
    activation: str = "relu"
    norm_eps: Positive = 1e-6

    @nn.nowrap
    def blocks(self) -> Blocks:
        return Blocks(
            num_layers=self.num_layers,
            width=self.width,
            mlp_dim=self.mlp_dim,
            heads=equal_heads(self.num_heads, self.width),
            norm=Norm("layer", self.norm_eps, bias=True),
            norm_placement="before",
            activation=self.activation,
            gated=False,
            mlp_bias=True,
            reach=Reach(),
        )

    @property
    def embedding_scale(self) -> float:
        return self.width**0.5

    @nn.nowrap
    def read(self, x, tokens, positions, is_training):
        del tokens
        x = x + sinusoids(jnp.atleast_2d(positions), self.width)
        return nn.Dropout(self.dropout, deterministic=not is_training)(x)
