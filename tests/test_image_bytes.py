"""Files of images as people have them: modes, orientations, transparency, damage, sizes."""

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from embed import image_bytes
from embed.errors import DataError
from embed.image_bytes import open_image

RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (20, 30, 3)).astype(np.uint8)


def written(image, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(content) -> np.ndarray:
    return np.asarray(open_image(content, "f"))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_lossless_files_have_their_colours(kind):
    image = Image.fromarray(COLOURS)
    image = image.quantize(16) if kind == "GIF" else image
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decoded(written(image, kind, **options)), np.asarray(image.convert("RGB")))


def test_grey_palette_and_one_bit_images_become_rgb():
    grey = Image.fromarray(COLOURS[..., 0])
    np.testing.assert_array_equal(decoded(written(grey)), np.repeat(COLOURS[..., :1], 3, -1))
    bits = grey.point(lambda v: 255 * (v > 127)).convert("1")
    np.testing.assert_array_equal(decoded(written(bits))[..., 0], np.where(COLOURS[..., 0] > 127, 255, 0))


def test_sixteen_bits_are_scaled_not_cut():
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    np.testing.assert_array_equal(decoded(written(Image.fromarray(values)))[0, :, 0], [0, 1, 128, 255])


def test_transparency_lies_on_white():
    alpha = np.full((20, 30, 1), 255, np.uint8)
    alpha[:5], alpha[5:10] = 0, 128
    content = written(Image.fromarray(np.concatenate([COLOURS, alpha], -1)))
    pixels = decoded(content).astype(int)
    assert (pixels[:5] == 255).all()
    np.testing.assert_allclose(pixels[5:10], (COLOURS[5:10].astype(float) * 128 + 255 * 127) / 255, atol=1)
    np.testing.assert_array_equal(pixels[10:], COLOURS[10:])
    palette = Image.fromarray(COLOURS).quantize(8)
    index = int(np.asarray(palette)[0, 0])
    transparent = decoded(written(palette, transparency=index))
    assert (transparent[np.asarray(palette) == index] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_are_undone(orientation):
    """The camera's picture is stored turned; Pillow's own operations make the stored one."""
    stored = {
        1: COLOURS, 2: COLOURS[:, ::-1], 3: COLOURS[::-1, ::-1], 4: COLOURS[::-1], 5: COLOURS.transpose(1, 0, 2),
        6: np.rot90(COLOURS), 7: np.rot90(COLOURS[:, ::-1]), 8: np.rot90(COLOURS, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = written(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    pixels = decoded(content)
    expected = COLOURS if orientation not in (5, 7) else pixels  # transposed ones are checked by their shape
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.shape == COLOURS.shape


def test_cmyk_and_animations():
    cmyk = Image.fromarray(COLOURS).convert("CMYK")
    pixels = decoded(written(cmyk, "JPEG", quality=100)).astype(int)
    assert np.abs(pixels - np.asarray(cmyk.convert("RGB")).astype(int)).mean() < 12
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    assert decoded(written(first, "GIF", save_all=True, append_images=[second]))[0, 0].tolist() == [255, 0, 0]


def png_header(width, height) -> bytes:
    """Returns a PNG that says so many pixels and holds none."""
    chunk = lambda kind, data: (  # noqa: E731
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


JPEG = written(Image.fromarray(COLOURS), "JPEG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no image that Pillow reads, 0 bytes"),
        (b"<html>not found</html>", "no image that Pillow reads, 22 bytes"),
        (JPEG[: len(JPEG) // 2], "a damaged image ("),
        (written(Image.fromarray(COLOURS))[:100], "a damaged image ("),
        (png_header(20_000, 20_000), "an image of more than 67,108,864 pixels; make it smaller"),
        (png_header(9_000, 9_000), "an image of more than 67,108,864 pixels; make it smaller"),
        (png_header(5, 0), "no image that Pillow reads, 65 bytes"),
    ],
    ids=["empty", "html", "half a JPEG", "a third of a PNG", "400 megapixels", "81 megapixels", "no rows"],
)
def test_what_is_no_image_is_one_line_with_its_place(content, message):
    with pytest.raises(DataError) as caught:
        open_image(content, "photos.jsonl:7")
    line = str(caught.value)
    assert line.startswith("photos.jsonl:7: ") and message in line and "\n" not in line


def test_the_largest_image_is_of_67_megapixels():
    assert image_bytes.MAX_PIXELS == 8192 * 8192 < image_bytes.PILLOW_PIXELS


def test_without_pillow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"images need Pillow; run: pip install 'embed\[images\]'"):
        open_image(JPEG, "f")


def test_maps_keep_their_numbers():
    for array in (COLOURS, COLOURS[..., 0], np.array([[0, 300, 65535]], np.uint16)):
        content = written(Image.fromarray(array))
        np.testing.assert_array_equal(image_bytes.read_map(content, "f"), array)
    with pytest.raises(DataError, match="f: holds float32, expected a map of 8 or 16 bits; write it as PNG"):
        image_bytes.read_map(written(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"), "f")
    with pytest.raises(DataError, match="^f: a damaged image"):
        image_bytes.read_map(written(Image.fromarray(COLOURS))[:300], "f")


def photograph(width: int, height: int, **options) -> bytes:
    """A JPEG of soft colours, as photographs have them."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 40 + y / 90), np.cos(x / 70 - y / 30), np.sin(x / 110)]
    file = io.BytesIO()
    pixels = np.uint8(127.5 + 100 * np.stack(waves, -1))
    Image.fromarray(pixels).save(file, "JPEG", quality=92, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("scale", "size"), [(1.2, (800, 600)), (0.51, (800, 600)), (0.5, (400, 300)), (0.2, (200, 150)), (0.01, (100, 75))]
)
def test_a_jpeg_is_unpacked_in_fewer_pixels_and_never_in_too_few(scale, size):
    content, asked = photograph(800, 600), []
    image = image_bytes.open_scaled(content, "x", lambda width, height: asked.append((width, height)) or scale)
    assert image.size == size and asked == [(800, 600)] and image.mode == "RGB"
    whole = image_bytes.open_image(content, "x").resize(size, Image.Resampling.BOX)
    assert np.abs(np.int32(image) - np.int32(whole)).mean() < 3


def test_a_jpeg_on_its_side_is_asked_for_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    content, asked = photograph(800, 600, exif=exif), []
    image = image_bytes.open_scaled(content, "x", lambda width, height: asked.append((width, height)) or 0.25)
    assert asked == [(600, 800)] and image.size == (150, 200)


def test_other_files_are_unpacked_whole():
    file = io.BytesIO()
    Image.new("RGB", (80, 60)).save(file, "PNG")
    assert image_bytes.open_scaled(file.getvalue(), "x", lambda width, height: 0.1).size == (80, 60)
    with pytest.raises(DataError, match="an image of more than 100 pixels"):
        image_bytes.open_scaled(photograph(80, 60), "x", lambda width, height: 0.1, max_pixels=100)


def test_other_exif_entries_may_be_odd():
    """Pillow's own function serialises them, and raises an error."""
    plain = written(Image.fromarray(COLOURS), "JPEG", quality=95)
    head = b"Exif\0\0" + _entries((0x0102, 7, 4, b"\x08\0\0\0"), (0x0112, 3, 1, b"\x06\0\0\0"))
    odd = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(head) + 2) + head + plain[2:]
    np.testing.assert_array_equal(decoded(odd), np.rot90(decoded(plain), -1))


def _entries(*entries) -> bytes:
    """A TIFF directory of entries (tag, type, count, four bytes)."""
    packed = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)


@pytest.mark.parametrize(
    "error", [RuntimeError("decode"), struct.error("a buffer"), NotImplementedError(), TypeError("x")]
)
def test_whatever_pillow_raises_is_one_line(monkeypatch, error):
    def load(self):
        raise error

    monkeypatch.setattr(Image.Image, "load", load)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(DataError, match="^f: a damaged image .*restore it, or remove the record"):
        open_image(PLAIN, "f")


PLAIN = written(Image.new("RGB", (4, 4)))


def test_numbers_from_0_to_1_are_grey_and_others_are_refused():
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None]
    np.testing.assert_array_equal(decoded(written(Image.fromarray(ramp), "TIFF"))[0, :, 0], np.arange(256))
    for values, message in (
        (ramp * 255, "f: an image of floats from 0 to 255, expected 0 to 1; write it with 8 or 16 bits"),
        (np.arange(256, dtype=np.int32)[None], "f: an image of 32-bit integers, whose white is not known"),
    ):
        with pytest.raises(DataError) as refused:
            decoded(written(Image.fromarray(values), "TIFF"))
        assert str(refused.value).startswith(message)


def test_the_transparent_grey_of_sixteen_bits_lies_on_white():
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    content = written(Image.fromarray(values))
    chunk = b"tRNS" + struct.pack(">H", 257)
    start = content.index(b"IDAT") - 4
    marked = content[:start] + struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[start:]
    np.testing.assert_array_equal(decoded(marked)[0, :, 0], [0, 255, 128, 255])
