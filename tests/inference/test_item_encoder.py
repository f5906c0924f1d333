"""Texts, images and both in one list, in the forms that sentence-transformers takes."""

import dataclasses
import pathlib

import numpy as np
import pytest
from PIL import Image

import embed
from embed.errors import DataError, UsageError
from embed.types import Item

PICTURES = np.random.default_rng(3).integers(0, 256, (3, 12, 10, 3)).astype(np.uint8)
TEXTS = ["bada kolo", "mira"]


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    path = tmp_path / "one.png"
    Image.fromarray(PICTURES[0]).save(path)
    return path


def equal(vectors, expected):
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_every_form_of_an_image_has_one_vector(dual_model, path):
    (expected,) = dual_model.encode([PICTURES[0]])
    np.testing.assert_allclose(np.linalg.norm(expected), 1, rtol=1e-6)
    forms = [path, str(path), Image.open(path), PICTURES[0].transpose(2, 0, 1), path.read_bytes(), Item(images=(path,))]
    forms += [
        {"image": str(path)},
        {"image": PICTURES[0]},
        {"images": [PICTURES[0]]},
        {"image": PICTURES[0], "text": None},
    ]
    equal(dual_model.encode(forms), np.tile(expected, (len(forms), 1)))
    for alone in (path, str(path), Image.open(path), PICTURES[0], {"image": str(path)}):
        equal(dual_model.encode(alone), expected[None])
    equal(dual_model.encode(PICTURES)[0], expected)  # an array of images
    assert dual_model.encode(PICTURES, dims=8).shape == (3, 8)


@pytest.mark.slow
def test_a_dict_of_one_key_is_the_bare_item_and_lists_may_be_mixed(dual_model, path):
    images, texts = dual_model.encode(list(PICTURES)), dual_model.encode(TEXTS)
    mixed = [TEXTS[0], PICTURES[1], {"text": TEXTS[1]}, {"image": PICTURES[2]}, str(path)]
    equal(dual_model.encode(mixed), [texts[0], images[1], texts[1], images[2], images[0]])


@pytest.mark.slow
def test_several_parts_are_the_sum_of_their_vectors(dual_model):
    images, texts = dual_model.encode(list(PICTURES)), dual_model.encode(TEXTS)
    vectors = dual_model.encode(
        [{"text": TEXTS[0], "image": PICTURES[0]}, TEXTS[1], Item(images=PICTURES[1:]), Item(TEXTS[1], images=PICTURES)]
    )
    sums = np.stack([texts[0] + images[0], images[1] + images[2], texts[1] + images.sum(0)])
    sums /= np.linalg.norm(sums, axis=1, keepdims=True)
    equal(vectors, [sums[0], texts[1], sums[1], sums[2]])


@pytest.mark.slow
def test_masks_are_no_words_to_a_model_that_reads_no_images_in_texts(dual_model):
    masked = [Item("[MASK_0] bada [MASK_1] kolo", images=PICTURES[:2]), Item("[MASK_0]", images=PICTURES[:1])]
    plain = [Item("bada kolo", images=PICTURES[:2]), Item(images=PICTURES[:1])]
    equal(dual_model.encode(masked), dual_model.encode(plain))


def test_what_cannot_be_embedded_is_named_by_its_position(dual_model, model, tmp_path):
    with pytest.raises(DataError, match="^the image of item 1 of 2: .*nowhere.png: No such file"):
        dual_model.encode(["a", {"image": tmp_path / "nowhere.png"}])
    with pytest.raises(DataError, match="^text 1 of 2 is empty"):
        dual_model.encode([PICTURES[0], " "])
    with pytest.raises(DataError, match="^text 1 of 2 is int, expected a text or an item"):
        dual_model.encode(["a", 3])
    with pytest.raises(UsageError, match="items has 5 dimensions"):
        dual_model.encode(PICTURES[None])
    with pytest.raises(DataError, match="^item 0 of 1 has an image, and the model embeds texts only"):
        model.encode([{"image": PICTURES[0]}])
    only_images = dataclasses.replace(dual_model, encoder=dataclasses.replace(dual_model.encoder, texts=None))
    equal(only_images.encode(PICTURES), dual_model.encode(PICTURES))
    with pytest.raises(DataError, match="^item 1 of 2 has a text, and only images are embedded here; remove it"):
        only_images.encode([PICTURES[0], "a"])


def test_a_path_is_a_text_to_a_model_of_texts(model, path):
    assert model.encode([str(path)]).shape == (1, 16)


@pytest.mark.slow
def test_the_model_says_what_it_takes(dual_bundle, bundle):
    dual, texts = embed.load(dual_bundle), embed.load(bundle)
    assert dual.takes_images and not texts.takes_images
    assert (dual.embedding_dim, dual.max_length, dual.dtype) == (16, 48, "float32")
