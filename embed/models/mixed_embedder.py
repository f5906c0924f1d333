"""One tower for texts and the images in them: EmbeddingGemma 2. A tower of images gives the vectors that stand in the text.

Source: transformers 5.24, models/embedding_gemma2.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from embed.models.dual_encoder import INSERTED, MIXED, reading_images
from embed.models.embedder import Embedder
from embed.models.gemma_vision import GemmaVision
from embed.models.layers import Linear, unit_rms
from embed.ranges import Count, Size
from embed.types import Method


class ImageTokens(nn.Module):
    """Images of `image_size` pixels a side to the vectors of their squares."""

    encoder: GemmaVision
    image_size: Size = 768
    towers = ()
    dropout = 0.0

    def __call__(self, pixels: Num[Array, "B Y X 3"], is_training: bool = False) -> Float[Array, "B T D"]:
        """Returns the vectors; `pixels` as in `GemmaVision`."""
        return self.encoder(pixels, is_training)

    @nn.nowrap
    def tokens(self) -> int:
        """Returns how many vectors an image gives."""
        return self.encoder.tokens(self.image_size, self.image_size)

    @nn.nowrap
    def forward_flops(self, height: int, width: int) -> float:
        """Returns the FLOPs of one image of so many pixels."""
        return self.encoder.forward_flops(height * width / self.encoder.patch_size**2)


class MixedEmbedder(nn.Module):
    """Texts with up to `max_images` images in them to unit vectors. An image by itself is the text '[MASK_0]'.

    An image stands in the text as `image.tokens()` vectors, each scaled to a root mean square of 1 and mapped to the width of the
    text tower, between the pieces `before` and `after` of the vocabulary (None has none). `placeholder` is the piece that
    transformers writes in the places of the vectors, which exports name.
    """

    text: Embedder
    image: ImageTokens
    max_images: Count = 8
    before: str | None = None
    after: str | None = None
    placeholder: str | None = None
    towers = ("text", "image")

    @property
    def matryoshka_dims(self) -> tuple[int, ...]:
        """The prefixes that the model is trained and served at."""
        return self.text.matryoshka_dims

    @nn.nowrap
    def methods(self) -> dict[str, Method]:
        """Returns how the model may be called."""
        return reading_images(self.text.methods(), self.image.forward_flops)

    @nn.nowrap
    def examples(self) -> dict[str, dict[str, Array]]:
        """Returns inputs of the methods that embed, one item each."""
        return self.text.examples()

    def initialise(self) -> None:
        """Calls all that the model has, so that all its parameters are made."""
        self.image.tokens()  # raises ConfigError for an image size that the tower cannot read
        square = self.image.encoder.patch_size * self.image.encoder.pooling
        self.text.initialise()
        self.inserted(jnp.zeros((1, square, square, 3)))

    @nn.compact
    def inserted(self, pixels: Num[Array, "B Y X 3"], is_training: bool = False) -> Float[Array, "B 1 T D"]:
        """Returns the text-tower input vectors of images. They do not depend on the image's number in its text."""
        encoder = self.image.encoder
        vectors = unit_rms(self.image(pixels, is_training), encoder.norm_eps)
        shape = (encoder.width, self.text.encoder.width)
        return Linear("BTD,DE->BTE", shape, (None, "width"), name="image_input")(vectors)[:, None]

    def run(self, method: str, inputs: Mapping[str, Array], is_training: bool, max_segments: int | None) -> Any:
        """Returns what a method of `methods` gives."""
        if method == INSERTED:
            return self.inserted(**inputs, is_training=is_training)
        if method == MIXED:
            return self.text(**inputs, is_training=is_training, max_segments=max_segments)
        return self.text.run(method, inputs, is_training, max_segments)
