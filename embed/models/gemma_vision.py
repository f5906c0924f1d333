"""The image tower of Gemma 4 and EmbeddingGemma 2: images to the vectors that stand for them in a text.

Source: transformers 5.24, models/gemma4 (vision). Defaults are those of its configuration.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from embed import ranges
from embed.errors import ConfigError, did_you_mean
from embed.models.attention import Heads
from embed.models.kernels import Reach
from embed.models.layers import Linear, Norm, compute_dtype
from embed.models.transformer import REMAT, Blocks, Running, Stack
from embed.ranges import Count, Layers, Positive, Size
from embed.sharding import constrain


class GemmaVision(nn.Module):
    """Pixels to one vector for each square of `pooling` x `pooling` patches, row by row.

    The vector is the mean of the patches, times sqrt(width). Learned position embeddings of the column and of the row, up to
    `max_positions`, are added to each patch, and rotary positions rotate one half of each head by the column and one by the row.
    With `standardize` the vectors become (x - mean) * inverse_deviation, constants of the checkpoint that are not trained.
    """

    patch_size: Size = 16
    width: Size = 768
    num_layers: Layers = 16
    num_heads: Size = 12
    num_kv_heads: Size = 12
    head_dim: Size = 64
    mlp_dim: Size = 3072
    pooling: Count = 3
    max_positions: Size = 10_240
    rope_base: Positive = 100.0
    standardize: bool = False
    norm_eps: Positive = 1e-6
    branch_gain: Positive = 1.0
    remat: str = "none"
    unroll: Count = 1
    dtype: str = "float32"
    attention: str = "auto"

    @nn.nowrap
    def blocks(self) -> Blocks:
        """Returns what the blocks are made of."""
        norm = Norm("rms", self.norm_eps)
        heads = Heads(
            self.num_heads,
            self.num_kv_heads,
            self.head_dim,
            query_scale=1.0,
            query_key_norm=norm,
            value_norm_eps=self.norm_eps,
        )
        return Blocks(
            num_layers=self.num_layers,
            width=self.width,
            mlp_dim=self.mlp_dim,
            heads=heads,
            norm=norm,
            norm_placement="sandwich",
            activation="gelu_tanh",
            gated=True,
            reach=Reach(rope_base=self.rope_base, rope_axes=2),
            branch_gain=self.branch_gain,
        )

    @nn.nowrap
    def running(self) -> Running:
        """Returns how the stack is run."""
        return Running(0.0, self.remat, min(self.unroll, self.num_layers), self.dtype, self.attention)

    @nn.compact
    def __call__(self, pixels: Num[Array, "B Y X 3"], is_training: bool = False) -> Float[Array, "B T D"]:
        """Returns the vectors. `pixels` are floats in [0, 1] or uint8; each side is a multiple of patch_size * pooling."""
        self.check()
        rows, columns = (self._patches(side) for side in pixels.shape[1:3])
        x = self._read(pixels, rows, columns)
        row, column = jnp.divmod(jnp.arange(rows * columns), columns)
        real = jnp.ones(x.shape[:2], bool)
        x = Stack(self.blocks(), self.running(), name="stack")(x, real, jnp.stack([column, row], -1), is_training)
        return self._standardized(self._pooled(x, rows, columns))

    @nn.nowrap
    def _read(self, pixels, rows: int, columns: int) -> Float[Array, "B L D"]:
        """Returns the input of the first block; called inside `__call__`."""
        size, width = self.patch_size, self.width
        pixels = pixels.astype(jnp.float32) / 255 if pixels.dtype == jnp.uint8 else pixels
        patches = (2 * pixels - 1).reshape(-1, rows, size, columns, size, 3).transpose(0, 1, 3, 2, 4, 5)
        x = Linear(
            "BHWyxc,yxcD->BHWD",
            (size, size, 3, width),
            ("patch", "patch", "channels", "width"),
            input_axes=(0, 1, 2),
            dtype=self.dtype,
            to_residual=True,
            name="patches",
        )(patches)
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, None, "width"))
        table = self.param("positions", init, (2, self.max_positions, width), jnp.float32)
        x = x + table[0, :columns] + table[1, :rows, None]
        return constrain(x.reshape(-1, rows * columns, width), "batch", "length", None)

    @nn.nowrap
    def _pooled(self, x, rows: int, columns: int) -> Float[Array, "B T D"]:
        side = self.pooling
        x = x.reshape(-1, rows // side, side, columns // side, side, self.width).mean((2, 4))
        return x.reshape(x.shape[0], -1, self.width) * self.width**0.5

    @nn.nowrap
    def _standardized(self, x) -> Float[Array, "B T D"]:
        """Returns the vectors as the checkpoint standardises them; called inside `__call__`."""
        if not self.standardize:
            return x
        constant = lambda name, init: jax.lax.stop_gradient(  # noqa: E731
            self.param(name, nn.with_logical_partitioning(init, ("width",)), (self.width,), jnp.float32)
        )
        return (x - constant("mean", nn.initializers.zeros)) * constant("inverse_deviation", nn.initializers.ones)

    @nn.nowrap
    def _patches(self, side: int) -> int:
        """Returns how many patches a side of so many pixels has."""
        square = self.patch_size * self.pooling
        if side % square or side // self.patch_size > self.max_positions:
            raise ConfigError(
                f"images of {side} pixels a side; GemmaVision reads multiples of patch_size * pooling = {square}, up to "
                f"{self.max_positions} patches"
            )
        return side // self.patch_size

    @nn.nowrap
    def check(self) -> None:
        """Raises ConfigError for sizes and names that no such tower can have."""
        compute_dtype(self.dtype)
        if self.remat not in REMAT:
            raise ConfigError(f"remat {self.remat!r}{did_you_mean(self.remat, REMAT)}")
        ranges.check_fields(self)
        if self.num_heads % self.num_kv_heads or self.head_dim % 4:
            raise ConfigError(
                f"GemmaVision.num_heads = {self.num_heads} must be a multiple of num_kv_heads = {self.num_kv_heads}, and "
                f"head_dim = {self.head_dim} a multiple of 4"
            )

    @nn.nowrap
    def tokens(self, height: int, width: int) -> int:
        """Returns how many vectors an image of so many pixels gives."""
        return self._patches(height) * self._patches(width) // self.pooling**2

    @nn.nowrap
    def forward_flops(self, num_patches: float) -> float:
        """Returns the FLOPs of one image of so many patches."""
        patches = 2.0 * num_patches * 3 * self.patch_size**2 * self.width
        return patches + Stack(self.blocks(), self.running(), parent=None).forward_flops(num_patches)
