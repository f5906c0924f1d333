"""Images as arrays: squares of a size, random crops, and masks of patches. Arrays are uint8 [height, width, 3] in RGB."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from embed import ranges
from embed.errors import ConfigError

_TRIES = 10  # draws of a crop or of a block before something simpler is taken


Box = tuple[int, int, int, int]  # left, top, right, bottom


def resized(image: Any, size: int, box: Box | None = None, box_of: tuple[int, int] | None = None) -> np.ndarray:
    """Returns a box (the whole image) as a square of `size`, by an antialiased linear filter.

    The box is of an image of `box_of` (width, height), where `image` is one in fewer pixels.
    """
    from PIL import Image

    if box is not None and box_of not in (None, image.size):
        across, down = image.width / box_of[0], image.height / box_of[1]
        part = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=part))
    image = image if box is None else image.crop(box)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


@dataclasses.dataclass(frozen=True)
class Crop:
    """Squares of `size` pixels from random boxes: a share of the area between `min_area` and `max_area`, and sides whose ratio is
    between 3/4 and 4/3. Source: arXiv:1409.4842 s6."""

    size: ranges.Size
    min_area: ranges.Share
    max_area: ranges.Share = 1.0

    def __post_init__(self):
        ranges.check_fields(self)
        if not 0 < self.min_area <= self.max_area:
            raise ConfigError(
                f"Crop.min_area = {self.min_area} must be above 0 and at most max_area = {self.max_area}; correct one of them"
            )

    def box(self, width: int, height: int, rng: np.random.Generator) -> Box:
        """Returns a box of an image. Where none fits, it is the largest in the middle."""
        for _ in range(_TRIES):
            area = width * height * rng.uniform(self.min_area, self.max_area)
            ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < across <= width and 0 < down <= height:
                left, top = rng.integers(width - across + 1), rng.integers(height - down + 1)
                return int(left), int(top), int(left) + across, int(top) + down
        across, down = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, top = (width - across) // 2, (height - down) // 2
        return left, top, left + across, top + down


def random_mask(rows: int, columns: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Returns bool [rows * columns] with `share` of the patches masked, rounded."""
    mask = np.zeros(rows * columns, bool)
    mask[rng.permutation(len(mask))[: round(share * len(mask))]] = True
    return mask


def block_mask(rows: int, columns: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Returns bool [rows * columns] with `share` of the patches masked in rectangles, rounded.

    Source: arXiv:2106.08254 s2.3. Rectangles cover four patches or more where so many are missing, and sides have a ratio between
    0.3 and 1/0.3. What no rectangle covers after ten tries each is masked patch by patch.
    """
    mask, wanted = np.zeros((rows, columns), bool), round(share * rows * columns)
    while (missing := wanted - int(mask.sum())) > 0:
        for top, left, height, width in _rectangles(rows, columns, missing, rng):
            block = mask[top : top + height, left : left + width]
            if 0 < block.size - int(block.sum()) <= missing:
                block[:] = True
                break
        else:
            free = np.flatnonzero(~mask.ravel())
            mask.ravel()[rng.permutation(free)[:missing]] = True
    return mask.ravel()


def _rectangles(rows: int, columns: int, missing: int, rng: np.random.Generator) -> Iterator[tuple[int, int, int, int]]:
    """Yields (top, left, height, width) of rectangles that fit into the grid, drawn ten times."""
    for _ in range(_TRIES):
        area = rng.uniform(min(4, missing), missing)
        ratio = math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < height <= rows and 0 < width <= columns:
            yield int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1)), height, width
