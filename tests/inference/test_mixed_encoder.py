"""Rows of texts with images: which vectors a row has, and which of them a token stands for. The rest is in test_mixed."""

import numpy as np
import pytest

from embed.data.interleaved import slots_of
from embed.inference import mixed_encoder
from embed.inference.mixed_encoder import _arrays, _in_text
from embed.inference.plan import Batch


def test_images_of_a_text_are_taken_by_their_number():
    vectors = np.arange(2 * 3 * 2 * 1).reshape(2, 3, 2, 1).astype(np.float32)
    assert _in_text(vectors)[:, 0].tolist() == [0, 1, 8, 9]
    assert _in_text(vectors[:, :1])[:, 0].tolist() == [0, 1, 6, 7]  # where numbers make no difference


def test_every_token_of_an_image_points_to_its_vector():
    rows = [np.array([5, -1, -2]), np.array([-1, 7]), np.array([9])]
    inserted = [np.array([[1.0], [2.0]]), np.array([[3.0]]), np.zeros((0, 1))]
    batch = Batch(8, 3, ((0, 1), (2,)), 4)
    arrays = _arrays(batch, rows, inserted, 0)
    found = np.take_along_axis(arrays["vectors"], arrays["slot"][..., None], 1)[..., 0]
    expected = np.array([[0, 1, 2, 3, 0, 0, 0, 0], [0] * 8, [0] * 8])
    np.testing.assert_array_equal(np.where(arrays["tokens"] < 0, found, 0), expected)
    assert arrays["vectors"].shape == (3, 4, 1) and arrays["segment_ids"][0].tolist() == [1, 1, 1, 2, 2, 0, 0, 0]


def test_models_that_read_no_images_in_texts_have_no_slots():
    assert slots_of({"type": "Embedder"}) is None and slots_of({"max_images": 2}).max_images == 2


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([2, 2, 2], [(0, 2), (2, 3)]),
        ([5, 1, 3, 1], [(0, 1), (1, 3), (3, 4)]),
        ([4], [(0, 1)]),
        ([1, 9], [(0, 1), (1, 2)]),
        ([], [(0, 0)]),
    ],
)
def test_the_images_of_a_part_are_bounded(monkeypatch, counts, expected):
    monkeypatch.setattr(mixed_encoder, "_IMAGES", 4)
    assert [(part.start, part.stop) for part in mixed_encoder._parts(counts)] == expected
