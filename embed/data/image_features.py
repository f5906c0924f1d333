"""Features of images: the bytes of the file are cached, and decoding and cropping come with the batch."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from embed import image_bytes, ranges
from embed.data import images
from embed.data.features import Example, Feature, Role, Unit, split_ids
from embed.data.images import Box, Crop
from embed.data.records import Field
from embed.errors import ConfigError, DataError, did_you_mean
from embed.ranges import Natural, Share, Size


def image_id(content: bytes) -> np.int64:
    """Returns the first 64 bits of the sha256 of a file: equal ids mean equal images in the loss."""
    return np.frombuffer(hashlib.sha256(content).digest()[:8], np.int64)[0]


@dataclasses.dataclass(frozen=True)
class Image(Feature):
    """An image of each record, resized to a square whatever its sides: uint8 [n, size, size, 3], and its id.

    The role holds the bytes of a file. What Pillow cannot read, and what has more than `max_pixels`, is a DataError at `prepare`.
    """

    name: str = "image"
    size: Size = 224
    max_pixels: image_bytes.Pixels = image_bytes.MAX_PIXELS

    def __post_init__(self):
        ranges.check_fields(self)

    @property
    def roles(self):
        return (Role(self.name, "bytes"),)

    @property
    def fields(self):
        return (Field(f"{self.name}_file", "uint8", 1), Field(f"{self.name}_id", "int64", 0))

    @property
    def group_field(self):
        """An image comes with several captions, or as several copies."""
        return f"{self.name}_id"

    def definition(self) -> dict[str, Any]:
        """Returns what decides the cached bytes and groups: sizes of crops do not."""
        return {"max_pixels": self.max_pixels, "groups": self.group_field}

    def encode(self, records, context):
        """Returns the bytes of each record's file, after decoding it once."""
        del context
        encoded = []
        for record in records:
            content = record[self.name]
            image_bytes.open_image(content, record["location"], self.max_pixels)
            encoded.append(
                {f"{self.name}_file": np.frombuffer(content, np.uint8), f"{self.name}_id": image_id(content)}
            )
        return encoded

    def check_record(self, record):
        image_bytes.open_image(record[self.name], record["location"], self.max_pixels)

    def opened(self, example: Example) -> Any:
        """Returns the decoded image of a cached example."""
        return image_bytes.open_image(example[f"{self.name}_file"].tobytes(), f"a cached {self.name}", self.max_pixels)

    def ids(self, unit: Unit) -> dict[str, np.ndarray]:
        """Returns the ids of the images of a batch."""
        return {f"{self.name}_id": split_ids([e[f"{self.name}_id"] for e in unit.examples])}

    def collate(self, unit):
        return {
            self.name: np.stack([images.resized(self.opened(e), self.size) for e in unit.examples]),
            **self.ids(unit),
        }

    def shapes(self, size, texts):
        del texts
        return {
            self.name: ((size, self.size, self.size, 3), np.uint8),
            f"{self.name}_id": ((size, 2), np.uint32),
        }

    @property
    def title(self):
        return f"{self.name} of {self.size} x {self.size} pixels"

    def flops(self, methods: Mapping[str, Any], cache: Any = None) -> float:
        """Returns the FLOPs of embedding one image."""
        return methods["image"].flops(self.size, self.size) if "image" in methods else 0.0


@dataclasses.dataclass(frozen=True)
class Classes(Feature):
    """The class of each record, int32 [n]: its place among the lines of the file `names`, from 0.

    A label that no line has is a DataError at `prepare`.
    """

    name: str
    names: str

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        try:
            lines = pathlib.Path(self.names).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"{self.names}: cannot be read ({e}); give a file with the name of a class a line") from e
        places = {name: number for number, name in enumerate(lines)}
        if not lines or len(places) < len(lines) or not all(name.strip() for name in lines):
            raise ConfigError(
                f"{self.names}: lines are empty or stand twice; give the name of each class a line of its own"
            )
        return places

    @property
    def num_classes(self) -> int:
        """The lines of the file."""
        return len(self._places)

    @property
    def roles(self):
        return (Role(self.name, "text"),)

    @property
    def fields(self):
        return (Field(self.name, "int64", 0),)

    def definition(self) -> dict[str, Any]:
        """Returns the names in their order."""
        return {"names": list(self._places)}

    def encode(self, records, context):
        """Returns the place of each record's label."""
        del context
        for record in records:
            if record[self.name] not in self._places:
                near = did_you_mean(record[self.name], self._places)
                raise DataError(
                    f"{record['location']}: {self.name} {record[self.name]!r} is no line of {self.names}{near}"
                )
        return [{self.name: np.int64(self._places[record[self.name]])} for record in records]

    def collate(self, unit):
        return {self.name: np.array([e[self.name] for e in unit.examples], np.int32)}

    def shapes(self, size, texts):
        del texts
        return {self.name: ((size,), np.int32)}

    @property
    def title(self):
        return f"{self.name}, one of {self.num_classes:,}"


