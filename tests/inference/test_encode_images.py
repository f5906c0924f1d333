"""`embed encode` of images: their vectors by id, an image with its text, what changed, and models that take none."""

import json

import numpy as np
import pytest
from PIL import Image

from embed.errors import DataError, UsageError
from embed.inference import bulk
from embed.workflows import encode

PICTURES = np.random.default_rng(5).integers(0, 256, (5, 9, 9, 3)).astype(np.uint8)


@pytest.fixture
def rows(tmp_path):
    listed = []
    for i, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        listed.append({"id": f"p{i}", "image": f"{i}.png", "caption": f"bada {i}"})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in listed))
    return path


@pytest.mark.slow
def test_images_are_encoded_alone_or_with_their_text(rows, dual_bundle, dual_model, tmp_path, capsys):
    encode.run(dual_bundle, rows, tmp_path / "alone", format="npy", image_field="image", shard_size=2)
    assert "5 texts in 3 shards\n" in capsys.readouterr().out  # nothing is said of cut texts
    ids, vectors = bulk.read(tmp_path / "alone")
    assert ids == [f"p{i}" for i in range(5)]
    np.testing.assert_allclose(vectors, dual_model.encode(PICTURES), rtol=0, atol=1e-6)
    encode.run(
        dual_bundle, rows, tmp_path / "both", format="npy", image_field="image", text_field="caption", prompt="document"
    )
    items = [{"text": f"bada {i}", "image": picture} for i, picture in enumerate(PICTURES)]
    expected = dual_model.encode(items, prompt="document")
    np.testing.assert_allclose(bulk.read(tmp_path / "both")[1], expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_an_image_that_changed_is_another_job(rows, dual_bundle, tmp_path):
    options = {"format": "npy", "image_field": "image"}
    encode.run(dual_bundle, rows, tmp_path / "out", **options)
    encode.run(dual_bundle, rows, tmp_path / "out", **options)  # finished before
    Image.fromarray(PICTURES[0][::-1]).save(rows.parent / "3.png")
    with pytest.raises((DataError, UsageError)):
        encode.run(dual_bundle, rows, tmp_path / "out", **options)


@pytest.mark.slow
def test_what_does_not_go_with_images(rows, bundle, dual_bundle, tmp_path):
    with pytest.raises(UsageError, match="--image_field: .* embeds texts only; take a model of both"):
        encode.run(bundle, rows, tmp_path / "out", format="npy", image_field="image")
    with pytest.raises(UsageError, match="--title_field has no effect with --image_field"):
        encode.run(dual_bundle, rows, tmp_path / "out", format="npy", image_field="image", title_field="id")
    (rows.parent / "2.png").write_bytes(b"cut")
    with pytest.raises(DataError, match="2.png: no image that Pillow reads, 3 bytes"):
        encode.run(dual_bundle, rows, tmp_path / "out", format="npy", image_field="image")
    assert not (tmp_path / "out" / "summary.json").exists()
