"""BERT and its kin: learned positions, norms after each sum, biases everywhere. Source: arXiv:1810.04805.

all-MiniLM, bge and e5 are BERTs; multilingual-e5 and bge-m3 are XLM-RoBERTas, whose positions begin behind the padding's
(`position_offset` 2) and which have one token type.
"""

import flax.linen as nn
import jax.numpy as jnp

from embed.errors import DataError
from embed.models.attention import equal_heads
from embed.models.kernels import Reach
from embed.models.layers import Embedding, Norm
from embed.models.transformer import Blocks, TransformerEncoder
from embed.ranges import Layers, Natural, Positive, Size
from embed.sharding import constrain


class Bert(TransformerEncoder):
    """Token ids to one vector per token. Defaults are all-MiniLM-L6-v2's. Every token is of type 0."""

    vocab_size: Size = 30_522
    width: Size = 384
    num_layers: Layers = 6
    num_heads: Size = 12
    mlp_dim: Size = 1536
    max_positions: Size = 512
    position_offset: Natural = 0
    num_token_types: Size = 2
    activation: str = "gelu"
    norm_eps: Positive = 1e-12

    @nn.nowrap
    def blocks(self) -> Blocks:
        return Blocks(
            num_layers=self.num_layers,
            width=self.width,
            mlp_dim=self.mlp_dim,
            heads=equal_heads(self.num_heads, self.width),
            norm=Norm("layer", self.norm_eps, bias=True),
            norm_placement="after",
            activation=self.activation,
            gated=False,
            mlp_bias=True,
            reach=Reach(),
        )

    @nn.nowrap
    def read(self, x, tokens, positions, is_training):
        max_length = self.max_positions - self.position_offset
        if positions.ndim == 1 and isinstance(tokens.shape[1], int) and tokens.shape[1] > max_length:
            raise DataError(
                f"texts of {tokens.shape[1]} tokens, but the model has positions for {max_length}; lower the length"
            )
        table = Embedding(self.max_positions, self.width, name="position_embedding")(
            self._position_ids(tokens, positions)
        )
        types = Embedding(self.num_token_types, self.width, name="type_embedding")(jnp.zeros((1, 1), jnp.int32))
        x = x + types + table
        x = self.blocks().norm.make("embedding_norm")(constrain(x, "batch", "length", None))
        return nn.Dropout(self.dropout, deterministic=not is_training)(x)

    @nn.nowrap
    def _position_ids(self, tokens, positions):
        """Returns the rows of the position table.

        XLM-RoBERTa counts the tokens that are not the padding's: '<pad>' written in a text is a token at the padding's position.
        """
        if self.position_offset == 0:
            return jnp.atleast_2d(positions)
        is_padding = tokens == self.position_offset - 1
        count = jnp.cumsum(is_padding, axis=1)
        before = jnp.pad(count, ((0, 0), (1, 0)))[:, :-1]
        start = jnp.broadcast_to(jnp.arange(tokens.shape[1]) - positions, tokens.shape)
        in_text = count - jnp.take_along_axis(before, start, axis=1)
        return jnp.where(is_padding, 0, positions - in_text + 1) + self.position_offset - 1

    @nn.nowrap
    def finish(self, x):
        return x
