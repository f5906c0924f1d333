"""What users give to be embedded, as items: texts, images, dicts, `Item`s, and lists, arrays and series of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from embed.data import image_values
from embed.errors import DataError, UsageError, did_you_mean
from embed.inference.arguments import kind_of
from embed.text import clean
from embed.types import Item

_KEYS = ("text", "title", "image", "images")  # of a dict, as sentence-transformers takes it
_NO_LIST = (set, frozenset, bytes, bytearray, memoryview)


def items_of(values: Any, takes_images: bool = False) -> list[Item]:
    """Returns the items of a list, tuple, array or series of one dimension, or of a generator; one item alone as a list of one.

    An item is a text, an `Item`, or a dict with the keys text, title, image and images. With `takes_images` it may also be an image
    alone (`image_values.is_image`), and an array of four dimensions is a list of images. A DataError names the position, from 0,
    and the type of what is none.
    """
    is_image = takes_images and image_values.is_image(values) and not image_values.is_stack(values)
    if is_image or isinstance(values, str | Item | Mapping):
        return [_item(values, 0, 1, takes_images)]
    if isinstance(values, _NO_LIST) or not isinstance(values, Iterable):
        raise UsageError(f"items is {kind_of(values)}, expected a list of texts or items, or one of them")
    ndim = getattr(values, "ndim", 1)
    if ndim != 1 and not (takes_images and image_values.is_stack(values)):
        raise UsageError(f"items has {ndim} dimensions, expected a list of texts or items; give one column of it")
    listed = list(values)
    return [_item(value, position, len(listed), takes_images) for position, value in enumerate(listed)]


def _item(value: Any, position: int, count: int, takes_images: bool) -> Item:
    location = f"item {position} of {count}"
    if takes_images and image_values.is_image(value):
        return Item(images=(value,))
    if isinstance(value, str):
        return Item(_checked(value, f"text {position} of {count}"))
    if isinstance(value, Mapping):
        for key in value:
            if key not in _KEYS:
                raise DataError(f"{location}: no part of an item is called {key!r}{did_you_mean(str(key), _KEYS)}")
        images = () if value.get("images") is None else value["images"]
        images = (*images, *([] if value.get("image") is None else [value["image"]]))
        value = Item(value.get("text"), value.get("title"), images)
    if not isinstance(value, Item):
        raise DataError(
            f"text {position} of {count} is {kind_of(value)}, expected a text or an item; remove or convert it"
        )
    for name in ("text", "title"):
        part = getattr(value, name)
        if part is not None:
            _checked(part, f"{name} {position} of {count}")
    if value.text is None and not len(value.images):
        raise DataError(f"{location} has neither text nor image; remove or fill it")
    return Item(
        None if value.text is None else str(value.text),
        None if value.title is None else str(value.title),
        tuple(value.images),
    )


def _checked(value: Any, location: str) -> str:
    """Returns a text; what is none, or holds what UTF-8 cannot, is a DataError."""
    if not isinstance(value, str):
        raise DataError(f"{location} is {kind_of(value)}, expected a text; remove or convert it")
    try:
        value.encode()
    except UnicodeEncodeError as e:
        raise DataError(f"{location} holds a lone surrogate, which no UTF-8 text can; remove it") from e
    return str(value)  # numpy.str_ becomes str


def check_texts(items: Sequence[Item]) -> None:
    """Raises DataError, with the position, for the first item with an image: the model embeds texts only."""
    for position, item in enumerate(items):
        if item.images or item.text is None:
            raise DataError(f"item {position} of {len(items)} has an image, and the model embeds texts only; remove it")


def check_images(items: Sequence[Item]) -> None:
    """Raises DataError, with the position, for the first item with a text where only images are taken."""
    for position, item in enumerate(items):
        if item.text is not None:
            raise DataError(f"item {position} of {len(items)} has a text, and only images are embedded here; remove it")


def check_single_images(items: Sequence[Item]) -> None:
    """Raises DataError, with the position, for the first item of several images."""
    for position, item in enumerate(items):
        if len(item.images) > 1:
            raise DataError(f"item {position} of {len(items)} has {len(item.images)} images; make it several items")


def check_filled(items: Sequence[Item]) -> None:
    """Raises DataError, with the position, for the first text that is empty or white space alone."""
    for position, item in enumerate(items):
        if item.text is not None and not clean(item.text):
            raise DataError(f"text {position} of {len(items)} is empty; remove it or fill it")
