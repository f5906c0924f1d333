"""Images and views of a batch: what is cached, that views are a function of the draw, and what is refused."""

import io

import numpy as np
import pytest
from PIL import Image as Picture

from embed.data.draws import Draws
from embed.data.features import Context, Unit
from embed.data.image_features import Image, Views, image_id
from embed.data.images import Crop
from embed.errors import ConfigError, DataError
from embed.types import Method


def picture(seed, height=40, width=60) -> bytes:
    file = io.BytesIO()
    Picture.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)).save(
        file, "PNG"
    )
    return file.getvalue()


FILES = [picture(0), picture(1, 30, 30), picture(0)]
VIEWS = Views(whole=Crop(24, 0.4), local=Crop(16, 0.05, 0.4), local_crops=3, patch_size=8)


def cached(feature, files=FILES):
    records = [{"location": f"f:{i + 1}", "image": content} for i, content in enumerate(files)]
    return feature.encode(records, Context(None, [{}] * len(files)))


def unit(examples, epoch=0, seed=0, first=0):
    count = len(examples)
    draws = Draws(np.zeros(count, np.int64), np.arange(first, first + count), np.full(count, epoch), seed)
    return Unit(examples, draws, {}, {})


def test_the_files_bytes_are_cached_and_equal_files_have_equal_ids():
    examples = cached(Image(size=8))
    assert [e["image_file"].tobytes() for e in examples] == FILES
    batch = Image(size=8).collate(unit(examples))
    ids = [tuple(x) for x in batch["image_id"]]
    assert ids[0] == ids[2] != ids[1] and batch["image"].shape == (3, 8, 8, 3) and batch["image"].dtype == np.uint8
    assert np.int64(batch["image_id"][0].view("<i8")[0]) == image_id(FILES[0])
    expected = np.asarray(Picture.open(io.BytesIO(FILES[1])).resize((8, 8), Picture.Resampling.BILINEAR))
    np.testing.assert_array_equal(batch["image"][1], expected)


@pytest.mark.parametrize("feature", [Image(size=8), VIEWS, Views(local_crops=0, whole=Crop(14, 0.5))], ids=str)
def test_shapes_are_those_of_the_batch(feature):
    batch = feature.collate(unit(cached(feature)))
    shapes = feature.shapes(3, {})
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {
        n: (s, np.dtype(d)) for n, (s, d) in shapes.items()
    }


def test_views_are_a_function_of_seed_record_and_epoch():
    examples = cached(VIEWS)
    first = VIEWS.collate(unit(examples))
    again = VIEWS.collate(unit(examples[1:], first=1))
    for name, x in first.items():
        np.testing.assert_array_equal(again[name], x[1:])
    for other in (unit(examples, epoch=1), unit(examples, seed=1), unit(examples, first=7)):
        views = VIEWS.collate(other)
        assert all(np.any(views[name] != first[name]) for name in ("image_global", "image_local", "image_mask"))
    assert first["image_mask"].sum(1).tolist() == [7, 7, 7]  # 75 % of nine
    assert np.any(first["image_local"][:, 0] != first["image_local"][:, 1])


def test_blocks_and_mirrored_views():
    examples = cached(VIEWS) * 20
    blocks = Views(VIEWS.name, whole=VIEWS.whole, local=VIEWS.local, patch_size=8, masking="block").collate(
        unit(examples)
    )
    assert set(blocks["image_mask"].sum(1)) == {7}
    whole = Crop(24, 1.0)
    plain, flipped = (
        Views(whole=whole, local_crops=0, patch_size=8, flip=flip).collate(unit(examples))["image_global"]
        for flip in (False, True)
    )
    mirrored = np.array([not np.array_equal(a, b) and np.array_equal(a, b[:, ::-1]) for a, b in zip(plain, flipped)])
    assert 0.3 < mirrored.mean() < 0.7 and all(
        np.array_equal(a, b) for a, b in zip(plain[~mirrored], flipped[~mirrored])
    )


def test_a_file_that_is_no_image_is_named():
    with pytest.raises(DataError, match="^f:2: no image that Pillow reads, 4 bytes; restore it, or remove the record"):
        cached(VIEWS, [FILES[0], b"text"])
    with pytest.raises(
        DataError, match="f:1: an image of more than 2,000 pixels; make it smaller, or remove the record"
    ):
        cached(Image(max_pixels=2000))


def test_sizes_that_the_patches_do_not_divide_are_refused():
    with pytest.raises(
        ConfigError, match="Views.local has crops of 96 pixels, no multiple of patch_size = 14; take 84"
    ):
        Views(local=Crop(96, 0.1))
    with pytest.raises(ConfigError, match="Views.masking = 'blocks'"):
        Views(masking="blocks")


def test_the_cache_is_that_of_the_files_whatever_the_crops():
    assert Views().definition() == VIEWS.definition() == Image().definition()


def test_the_flops_are_those_of_the_passes():
    methods = {name: Method(("pixels",), lambda h, w: float(h * w)) for name in ("image", "image_tokens")}
    assert Image(size=8).flops(methods) == 64
    assert VIEWS.flops(methods) == 2 * 24 * 24 + 3 * 16 * 16
    assert VIEWS.flops({}) == Image().flops({}) == 0
    assert VIEWS.title == "image, views: one of 24 pixels, 3 of 16; 75% of the patches masked"


def test_a_record_with_a_damaged_image_is_told_before_it_is_encoded():
    feature = Image(size=8)
    assert feature.check_record({"location": "f:1", "image": FILES[0]}) is None
    with pytest.raises(DataError, match="^f:2: a damaged image"):
        feature.check_record({"location": "f:2", "image": FILES[0][:200]})