@dataclasses.dataclass(frozen=True)
class Views(Image):
    """Random views of an image, for self-distillation and masked modelling: one global crop, local crops, and a mask of patches.

    The batch has `image_global` uint8 [n, S, S, 3], `image_local` uint8 [n, M, s, s, 3], `image_mask` bool [n, P] of the patches of
    the global crop, and `image_id`. All of it is drawn by the example's own random numbers: a crop is a function of seed, task,
    record and epoch. With `flip` half of the views are mirrored, which captions that speak of left and right do not bear. TIPSv2's
    sizes are the defaults; the shares of the area are our choice, as TIPS publishes none.
    """

    whole: Crop = Crop(224, 0.4)
    local: Crop = Crop(98, 0.05, 0.4)
    local_crops: Natural = 6
    patch_size: Size = 14
    mask_share: Share = 0.75
    masking: Literal["random", "block"] = "random"
    flip: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name in ("whole", "local"):
            crop = getattr(self, name)
            if crop.size % self.patch_size and (name == "whole" or self.local_crops):
                raise ConfigError(
                    f"Views.{name} has crops of {crop.size} pixels, no multiple of patch_size = {self.patch_size}; take "
                    f"{crop.size - crop.size % self.patch_size or self.patch_size}"
                )

    @property
    def _grid(self) -> int:
        """The patches of one side of the global crop."""
        return self.whole.size // self.patch_size

    def collate(self, unit):
        views = [self._views(example, unit.draws.rng(i)) for i, example in enumerate(unit.examples)]
        arrays = {name: np.stack([view[name] for view in views]) for name in views[0]}
        return {**arrays, **self.ids(unit)}

    def _views(self, example: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Returns the arrays of one example. The image is opened in as many pixels as its crops need."""
        drawn: list[tuple[Crop, Box, bool]] = []
        size = (0, 0)

        def needed(width: int, height: int) -> float:
            nonlocal size
            size = (width, height)
            for crop in (self.whole, *[self.local] * self.local_crops):
                drawn.append((crop, crop.box(width, height, rng), self.flip and rng.random() < 0.5))
            return max(crop.size / min(box[2] - box[0], box[3] - box[1]) for crop, box, _ in drawn)

        content = example[f"{self.name}_file"].tobytes()
        image = image_bytes.open_scaled(content, f"a cached {self.name}", needed, self.max_pixels)
        crops = [
            images.resized(image, crop.size, box, size)[:, :: -1 if flipped else 1] for crop, box, flipped in drawn
        ]
        mask = images.random_mask if self.masking == "random" else images.block_mask
        views = {f"{self.name}_global": crops[0]}
        if self.local_crops:
            views[f"{self.name}_local"] = np.stack(crops[1:])
        return {**views, f"{self.name}_mask": mask(self._grid, self._grid, self.mask_share, rng)}

    def shapes(self, size, texts):
        del texts
        of_crop = lambda crop: (crop.size, crop.size, 3)  # noqa: E731
        local = {f"{self.name}_local": ((size, self.local_crops, *of_crop(self.local)), np.uint8)}
        return {
            f"{self.name}_global": ((size, *of_crop(self.whole)), np.uint8),
            **(local if self.local_crops else {}),
            f"{self.name}_mask": ((size, self._grid**2), np.bool_),
            f"{self.name}_id": ((size, 2), np.uint32),
        }

    @property
    def title(self):
        sizes = f"one of {self.whole.size} pixels, {self.local_crops} of {self.local.size}"
        return f"{self.name}, views: {sizes}; {self.mask_share:.0%} of the patches masked"

    def flops(self, methods: Mapping[str, Any], cache: Any = None) -> float:
        """Returns the FLOPs of the student's passes: the global crop, as it is and masked, and the local ones."""
        if "image_tokens" not in methods:
            return 0.0
        flops = lambda crop: methods["image_tokens"].flops(crop.size, crop.size)  # noqa: E731
        return 2 * flops(self.whole) + self.local_crops * flops(self.local)
