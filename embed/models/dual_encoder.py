"""A text tower and an image tower with one space of embeddings. Source: arXiv:2103.00020, arXiv:2410.16512."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from embed.errors import ConfigError
from embed.models.embedder import Embedder
from embed.models.layers import Linear, project
from embed.models.vit import VisionTransformer
from embed.ranges import Natural, Size
from embed.types import Method
from embed.vectors import normalize

IMAGE, TOKENS, MASKED = "image", "image_tokens", "masked_image_tokens"
WITH_TOKEN = "image_with_token"
INSERTED, MIXED = "inserted", "mixed"


def reading_images(methods: Mapping[str, Method], flops: Callable[[int, int], float]) -> dict[str, Method]:
    """Returns `methods` and those of reading images in texts. `flops` are of one image of so many pixels."""
    text = methods["text"]
    mixed = dataclasses.replace(text, inputs=(*text.inputs, INSERTED))
    return {**methods, INSERTED: Method(("pixels",), flops), MIXED: mixed}


class ImageEmbedder(nn.Module):
    """Images to unit vectors in float32: one of the class tokens, mapped by `projection` if there is one.

    TIPS' first class token (0) was trained on captions from the web, the second (1) on synthetic ones. `image_size` is the side
    of the square that images are resized to.
    """

    encoder: VisionTransformer
    class_token: Natural = 0
    projection: tuple[int, ...] = ()
    matryoshka_dims: tuple[int, ...] = ()
    image_size: Size = 224
    towers = ()

    @nn.compact
    def __call__(
        self, pixels: Num[Array, "B Y X 3"], is_training: bool = False, with_token: bool = False
    ) -> Float[Array, "B E"] | tuple[Float[Array, "B E"], Float[Array, "B D"]]:
        """Returns the embeddings of images; `pixels` as in `vit.VisionTransformer`.

        `with_token` returns beside them the class tokens that they are made of.
        """
        if self.class_token >= self.encoder.num_class_tokens:
            raise ConfigError(
                f"ImageEmbedder.class_token = {self.class_token}, and the encoder has {self.encoder.num_class_tokens} class "
                "tokens, counted from 0; take one of them"
            )
        token = self.encoder(pixels, None, is_training)[0][:, self.class_token]
        embedding = normalize(project(token, self.projection)[-1])
        return (embedding, token) if with_token else embedding

    @nn.nowrap
    def methods(self) -> dict[str, Method]:
        """Returns how the model may be called. `image_tokens` are class tokens and patches, as the encoder gives them."""
        methods = {
            IMAGE: Method(("pixels",), self.forward_flops),
            WITH_TOKEN: Method(("pixels",), self.forward_flops),
            TOKENS: Method(("pixels",), self.token_flops),
        }
        if self.encoder.mask_token:
            methods[MASKED] = Method(("pixels", "patch_mask"), self.token_flops)
        return methods

    @nn.nowrap
    def examples(self) -> dict[str, dict[str, Array]]:
        """Returns inputs of the methods that embed, one item each."""
        return {IMAGE: {"pixels": jnp.zeros((1, self.image_size, self.image_size, 3))}}

    def initialise(self) -> None:
        """Calls all that the model has, so that all its parameters are made."""
        self(**self.examples()[IMAGE])

    def run(self, method: str, inputs: Mapping[str, Array], is_training: bool, max_segments: int | None) -> Any:
        """Returns what a method of `methods` gives."""
        del max_segments
        if method in (IMAGE, WITH_TOKEN):
            return self(**inputs, is_training=is_training, with_token=method == WITH_TOKEN)
        return self.encoder(inputs["pixels"], inputs.get("patch_mask"), is_training)

    @nn.nowrap
    def token_flops(self, height: int, width: int) -> float:
        """Returns the FLOPs of the encoder, of an image of so many pixels."""
        return self.encoder.forward_flops(self.encoder.num_patches(height, width))

    @nn.nowrap
    def forward_flops(self, height: int, width: int) -> float:
        """Returns the FLOPs of embedding one image of so many pixels."""
        sizes = [self.encoder.width, *self.projection]
        return self.token_flops(height, width) + sum(2.0 * a * b for a, b in zip(sizes, sizes[1:]))


class DualEncoder(nn.Module):
    """Texts and images to unit vectors of one size. The embeddings of a text and of an image are compared by their cosine.

    With `max_images` a text may hold up to that many images, each as one token. The token's input vector is the image's class
    token, mapped to the width of the text tower, plus a learned vector for its number k in `[MASK_k]`. Source: arXiv:2506.02291;
    the paper's encoder was not at hand, and this one is our choice.
    """

    text: Embedder
    image: ImageEmbedder
    matryoshka_dims: tuple[int, ...] = ()
    max_images: Natural = 0
    towers = ("text", "image")

    @nn.nowrap
    def methods(self) -> dict[str, Method]:
        """Returns the methods of both towers."""
        methods = {**self.text.methods(), **self.image.methods()}
        return reading_images(methods, self.image.token_flops) if self.max_images else methods

    @nn.nowrap
    def examples(self) -> dict[str, dict[str, Array]]:
        """Returns inputs of the methods that embed, one item each."""
        return {**self.text.examples(), **self.image.examples()}

    def initialise(self) -> None:
        """Calls all that the model has, so that all its parameters are made."""
        self.text.initialise()
        self.image.initialise()
        if self.max_images:
            self.inserted(**self.image.examples()[IMAGE])

    @nn.compact
    def inserted(self, pixels: Num[Array, "B Y X 3"], is_training: bool = False) -> Float[Array, "B K 1 D"]:
        """Returns the text-tower input vectors of images: entry k of axis K is for an image that its text names `[MASK_k]`."""
        token = self.image.encoder(pixels, None, is_training)[0][:, self.image.class_token]
        width = self.text.encoder.width
        vectors = Linear("BD,DE->BE", (token.shape[-1], width), (None, "width"), name="image_input")(token)
        init = nn.with_logical_partitioning(nn.initializers.normal(width**-0.5), (None, "width"))
        numbers = self.param("image_numbers", init, (self.max_images, width), jnp.float32)
        scale = self.text.encoder.embedding_scale
        return (vectors[:, None] + numbers)[:, :, None] * scale

    def run(self, method: str, inputs: Mapping[str, Array], is_training: bool, max_segments: int | None) -> Any:
        """Returns what a method of `methods` gives."""
        if method == INSERTED:
            return self.inserted(**inputs, is_training=is_training)
        if method == MIXED:
            return self.text(**inputs, is_training=is_training, max_segments=max_segments)
        tower = self.image if method in self.image.methods() else self.text
        return tower.run(method, inputs, is_training, max_segments)
