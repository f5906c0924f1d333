"""What people give as an image: a path, a file's bytes, a data URL, a Pillow image or an array; opened in RGB."""

import base64
import binascii
import os
import pathlib
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from embed import image_bytes
from embed.errors import DataError

EXTENSIONS = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_CHANNELS = (1, 3, 4)


def is_image(value: Any) -> bool:
    """Returns whether a value is an image and not a text.

    As in sentence-transformers a text is an image where it is a data URL of one, or the path of a file or a URL that ends in one of
    EXTENSIONS.
    """
    if isinstance(value, str):
        return value.startswith("data:image/") or (
            _extension(value) in EXTENSIONS and (_is_url(value) or _is_file(value))
        )
    return isinstance(value, os.PathLike | bytes | bytearray) or _is_pillow(value) or _is_array(value)


def is_stack(value: Any) -> bool:
    """Returns whether a value is an array of several images."""
    return _is_array(value) and np.ndim(value) == 4


def opened(value: Any, location: str, max_pixels: int = image_bytes.MAX_PIXELS) -> Any:
    """Returns the Pillow image of a value, in RGB; what is none is a DataError that begins with `location`.

    Arrays are [height, width], [height, width, channels] or, as torch has them, [channels, height, width]. Their values are bytes,
    or floats in [0, 1], which are rounded to bytes. Nothing is fetched from other machines.
    """
    if isinstance(value, bytes | bytearray):
        return image_bytes.open_image(bytes(value), location, max_pixels)
    if isinstance(value, str) and value.startswith("data:"):
        return image_bytes.open_image(_decoded(value, location), location, max_pixels)
    if isinstance(value, str) and _is_url(value):
        raise DataError(f"{location}: {value[:120]} is not fetched; download it, and give the path of the file")
    if isinstance(value, str | os.PathLike):
        return image_bytes.open_image(_content(value, location), f"{location}: {os.fspath(value)}", max_pixels)
    if _is_pillow(value):
        return image_bytes.upright(value)
    if _is_array(value):
        return _of_array(np.asarray(value), location)
    raise DataError(
        f"{location} is {type(value).__name__}, expected an image: a path, the bytes of a file, a Pillow image or an array"
    )


def _extension(text: str) -> str:
    path = urlsplit(text).path if _is_url(text) else text
    return os.path.splitext(path)[1].lower()


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _is_file(text: str) -> bool:
    try:
        return os.path.isfile(text)
    except ValueError:  # a NUL
        return False


def _is_pillow(value: Any) -> bool:
    return hasattr(value, "mode") and hasattr(value, "getbands")


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and not _is_pillow(value) and getattr(value, "ndim", 0) in (2, 3, 4)


def _decoded(url: str, location: str) -> bytes:
    head, comma, content = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise DataError(f"{location}: a data URL without base64; give the bytes of the file")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as e:
        raise DataError(f"{location}: a data URL whose base64 is damaged ({e}); give the bytes of the file") from e


def _content(path: Any, location: str) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise DataError(f"{location}: {os.fspath(path)}: {reason}; correct the path") from e


def _of_array(array: np.ndarray, location: str) -> Any:
    from PIL import Image

    if array.ndim == 3 and array.shape[-1] not in _CHANNELS and array.shape[0] in _CHANNELS:
        array = array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[-1] not in _CHANNELS):
        raise DataError(
            f"{location} is an array of shape {list(array.shape)}, expected [height, width] or [height, width, channels] with 1, "
            "3 or 4 channels"
        )
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise DataError(f"{location} is an array of floats outside of [0, 1]; give bytes, or divide by 255")
        array = np.round(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise DataError(f"{location} is an array of {array.dtype}; give uint8, or floats in [0, 1]")
    image = Image.fromarray(np.ascontiguousarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array))
    return image_bytes.upright(image)
