"""Images as arrays: resized boxes, and random boxes and masks by their rules."""

import numpy as np
import pytest
from PIL import Image

from embed.data.images import Crop, block_mask, random_mask, resized
from embed.errors import ConfigError

RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (20, 30, 3)).astype(np.uint8)


def test_a_box_is_resized_to_a_square_as_it_lies():
    image = Image.fromarray(np.repeat(np.repeat(COLOURS[:2, :2], 8, 0), 8, 1))
    np.testing.assert_array_equal(resized(image, 4, (8, 0, 16, 8)), np.broadcast_to(COLOURS[0, 1], (4, 4, 3)))
    assert resized(image, 5).shape == (5, 5, 3)


def test_boxes_have_the_areas_and_ratios_of_the_crop():
    crop, rng = Crop(8, 0.1, 0.6), np.random.default_rng(1)
    boxes = np.array([crop.box(300, 200, rng) for _ in range(4000)])
    left, top, right, bottom = boxes.T
    assert left.min() == 0 and top.min() == 0 and right.max() == 300 and bottom.max() == 200
    shares, ratios = (right - left) * (bottom - top) / 60_000, (right - left) / (bottom - top)
    assert shares.min() > 0.09 and shares.max() < 0.61 and np.abs(shares.mean() - 0.35) < 0.01
    assert ratios.min() > 0.74 and ratios.max() < 1.35 and np.abs(np.log(ratios).mean()) < 0.02


def test_where_no_box_fits_the_largest_in_the_middle_is_taken():
    assert Crop(8, 1.0).box(400, 100, np.random.default_rng(0)) == (133, 0, 266, 100)
    assert Crop(8, 1.0).box(1, 1, np.random.default_rng(0)) == (0, 0, 1, 1)


@pytest.mark.parametrize("mask", [random_mask, block_mask])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.75, 1.0])
def test_masks_cover_their_share_exactly_and_every_patch_as_often(mask, share):
    rng = np.random.default_rng(2)
    drawn = np.array([mask(6, 7, share, rng) for _ in range(400)])
    assert set(drawn.sum(1)) == {round(share * 42)}
    if mask is random_mask:
        assert np.abs(drawn.mean(0) - share).max() < 0.12
    else:  # rectangles reach the corners less often
        assert 0 < share < 1 and 0.3 * share < drawn.mean(0).min() or len(np.unique(drawn)) == 1


def test_blocks_hang_together():
    """Neighbours of a masked patch are masked more often than in a mask of single patches."""

    def neighbours(mask):
        drawn = [mask(8, 8, 0.4, np.random.default_rng(i)).reshape(8, 8) for i in range(100)]
        return np.mean([(m[:, 1:] & m[:, :-1]).sum() / m.sum() for m in drawn])

    assert neighbours(block_mask) > 1.3 * neighbours(random_mask)


def test_crops_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="Crop.min_area = 0.5 must be above 0 and at most max_area = 0.4"):
        Crop(8, 0.5, 0.4)


def test_a_box_of_an_image_in_fewer_pixels_is_the_same_part():
    y, x = np.mgrid[0:240, 0:320]
    pixels = np.uint8(127 + 100 * np.stack([np.sin(x / 30), np.cos(y / 50), np.sin((x + y) / 60)], -1))
    whole = Image.fromarray(pixels)
    half = whole.resize((160, 120), Image.Resampling.BOX)
    box = (33, 20, 243, 177)
    one, other = resized(whole, 40, box), resized(half, 40, box, whole.size)
    assert np.abs(np.int32(one) - other).max() <= 3
    np.testing.assert_array_equal(resized(whole, 40, box, whole.size), one)
