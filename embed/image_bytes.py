"""The bytes of an image file as a Pillow image in RGB. Needs Pillow, which is in the extra [images].

A picture is turned as its EXIF orientation says. Where it is transparent it lies on white. Of an animation the first frame counts,
and of 16 bits a colour the upper eight.
"""

import io
import math
import pathlib
import warnings
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from embed.errors import DataError

MAX_PIXELS = 64 << 20  # 8,192 x 8,192
PILLOW_PIXELS = 178_956_970  # from here on Pillow itself refuses
Pixels = Annotated[int, Meta(ge=1, le=PILLOW_PIXELS)]


class TooManyPixels(DataError):
    """An image of more pixels than the caller allows."""


def open_image(content: bytes, location: str, max_pixels: int = MAX_PIXELS) -> Any:
    """Returns the Pillow image of a file's bytes, in RGB.

    A file that is no image or is cut short is a DataError, one of more than `max_pixels` TooManyPixels. The size is read before
    anything is unpacked.
    """
    return _opened(content, location, max_pixels, upright)


Needed = Callable[[int, int], float]  # (width, height) of an upright image -> the scale that it is needed at


def open_scaled(content: bytes, location: str, needed: Needed, max_pixels: int = MAX_PIXELS) -> Any:
    """Returns what `open_image` does, in fewer pixels where a JPEG is needed at a half of its sides or less.

    Its sides are then a half, a quarter or an eighth, rounded up, and never below the scale that `needed` gives. Unpacking takes
    as much less time.
    """
    return _opened(content, location, max_pixels, upright, needed)


def _opened(
    content: bytes,
    location: str,
    max_pixels: int,
    finish: Callable[[Any], Any] | None = None,
    needed: Needed | None = None,
) -> Any:
    """Returns the Pillow image of a file's bytes, loaded, and changed by `finish`."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as e:
        raise DataError("images need Pillow; run: pip install 'embed[images]'") from e
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked here, and damaged EXIF data is left out
            image = Image.open(io.BytesIO(content))
            if math.prod(image.size) > max_pixels:
                raise Image.DecompressionBombError
            if needed is not None:
                _reduce(image, needed)
            image.load()
            return image if finish is None else finish(image)
    except UnidentifiedImageError as e:
        raise _unreadable(content, location, "no image that Pillow reads") from e
    except Image.DecompressionBombError as e:
        advice = f"an image of more than {max_pixels:,} pixels; make it smaller, or remove the record"
        raise TooManyPixels(f"{location}: {advice}") from e
    except DataError as e:
        raise type(e)(f"{location}: {e}") from e
    except MemoryError:
        raise
    except Exception as e:  # Pillow's plugins raise errors of many types, struct.error and RuntimeError among them
        reason = str(e).splitlines()[0][:120] if str(e) else type(e).__name__
        raise _unreadable(content, location, f"a damaged image ({reason})") from e


_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # the EXIF entry, and its values for images that lie on their side
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def _reduce(image: Any, needed: Needed) -> None:
    """Has a JPEG that is not loaded yet unpacked in fewer pixels, if it is needed in fewer; asks `needed` in any case."""
    width, height = image.size
    is_turned = _orientation(image) in _TURNED
    scale = needed(height, width) if is_turned else needed(width, height)
    if image.format == "JPEG" and scale < 1:
        image.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))


def _unreadable(content: bytes, location: str, what: str) -> DataError:
    return DataError(f"{location}: {what}, {len(content):,} bytes; restore it, or remove the record")


def file_of(value: Any, location: str) -> Any:
    """Returns the bytes of an image file from a value of a record; what is no image is returned as it is.

    {"bytes": ..., "path": ...} is how Hugging Face's datasets and their parquet files hold an image. Pixels, uint8
    [height, width] or [height, width, channels], become a PNG.
    """
    if isinstance(value, Mapping) and set(value) == {"bytes", "path"}:
        if value["bytes"] is not None or not value["path"]:
            return value["bytes"]
        try:
            return pathlib.Path(value["path"]).read_bytes()
        except OSError as e:
            raise DataError(
                f"{location}: {value['path']}: {e.strerror or e}; put the image's bytes into the record"
            ) from e
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (2, 3) and value.size:
        return png(value)
    return value


def kind(content: bytes) -> str:
    """Returns Pillow's name of the kind of an image file that it opens, such as 'JPEG'."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(io.BytesIO(content)).format or ""


def png(pixels: np.ndarray) -> bytes:
    """Returns uint8 [height, width], or [height, width, channels] with 1, 3 or 4 of them, as the bytes of a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def jpeg(image: Any, quality: int) -> bytes:
    """Returns a Pillow image in RGB as the bytes of a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def resized(image: Any, width: int, height: int) -> Any:
    """Returns a Pillow image of that size, by an antialiased linear filter."""
    from PIL import Image

    return image.resize((width, height), Image.Resampling.BILINEAR)


def read_map(content: bytes, location: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Returns the numbers of a file that is a map of its pixels, such as classes or depths, as they are stored.

    Unsigned [height, width] of 8 or 16 bits, or [height, width, channels] of 8. What else is in the file is a DataError.
    """
    image = _opened(content, location, max_pixels)
    array = np.asarray(image)
    if array.dtype == np.int32 and array.size and array.min() >= 0 and array.max() < 1 << 16:
        array = array.astype(np.uint16)  # 16 bits of grey, as older versions of Pillow open them
    if array.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{location}: holds {array.dtype}, expected a map of 8 or 16 bits; write it as PNG")
    return array


def upright(image: Any) -> Any:
    """Returns a Pillow image in RGB, turned as its EXIF orientation says; one that is so already comes back without a copy.

    Pixels whose range is not known are a DataError: integers of 32 bits, and floats outside 0 to 1.
    """
    from PIL import Image

    # ImageOps.exif_transpose would serialise the other EXIF entries too, and raises an error for odd ones.
    turn = _TURNS.get(_orientation(image))
    return _rgb(image if turn is None else image.transpose(Image.Transpose[turn]))


def _orientation(image: Any) -> Any:
    """Returns the EXIF orientation of an image; 1 where the entries are damaged."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data says nothing; the pixels are whole
        return 1


def _rgb(image: Any) -> Any:
    """Returns an image in RGB, on white where it is transparent."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":  # Pillow would cut what is above 255
        image = _of_bytes(image)
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _of_bytes(image: Any) -> Any:
    """Returns an image of 16 bits, or of floats from 0 to 1, as one of 8 bits, with an alpha channel for a transparent grey."""
    from PIL import Image

    values = np.asarray(image, np.float64)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    # A PNG has 16 bits at most; older versions of Pillow open them as 32.
    is_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if image.mode == "F" and not (low >= 0 and high <= 1):
        raise DataError(f"an image of floats from {low:g} to {high:g}, expected 0 to 1; write it with 8 or 16 bits")
    if image.mode != "F" and not is_16_bits:
        raise DataError("an image of 32-bit integers, whose white is not known; write it with 8 or 16 bits")
    grey = Image.fromarray((values / 257 if is_16_bits else values * 255).round().astype(np.uint8))
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey
