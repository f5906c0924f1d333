"""Images as people give them: the same picture in every form, and what is refused."""

import base64
import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from embed.data import image_values
from embed.errors import DataError

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)


def png(array=COLOURS) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    path = tmp_path / "a cat.PNG"
    path.write_bytes(png())
    return path


def pixels(value):
    return np.asarray(image_values.opened(value, "image 3"))


def test_every_form_gives_the_same_pixels(path):
    url = "data:image/png;base64," + base64.b64encode(png()).decode()
    forms = [path, str(path), png(), bytearray(png()), url, Image.open(path), COLOURS, COLOURS.transpose(2, 0, 1)]
    forms += [COLOURS / 255, (COLOURS / 255).astype(np.float32)]
    for form in forms:
        assert image_values.is_image(form)
        np.testing.assert_array_equal(pixels(form), COLOURS)


def test_grey_arrays_and_transparent_ones():
    grey = COLOURS[..., 0]
    for form in (grey, grey[..., None], grey[None], grey / 255):
        np.testing.assert_array_equal(pixels(form), np.repeat(grey[..., None], 3, -1))
    np.testing.assert_array_equal(pixels(grey > 99)[..., 1], np.where(grey > 99, 255, 0))
    invisible = np.concatenate([COLOURS, np.zeros((6, 5, 1), np.uint8)], -1)
    assert (pixels(invisible) == 255).all()


def test_a_text_is_an_image_only_as_a_file_a_url_or_a_data_url_of_one(path, tmp_path):
    (tmp_path / "notes.txt").write_text("a")
    for text in ("https://example.org/cat.jpg", "http://example.org/cat.webp?size=3", "data:image/png;base64,AA"):
        assert image_values.is_image(text)
    missing = str(tmp_path / "dog.png")
    for text in ("a cat", "", "cat.png", missing, str(tmp_path / "notes.txt"), "https://example.org/", "a\0.png"):
        assert not image_values.is_image(text)
    assert not any(map(image_values.is_image, (None, 3, ["a"], {"image": path}, np.zeros(3), np.float32(1))))
    assert image_values.is_stack(COLOURS[None]) and not image_values.is_stack(COLOURS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("https://example.org/cat.jpg", "https://example.org/cat.jpg is not fetched; download it"),
        ("data:image/png,AA", "a data URL without base64"),
        ("data:image/png;base64,A", "a data URL whose base64 is damaged"),
        ("data:image/png;base64,AAAA", "no image that Pillow reads, 3 bytes"),
        ("nowhere.png", "nowhere.png: No such file or directory; correct the path"),
        (b"", "no image that Pillow reads, 0 bytes"),
        (3, "is int, expected an image"),
        (np.zeros((5, 4, 2), np.uint8), r"an array of shape \[5, 4, 2\], expected \[height, width\]"),
        (np.zeros((0, 4, 3), np.uint8), r"an array of shape \[0, 4, 3\]"),
        (np.full((4, 4), 2.0), r"floats outside of \[0, 1\]; give bytes, or divide by 255"),
        (np.full((4, 4), np.nan), r"floats outside of \[0, 1\]"),
        (np.zeros((4, 4), np.int32), "an array of int32; give uint8"),
    ],
)
def test_what_is_no_image_is_refused(value, message):
    with pytest.raises(DataError, match=f"^image 3.*{message}"):
        image_values.opened(value, "image 3")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    cut = tmp_path / "cut.png"
    cut.write_bytes(png()[:60])
    with pytest.raises(DataError, match="^image 3: .*cut.png: a damaged image"):
        image_values.opened(str(cut), "image 3")
