"""Texts with images in them: `[MASK_0] as an astronaut` with one image. Source: arXiv:2506.02291.

A model reads an image as one token or several. In arrays of token ids these are below 0, as no vocabulary has such ids: slot s of
image k, counted from 0, is -1 - (k * per_image + s), where per_image is how many tokens an image has.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embed import image_bytes, ranges
from embed.data import images
from embed.data.features import Example, Role, Unit
from embed.data.image_features import image_id
from embed.data.records import Field
from embed.data.text_features import Text
from embed.data.tokenizers import Tokenizer
from embed.errors import DataError
from embed.text import apply_prompt, content_id

_MASK = re.compile(r"\[MASK_(\d+)\]")
_MAX_TOKENS = 1 << 24  # no text has more tokens


@dataclasses.dataclass(frozen=True)
class Slots:
    """How a model reads the images of a text: up to `max_images` of them, each as `per_image` tokens between two of the vocabulary.

    `before` and `after` are pieces of the vocabulary, such as EmbeddingGemma 2's '<|image>' and '<image|>'; None has none.
    """

    max_images: int
    per_image: int = 1
    before: str | None = None
    after: str | None = None

    def tokens(self, image: int, tokenizer: Tokenizer) -> list[int]:
        """Returns the token ids of an image, counted from 0."""
        first = image * self.per_image
        slots = [-1 - (first + slot) for slot in range(self.per_image)]
        return [*self._id(self.before, tokenizer), *slots, *self._id(self.after, tokenizer)]

    def _id(self, token: str | None, tokenizer: Tokenizer) -> list[int]:
        if token is None:
            return []
        number = tokenizer.token_id(token)
        if number is None:
            raise DataError(
                f"{tokenizer.path}: has no token {token!r}, which stands beside images; take the model's own"
            )
        return [number]


def slots_of(description: Mapping[str, Any], size: int | None = None) -> Slots | None:
    """Returns how a model reads the images in a text, from its description; None where it reads none.

    `size` is that of the images, where it is not the model's own.
    """
    count = description.get("max_images", 0)
    if description.get("type") != "MixedEmbedder":
        return Slots(count) if count else None
    image = description["image"]
    side = (size or image["image_size"]) // (image["encoder"]["patch_size"] * image["encoder"]["pooling"])
    return Slots(count, side**2, description["before"], description["after"])


def mask(number: int) -> str:
    """Returns what stands in a text for an image."""
    return f"[MASK_{number}]"


def check_masks(text: str, count: int, location: str, max_images: int) -> None:
    """Raises DataError, which begins with `location`, unless a text names each of its `count` images and no other."""
    named = {int(number) for number in _MASK.findall(text)}
    if count > max_images:
        raise DataError(f"{location}: has {count} images, and the model reads at most {max_images}; leave some out")
    missing = sorted(named - set(range(count)))
    if missing:
        raise DataError(
            f"{location}: names [MASK_{missing[0]}], and has {count} image{'' if count == 1 else 's'}, counted from 0; add the "
            "image or correct the number"
        )
    unnamed = sorted(set(range(count)) - named)
    if unnamed:
        raise DataError(
            f"{location}: image {unnamed[0]} has no place in the text; write [MASK_{unnamed[0]}] where it belongs, or leave the "
            "image out"
        )


def has_masks(text: str) -> bool:
    """Returns whether a text names an image."""
    return _MASK.search(text) is not None


def without_masks(text: str | None) -> str:
    """Returns a text without its masks, and with one space where several would be."""
    return " ".join(_MASK.sub(" ", text or "").split())


def encode_texts(
    tokenizer: Tokenizer, texts: Sequence[str], max_length: int, slots: Slots, locations: Sequence[str]
) -> tuple[list[np.ndarray], list[bool]]:
    """Returns the int32 token ids of each text, at most `max_length`, and which texts were truncated. Image tokens are below 0.

    The pieces between masks are tokenised separately. Truncation drops text tokens on the tokenizer's `truncation_side` and keeps
    all image tokens. Raises DataError, which begins with the location, if the image tokens alone do not fit.
    """
    tokenizer.check_length(max_length)
    split = [_MASK.split(text) for text in texts]  # text, number, text, number, ..., text
    pieces = [piece for parts in split for piece in parts[::2]]
    head, tail = tokenizer.affixes
    encoded = iter(tokenizer.encode_batch(pieces, _MAX_TOKENS)[0] if pieces else [])
    rows, cut = [], []
    for parts, location in zip(split, locations, strict=True):
        tokens: list[int] = []
        is_text: list[bool] = []
        for number, part in enumerate(parts):
            if number % 2:
                piece = slots.tokens(int(part), tokenizer)
            else:
                whole = next(encoded).tolist()
                piece = whole[len(head) : len(whole) - len(tail)]
            tokens += piece
            is_text += [number % 2 == 0] * len(piece)
        surplus = len(head) + len(tokens) + len(tail) - max_length
        if surplus > sum(is_text):
            raise DataError(
                f"{location}: the images alone take {len(tokens) - sum(is_text)} tokens, and there is room for "
                f"{max_length - len(head) - len(tail)}; raise the length, or give fewer images"
            )
        text_positions = [position for position, text in enumerate(is_text) if text]
        from_left = tokenizer.truncation_side == "left"
        dropped = set((text_positions if from_left else text_positions[::-1])[: max(0, surplus)])
        kept = [token for position, token in enumerate(tokens) if position not in dropped]
        rows.append(np.array([*head, *kept, *tail], np.int32))
        cut.append(surplus > 0)
    return rows, cut


def readable(tokenizer: Tokenizer, tokens: Sequence[int], per_image: int = 1) -> str:
    """Returns the text of token ids, with `[MASK_k]` where an image is."""
    parts: list[str] = []
    run: list[int] = []
    for token in [*map(int, tokens), None]:
        if token is not None and token >= 0:
            run.append(token)
            continue
        parts += [tokenizer.decode(run)] if run else []
        run = []
        if token is not None and (-1 - token) % per_image == 0:
            parts.append(mask((-1 - token) // per_image))
    return " ".join(parts)


@dataclasses.dataclass(frozen=True)
class Interleaved(Text):
    """A text of each record with up to `max_images` images in it, resized to squares of `size` pixels.

    The role `<name>_images` holds the image files. `[MASK_k]` in the text marks the position of image k, counted from 0. A record
    may have no image, and a mask may occur several times. `prepare` raises DataError where masks and images do not match. The batch
    has the arrays of `Text`, and `<name>_images` uint8 [n, max_images, size, size, 3], black where a record
    has fewer. `per_image`, `before` and `after` are those of `Slots`.
    """

    max_images: ranges.Count = 1
    size: ranges.Size = 224
    per_image: ranges.Count = 1
    before: str | None = None
    after: str | None = None
    max_pixels: image_bytes.Pixels = image_bytes.MAX_PIXELS

    @property
    def slots(self) -> Slots:
        """How its model reads images."""
        return Slots(self.max_images, self.per_image, self.before, self.after)

    @property
    def roles(self):
        return (*super().roles, Role(f"{self.name}_images", "files", optional=True))

    @property
    def fields(self):
        return (
            *super().fields,
            Field(f"{self.name}_files", "uint8", 1),
            Field(f"{self.name}_file_sizes", "int32", 1),
        )

    def definition(self):
        """Returns what decides the tokens and the images; their size in a batch does not."""
        more = {"max_images": self.max_images, "per_image": self.per_image, "max_pixels": self.max_pixels}
        return {**super().definition(), **more, "before": self.before, "after": self.after}

    def check_record(self, record):
        for number, content in enumerate(record.get(f"{self.name}_images") or ()):
            image_bytes.open_image(content, f"{record['location']}: image {number}", self.max_pixels)

    def encode(self, records, context):
        """Returns the arrays of `fields` and `counted` for each record, after decoding its images once."""
        texts, contents = [], []
        for record, templates in zip(records, context.templates):
            listed = self.texts_of(record)
            if len(listed) != 1:
                raise DataError(
                    f"{record['location']}: {self.name} holds {len(listed)} texts, expected one with images"
                )
            files = list(record.get(f"{self.name}_images") or ())
            prompted = apply_prompt(templates[self.side], *listed[0])
            check_masks(prompted, len(files), record["location"], self.max_images)  # also those of its title
            for number, content in enumerate(files):
                image_bytes.open_image(content, f"{record['location']}: image {number}", self.max_pixels)
            texts.append((*listed[0], prompted))
            contents.append(files)
        locations = [record["location"] for record in records]
        inputs = [text for _, _, text in texts]
        rows, cut = encode_texts(context.tokenizer, inputs, self.length, self.slots, locations)
        return [
            {
                self.name: row,
                f"{self.name}_lengths": np.array([len(row)], np.int32),
                f"{self.name}_id": np.array([self._id(record, text, title, files)], np.int64),
                f"{self.name}_truncated": np.int32(was_cut),
                f"{self.name}_equal_ids": np.array([self._id(record, text, title, files)], np.int64),
                f"{self.name}_files": np.frombuffer(b"".join(files), np.uint8),
                f"{self.name}_file_sizes": np.array([len(content) for content in files], np.int32),
            }
            for record, (text, title, _), files, row, was_cut in zip(records, texts, contents, rows, cut)
        ]

    def _id(self, record, text: str, title: str, files: Sequence[bytes]) -> np.int64:
        """Returns the content id of a text and its images; without images that of the text."""
        of_text = self.id_of(record, text, title)
        if not files or record.get(f"{self.name}_key"):
            return of_text
        return content_id(" ".join([str(of_text), *(str(image_id(content)) for content in files)]))

    def vocabulary_texts(self, record, templates, length):
        """Returns the pieces between the images."""
        texts = super().vocabulary_texts(record, templates, length)
        return [piece for text in texts for piece in _MASK.split(text)[::2] if piece.strip()]

    def collate(self, unit: Unit):
        pixels = np.zeros((len(unit), self.max_images, self.size, self.size, 3), np.uint8)
        for i, example in enumerate(unit.examples):
            for number, image in enumerate(self._opened(example)):
                pixels[i, number] = images.resized(image, self.size)
        return {**super().collate(unit), f"{self.name}_images": pixels}

    def _opened(self, example: Example) -> list[Any]:
        """Returns the decoded images of a cached example."""
        stops = np.cumsum(example[f"{self.name}_file_sizes"], dtype=np.int64)
        contents = (
            [part.tobytes() for part in np.split(example[f"{self.name}_files"], stops[:-1])] if len(stops) else []
        )
        return [
            image_bytes.open_image(content, f"a cached image of {self.name}", self.max_pixels) for content in contents
        ]

    def shapes(self, size, texts):
        pixels = ((size, self.max_images, self.size, self.size, 3), np.uint8)
        return {**super().shapes(size, texts), f"{self.name}_images": pixels}

    @property
    def title(self):
        return f"{super().title} with up to {self.max_images} images of {self.size} x {self.size} pixels"

    def flops(self, methods, cache=None):
        """Returns the FLOPs of embedding its text and its images; a record without images costs as much."""
        inserted = methods["inserted"].flops(self.size, self.size) if "inserted" in methods else 0.0
        return super().flops(methods, cache) + self.max_images * inserted

    def readable(self, tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
        return readable(tokenizer, tokens, self.per_image)
