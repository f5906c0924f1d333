"""Vision transformers: images to class tokens and one vector per patch.

TIPS' image tower has two class tokens without positions; Dinov2's has one with a position, and may have registers. Both are this
module with other fields. Source: arXiv:2010.11929, arXiv:2304.07193, arXiv:2309.16588, arXiv:2410.16512.
"""

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num
from msgspec import Meta

from embed import ranges
from embed.errors import ConfigError, did_you_mean
from embed.models.attention import equal_heads
from embed.models.kernels import Reach
from embed.models.layers import Linear, Norm, activation, compute_dtype
from embed.models.position_grid import RESIZES, resize_grid
from embed.models.transformer import REMAT, Blocks, Running, Stack
from embed.ranges import Count, Layers, Natural, Positive, Size
from embed.sharding import constrain


class VisionTransformer(nn.Module):
    """Pixels to class tokens and patches. Defaults are TIPS S/14's.

    `mlp_dim` is the MLP's hidden size; with `gated` (SwiGLU, arXiv:2002.05202) that of each of its two maps, 4,096 in g/14.
    `num_class_tokens` lead the sequence, then come `num_registers`, whose outputs nobody reads, then the patches row by row. With
    `class_position` the class tokens have a learned position too. `position_grid` is the side of the grid of learned positions;
    images of another size resize it (`position_resize`). With `mask_token` patches can be masked. From the colours `pixel_mean`
    is subtracted, and what is left is divided by `pixel_std`: nothing in TIPS, ImageNet's statistics in Dinov2.
    """

    patch_size: Size = 14
    width: Size = 384
    num_layers: Layers = 12
    num_heads: Size = 6
    mlp_dim: Size = 1536
    gated: bool = False
    activation: str = "gelu_tanh"
    num_class_tokens: Count = 2
    num_registers: Natural = 0
    class_position: bool = False
    position_grid: Size = 16
    position_resize: str = "linear_antialias"
    mask_token: bool = False
    pixel_mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    pixel_std: tuple[Positive, ...] = (1.0, 1.0, 1.0)
    layer_scale: Positive | None = None
    norm_eps: Positive = 1e-6
    stochastic_depth: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    attend_values: bool = False
    remat: str = "none"
    unroll: Count = 1
    dtype: str = "float32"
    attention: str = "auto"

    @nn.nowrap
    def blocks(self) -> Blocks:
        """Returns what the blocks are made of.

        With `attend_values` a token of the last block attends to itself alone: what it adds is the map of its own value. Such
        patches are near to texts where others are not (MaskCLIP, arXiv:2112.01071).
        """
        return Blocks(
            num_layers=self.num_layers,
            width=self.width,
            mlp_dim=self.mlp_dim,
            heads=equal_heads(self.num_heads, self.width),
            norm=Norm("layer", self.norm_eps, bias=True),
            norm_placement="before",
            activation=self.activation,
            gated=self.gated,
            mlp_bias=True,
            reach=Reach(),
            local=Reach(0, 0) if self.attend_values else None,
            local_layers=(False,) * (self.num_layers - 1) + (True,) if self.attend_values else (),
            layer_scale=self.layer_scale,
        )

    @nn.nowrap
    def running(self) -> Running:
        """Returns how the stack is run."""
        unroll = min(self.unroll, self.num_layers)
        return Running(0.0, self.remat, unroll, self.dtype, self.attention, self.stochastic_depth)

    @nn.compact
    def __call__(
        self, pixels: Num[Array, "B Y X 3"], patch_mask: Bool[Array, "B P"] | None = None, is_training: bool = False
    ) -> tuple[Float[Array, "B n D"], Float[Array, "B P D"]]:
        """Returns the class tokens and the patches, after the final norm.

        `pixels` are in [0, 1], or bytes. Images whose sides are no multiple of the patch are padded with zeros on both sides.
        Patches where `patch_mask` is True are replaced by the mask token.
        """
        self.check()
        x = self._read(pixels, patch_mask)
        real = jnp.ones(x.shape[:2], bool)
        x = Stack(self.blocks(), self.running(), name="stack")(x, real, jnp.arange(x.shape[1]), is_training)
        x = self.blocks().norm.make("final_norm")(x)
        lead = self.num_class_tokens + self.num_registers
        return x[:, : self.num_class_tokens], x[:, lead:]

    @nn.nowrap
    def _read(self, pixels, patch_mask) -> Float[Array, "B L D"]:
        """Returns the input of the first block; called inside `__call__`."""
        size, width = self.patch_size, self.width
        pixels = self._padded(self._scaled(pixels))
        rows, columns = pixels.shape[1] // size, pixels.shape[2] // size
        patches = pixels.reshape(-1, rows, size, columns, size, 3).transpose(0, 1, 3, 2, 4, 5)
        kernel = ((size, size, 3, width), ("patch", "patch", "channels", "width"))
        x = Linear(
            "BHWyxc,yxcD->BHWD",
            *kernel,
            input_axes=(0, 1, 2),
            bias=True,
            dtype=self.dtype,
            to_residual=True,
            name="patches",
        )(patches)
        x = x.reshape(x.shape[0], rows * columns, width)
        if self.mask_token:
            token = self._vector("mask_token", ())
            if patch_mask is not None:
                x = jnp.where(patch_mask[..., None], token, x)
        grid = self._vector("positions", (self.position_grid, self.position_grid))
        x = x + resize_grid(grid, rows, columns, self.position_resize).reshape(rows * columns, width)
        lead = self._vector("class_tokens", (self.num_class_tokens,))
        if self.class_position:
            lead = lead + self._vector("class_positions", (self.num_class_tokens,))
        if self.num_registers:
            lead = jnp.concatenate([lead, self._vector("registers", (self.num_registers,))])
        x = jnp.concatenate([jnp.broadcast_to(lead, (x.shape[0], *lead.shape)), x], 1)
        return constrain(x, "batch", "length", None)

    @nn.nowrap
    def _vector(self, name: str, shape: tuple[int, ...]) -> Float[Array, "*n D"]:
        """Returns a learned array of vectors; called inside `__call__`."""
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), (*(None for _ in shape), "width"))
        return self.param(name, init, (*shape, self.width), jnp.float32)

    @nn.nowrap
    def _scaled(self, pixels):
        """Returns colours as the tower was trained with."""
        pixels = pixels.astype(jnp.float32) / 255 if pixels.dtype == jnp.uint8 else pixels
        if not any(self.pixel_mean) and set(self.pixel_std) == {1.0}:
            return pixels
        return (pixels - jnp.array(self.pixel_mean)) / jnp.array(self.pixel_std)

    @nn.nowrap
    def _padded(self, pixels):
        """Returns images with zeros on both sides, the odd pixel at the bottom and on the right, to whole patches."""
        missing = [-side % self.patch_size for side in pixels.shape[1:3]]
        if not any(missing):
            return pixels
        return jnp.pad(pixels, ((0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)))

    @nn.nowrap
    def check(self) -> None:
        """Raises ConfigError for sizes and names that no vision transformer can have."""
        compute_dtype(self.dtype)
        if self.remat not in REMAT:
            raise ConfigError(f"remat {self.remat!r}{did_you_mean(self.remat, REMAT)}")
        if self.position_resize not in RESIZES:
            raise ConfigError(f"position_resize {self.position_resize!r}{did_you_mean(self.position_resize, RESIZES)}")
        ranges.check_fields(self)
        if len(self.pixel_mean) != 3 or len(self.pixel_std) != 3:
            raise ConfigError("VisionTransformer.pixel_mean and pixel_std have one number for each of three colours")
        if self.width % self.num_heads:
            raise ConfigError(
                f"VisionTransformer.width = {self.width} must be a multiple of num_heads = {self.num_heads}"
            )
        activation(self.activation)

    @nn.nowrap
    def num_patches(self, height: int, width: int) -> int:
        """Returns how many patches an image has."""
        return -(-height // self.patch_size) * -(-width // self.patch_size)

    @nn.nowrap
    def forward_flops(self, num_patches: float) -> float:
        """Returns the FLOPs of one image of so many patches."""
        patches = 2.0 * num_patches * 3 * self.patch_size**2 * self.width
        length = num_patches + self.num_class_tokens + self.num_registers
        return patches + Stack(self.blocks(), self.running(), parent=None).forward_flops(length)
