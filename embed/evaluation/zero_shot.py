"""Classes of pixels from their names alone: patches beside the embeddings of texts.

The last block's tokens attend to themselves alone (MaskCLIP, arXiv:2112.01071), a class is the mean of its name in nine templates,
and an image is read in windows of the size that the model takes. Source: the released code of arXiv:2410.16512.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from embed import image_bytes
from embed.evaluation import dense, pictures
from embed.types import Item, PatchFn

TEMPLATES = (
    "itap of a {}.",
    "a bad photo of a {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
    "a photo of many {}.",
    "a photo of {}s.",
)
_STRIDE = 3 / 4  # of a window


def texts_of(names: Sequence[Sequence[str]]) -> list[list[str]]:
    """Returns the texts of each class: its own where it has several, or its one name in the templates."""
    return [list(texts) if len(texts) > 1 else [t.format(texts[0]) for t in TEMPLATES] for texts in names]


def class_vectors(vectors: Float[np.ndarray, "n E"], counts: Sequence[int]) -> Float[np.ndarray, "C E"]:
    """Returns the unit vectors of classes from those of their texts, of which class c has `counts[c]`."""
    ends = np.cumsum(counts)
    means = np.stack([vectors[end - count : end].mean(0) for count, end in zip(counts, ends)])
    return means / np.linalg.norm(means, axis=-1, keepdims=True)


def maps(
    items: Sequence[Item], classes: Float[np.ndarray, "C E"], patches: PatchFn, size: int, shape: tuple[int, int]
) -> np.ndarray:
    """Returns the probabilities of classes at every pixel [n, height, width, C], of images whose maps have this `shape`.

    The shorter side of an image becomes `size` pixels, and windows of that size lie three quarters of it apart. Their softmax of
    raw cosines is averaged where they overlap.
    """
    return np.stack([_map(item, classes, patches, size, shape) for item in items])


def _map(item: Item, classes: np.ndarray, patches: PatchFn, size: int, shape: tuple[int, int]) -> np.ndarray:
    image = _sized(pictures.opened(item.images[0]), size)
    boxes = list(_windows(image.width, image.height, size))
    vectors, rows, columns = patches([Item(images=(image.crop(box),)) for box in boxes], values=True)
    cosines = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True) @ classes.T
    exponentials = np.exp(cosines - cosines.max(-1, keepdims=True))
    probabilities = dense.resized(exponentials / exponentials.sum(-1, keepdims=True), rows, columns, size, size)
    total = np.zeros((image.height, image.width, len(classes)))
    count = np.zeros((image.height, image.width, 1))
    for (left, top, right, bottom), window in zip(boxes, probabilities):
        total[top:bottom, left:right] += window
        count[top:bottom, left:right] += 1
    mean = (total / count).astype(np.float32)
    return dense.resized(mean.reshape(1, -1, len(classes)), image.height, image.width, *shape)[0]


def _sized(image: Any, size: int) -> Any:
    """Returns an image whose shorter side has `size` pixels."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    return image_bytes.resized(image, width, height)


def _windows(width: int, height: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields the boxes (left, top, right, bottom) of windows; the last ones of a side end where the image does."""
    for top in _starts(height, size):
        for left in _starts(width, size):
            yield left, top, left + size, top + size


def _starts(side: int, size: int) -> list[int]:
    stride = max(1, math.floor(size * _STRIDE))
    count = math.ceil((side - size) / stride) + 1
    return [min(i * stride, side - size) for i in range(count)]
