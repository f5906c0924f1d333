"""Folders and files of towers: what is read, and the bundle that it becomes."""

import numpy as np
import pytest
from image_towers import (
    dialect_arrays,
    drawn,
    image_tower,
    scenic_arrays,
    scenic_text_arrays,
    text_arrays,
    text_tower,
)
from tiny_models import made_up_texts

import embed
from embed import arrays, bundles, trees
from embed.data import tokenizers
from embed.errors import DataError, UsageError
from embed.models import api
from embed.towers import convert, names, source, towers
from embed.workflows import average, export
from embed.workflows import convert as convert_command

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3)).astype(np.uint8)
TIPS = {"mask_token": True, "layer_scale": 1.0, "activation": "gelu"}


@pytest.fixture(autouse=True)
def small_widths(monkeypatch):
    monkeypatch.setitem(towers._HEADS, 16, 2)


def write(folder, image, text=None):
    folder.mkdir()
    np.savez(folder / "tips_s14_vision.npz", **image)
    if text is not None:
        np.savez(folder / "tips_s14_text.npz", **text)
        (folder / "tokenizer.model").write_bytes(tokenizers.train_sentencepiece(made_up_texts(300), 300))
    return folder


def vectors_of(module, params, pictures):
    model = api.build(module)
    return np.asarray(model.apply(trees.unflatten(params), {"pixels": pictures}, method="image"))


@pytest.mark.slow
@pytest.mark.parametrize("code", ["jax", "pytorch"])
def test_both_towers_of_tips(code, tmp_path):
    image, text = image_tower(**(TIPS if code == "pytorch" else {"activation": "gelu_tanh"})), text_tower(300)
    of_image, of_text = drawn(image), drawn(text, 1)
    if code == "jax":
        folder = write(tmp_path / "f", scenic_arrays(of_image), scenic_text_arrays(of_text))
    else:
        dialect = names.dialects(False)["original"]
        folder = write(tmp_path / "f", dialect_arrays(dialect, of_image), text_arrays(of_text))
    opened = source.read(folder)
    assert source.is_one(folder) and opened.kind == "tips" and opened.max_length == 64
    assert any("GELU" in note for note in opened.notes)
    convert.convert(opened, tmp_path / "bundle", "folder")
    stored = trees.flatten(arrays.load_numpy(tmp_path / "bundle"))
    for tower, params in (("image", of_image), ("text", of_text)):
        for path, array in params.items():
            np.testing.assert_array_equal(stored[f"{tower}/{path}"], array)
    model = embed.load(tmp_path / "bundle")
    np.testing.assert_allclose(model.encode(PICTURES), vectors_of(image, of_image, PICTURES), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(model.encode(["Bada KOLO"]), model.encode(["bada kolo"]))  # lower-cased, as TIPS' are


@pytest.mark.slow
def test_an_image_tower_alone(tmp_path):
    image = image_tower(activation="gelu_tanh")
    params = drawn(image)
    folder = write(tmp_path / "f", scenic_arrays(params))
    for location in (folder, folder / "tips_s14_vision.npz"):
        opened = source.read(location)
        assert source.is_one(location) and opened.tokenizer is None
        output = tmp_path / f"bundle-{location.name}"
        convert.convert(opened, output, "f")
        description = bundles.read_model_json(output)
        assert "tokenizer" not in description and description["lineage"]["converted_from"] == "f"
        model = embed.load(output)
        assert model.takes_images and model.max_length is None and model.prompts == {}
        np.testing.assert_allclose(model.encode(PICTURES), vectors_of(image, params, PICTURES), rtol=0, atol=1e-6)
        with pytest.raises(DataError, match="only images are embedded here"):
            model.encode(["a"])
        with pytest.raises(embed.errors.UsageError, match="max_length = 8: this model takes no texts"):
            embed.load(output, max_length=8)


def test_folders_that_are_none(tmp_path):
    assert not source.is_one(tmp_path) and not source.is_one(tmp_path / "nowhere")
    np.savez(tmp_path / "text.npz", a=np.zeros(3))
    with pytest.raises(DataError, match=r"has no file \*vision\*.npz"):
        source.read(tmp_path)
    for name in ("a_vision.npz", "b_vision.npz"):
        np.savez(tmp_path / name, a=np.zeros(3))
    with pytest.raises(DataError, match="several files of the vision tower"):
        source.read(tmp_path)
    with pytest.raises(DataError, match="no tensors of a vision transformer"):
        source.read(tmp_path / "a_vision.npz")
    folder = write(tmp_path / "f", scenic_arrays(drawn(image_tower())))
    np.savez(folder / "tips_s14_text.npz", **scenic_text_arrays(drawn(text_tower())))
    with pytest.raises(DataError, match="has no tokenizer.model, TIPS' vocabulary"):
        source.read(folder)


@pytest.mark.slow
def test_what_commands_make_of_a_model_of_images_alone(tmp_path, capsys):
    """Averages are bundles again; forms of texts and options of texts are refused in one line."""
    image, bundles_ = image_tower(activation="gelu_tanh"), []
    for seed in (0, 1):
        folder = write(tmp_path / f"f{seed}", scenic_arrays(drawn(image, seed)))
        convert_command.run(str(folder), tmp_path / f"b{seed}")
        bundles_.append(tmp_path / f"b{seed}")
    assert "tips, image tower: " in capsys.readouterr().out
    average.run(bundles_, tmp_path / "soup", unrelated=True)
    soup = trees.flatten(arrays.load_numpy(tmp_path / "soup"))
    for path, array in drawn(image, 0).items():
        np.testing.assert_allclose(soup[path], (array + drawn(image, 1)[path]) / 2, rtol=0, atol=1e-6)
    assert embed.load(tmp_path / "soup").encode(PICTURES).shape == (3, 16)
    for form in ("gguf", "bundle"):
        with pytest.raises(UsageError, match=f"--format={form} .* image tower|gguf"):
            export.run(
                bundles_[0], tmp_path / "export", format=form, quantization="int8_blocks" if form == "bundle" else None
            )
    with pytest.raises(UsageError, match="--max_length has no effect on towers of images"):
        convert_command.run(str(tmp_path / "f0"), tmp_path / "other", max_length=8)
