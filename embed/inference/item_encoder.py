"""Items of texts and images to unit vectors, with the towers that a model has."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from embed.data.interleaved import check_masks, has_masks, mask, slots_of, without_masks
from embed.errors import UsageError
from embed.inference import arguments
from embed.inference.encoder import Encoder
from embed.inference.image_encoder import ImageEncoder
from embed.inference.items import check_filled, check_images, check_single_images, items_of
from embed.inference.mixed_encoder import MixedEncoder
from embed.types import Item, Model, Params


@dataclasses.dataclass(frozen=True)
class ItemEncoder:
    """Encodes items with any parameters of one model. `texts` and `images` are None where the model has no such tower."""

    model: Model
    mesh: Mesh
    texts: Encoder | None = None
    images: ImageEncoder | None = None

    @functools.cached_property
    def mixed(self) -> MixedEncoder | None:
        """What encodes texts with images in them; None where the model does not read them."""
        slots = slots_of(self.model.description)
        return None if slots is None else MixedEncoder(self.texts, self.images, slots)

    def patches(self, params: Params, items: Sequence[Any], *, values: bool = False) -> tuple[np.ndarray, int, int]:
        """Returns (float32 vectors of patches [n, P, D], rows, columns) of items of one image each (`types.PatchFn`)."""
        if "image_tokens" not in self.model.methods:
            raise UsageError("the model has no image tower that embeds patches; take a model with one")
        listed = items_of(items, takes_images=True)
        check_images(listed)
        check_single_images(listed)
        images = [item.images[0] for item in listed]
        locations = [f"the image of item {row} of {len(listed)}" for row in range(len(listed))]
        return self.images.patches(params, images, locations, attend_values=values)

    def __call__(
        self,
        params: Params,
        items: Sequence[str | Item],
        *,
        prompt: str,
        progress: Callable[[int], None] = lambda items: None,
        allow_empty: bool = False,
    ) -> np.ndarray:
        """Returns float32 unit vectors [n, E] in the order of `items`. `progress` is called with numbers of items as they come.

        If the model reads images in texts, a text with images is one input, in which `[MASK_k]` stands for image k. Otherwise the
        vector is the sum of the unit vectors of the parts, the text without masks, scaled to unit length, as in MTEB; so is the
        vector of several images without a text. If the model has no method 'image' (`MixedEmbedder`), images without a text are
        encoded as the text "[MASK_0] [MASK_1] ..." without a prompt. Raises DataError with the position for a value that is no
        item, and for an empty text unless `allow_empty`.
        """
        if self.images is None:
            return self.texts(params, items, prompt=prompt, progress=progress, allow_empty=allow_empty)
        listed = items_of(items, takes_images=True)
        if self.texts is None:
            check_images(listed)
        elif not arguments.truth(allow_empty, "allow_empty"):
            check_filled(listed)
        locations = [f"item {row} of {len(listed)}" for row in range(len(listed))]
        is_alone = ["image" not in self.model.methods and item.text is None for item in listed]
        listed = [_as_text(item) if alone else item for item, alone in zip(listed, is_alone)]
        if self.mixed is None:
            listed = [_without_masks(item) for item in listed]
        else:
            for item, location in zip(listed, locations):
                if item.text is not None:
                    text = item.text if item.title is None else f"{item.title} {item.text}"
                    check_masks(text, len(item.images), location, self.mixed.slots.max_images)
        is_mixed = [self.mixed is not None and item.text is not None and len(item.images) > 0 for item in listed]
        vectors = np.zeros((len(listed), self.model.embedding_dim), np.float32)
        for alone, prompt_of_them in ((False, prompt), (True, "none")):
            rows = [row for row in np.flatnonzero(is_mixed) if is_alone[row] == alone]
            if rows:
                chosen = [listed[row] for row in rows], [locations[row] for row in rows]
                vectors[rows] = self.mixed(params, *chosen, prompt=prompt_of_them, progress=progress)
        others = np.flatnonzero(np.logical_not(is_mixed))
        has_text = [row for row in others if listed[row].text is not None]
        if has_text or (self.texts is not None and not listed):
            texts = [Item(listed[row].text, listed[row].title) for row in has_text]
            vectors[has_text] = self.texts(params, texts, prompt=prompt, progress=progress, allow_empty=True)
        images = [(row, image) for row in others for image in listed[row].images]
        if images:
            image_locations = [f"the image of {locations[row]}" for row, _ in images]
            of_images = self.images(params, [image for _, image in images], image_locations, progress)
            np.add.at(vectors, [row for row, _ in images], of_images)
        several = [row for row in others if len(listed[row].images) + (listed[row].text is not None) > 1]
        vectors[several] /= np.maximum(np.linalg.norm(vectors[several], axis=1, keepdims=True), 1e-12)
        return vectors


def _without_masks(item: Item) -> Item:
    """Returns an item with its images beside its text, not in it; a text of masks alone is left out."""
    if not item.images or item.text is None or not has_masks(item.text):
        return item
    text = without_masks(item.text)
    return Item(text, item.title, item.images) if text else Item(images=item.images)


def _as_text(item: Item) -> Item:
    """Returns an item of images alone as a text of nothing else."""
    return Item(" ".join(map(mask, range(len(item.images)))), images=item.images)
