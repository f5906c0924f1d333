"""Classes of pixels from their names: the templates, windows that cover an image, and their average."""

import numpy as np
import pytest
from PIL import Image

from embed.evaluation import zero_shot
from embed.types import Item


def test_one_name_goes_into_nine_templates_and_several_texts_stay():
    (cat, dogs) = zero_shot.texts_of([["cat"], ["a dog", "two dogs"]])
    assert (
        len(cat) == 9 and cat[0] == "itap of a cat." and cat[-1] == "a photo of cats." and dogs == ["a dog", "two dogs"]
    )


def test_a_class_is_the_mean_of_its_texts_at_unit_length():
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    classes = zero_shot.class_vectors(vectors, [2, 1])
    np.testing.assert_allclose(classes, [[np.sqrt(0.5), np.sqrt(0.5)], [0, 1]])


@pytest.mark.parametrize(("side", "starts"), [(8, [0]), (9, [0, 1]), (14, [0, 6]), (15, [0, 6, 7]), (20, [0, 6, 12])])
def test_windows_lie_three_quarters_apart_and_end_with_the_image(side, starts):
    assert zero_shot._starts(side, 8) == starts
    covered = np.zeros(side, int)
    for start in starts:
        covered[start : start + 8] += 1
    assert covered.min() >= 1


def patches(items, values=False):
    """Patches of 4 pixels: the mean colour, red or green, as a vector that is not of unit length."""
    assert values
    arrays = np.stack([np.asarray(item.images[0], np.float32) for item in items])
    grid = arrays.reshape(len(items), 2, 4, 2, 4, 3).mean((2, 4)).reshape(len(items), 4, 3)
    return 5 * grid[..., :2] + 1e-3, 2, 2


@pytest.mark.parametrize(("width", "height"), [(8, 8), (32, 16), (8, 24)])
def test_an_image_of_two_halves_is_told_apart(width, height, tmp_path):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0], pixels[:, width // 2 :, 1] = 255, 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    items = [Item(images=(tmp_path / "a.png",)), Item(images=(pixels,))]
    maps = zero_shot.maps(items, np.eye(2), patches, 8, (height, width))
    assert maps.shape == (2, height, width, 2)
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(maps[0], maps[1])
    called = maps[0].argmax(-1)
    assert (called[:, : width // 4] == 0).all() and (called[:, -width // 4 :] == 1).all()


def test_the_softmax_is_of_raw_cosines():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[..., 0] = 255
    (one,) = zero_shot.maps([Item(images=(pixels,))], np.eye(2), patches, 8, (8, 8))
    vector = np.array([5 * 255 + 1e-3, 1e-3])
    cosines = vector / np.linalg.norm(vector)
    np.testing.assert_allclose(one[0, 0], np.exp(cosines) / np.exp(cosines).sum(), rtol=1e-5)
