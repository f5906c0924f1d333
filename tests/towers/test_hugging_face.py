"""Dinov2 folders by their configuration, old names and new; what config.json and the tensors disagree on is refused."""

import json

import numpy as np
import pytest
from image_towers import dialect_arrays, drawn, image_tower
from safetensors.numpy import save_file

from embed.errors import DataError
from embed.towers import hugging_face, names

TIPS = {"mask_token": True, "layer_scale": 1.0, "activation": "gelu"}
CONFIG = {
    "model_type": "dinov2",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "mlp_ratio": 1.5,
    "image_size": 12,
    "patch_size": 4,
    "hidden_act": "gelu",
}
DINO = {**TIPS, "num_class_tokens": 1, "class_position": True, "position_resize": "cubic"}


def dinov2(folder, config=CONFIG, dialect="hub", **fields):
    folder.mkdir()
    params = drawn(image_tower(**DINO, **fields))
    save_file(dialect_arrays(names.dialects(False)[dialect], params), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return params


@pytest.mark.parametrize("dialect", ["hub", "transformers"])
def test_dinov2_of_old_and_new_names(dialect, tmp_path):
    params = dinov2(tmp_path / "f", dialect=dialect)
    (tmp_path / "f" / "preprocessor_config.json").write_text(
        json.dumps({"crop_size": {"height": 24, "width": 24}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3})
    )
    opened = hugging_face.read(tmp_path / "f")
    vit = opened.module.encoder
    assert (opened.module.image_size, vit.pixel_mean, vit.pixel_std) == (24, (0.5,) * 3, (0.25,) * 3)
    assert any("crops its middle" in note for note in opened.notes)
    for path, array in opened.params().items():
        np.testing.assert_array_equal(array, params[path])


def without_mask(arrays_):
    return {name: x for name, x in arrays_.items() if "mask_token" not in name}


def test_a_tower_without_a_mask_token(tmp_path):
    folder = tmp_path / "f"
    params = dinov2(folder)
    arrays_ = dialect_arrays(names.dialects(False)["hub"], params)
    save_file(without_mask(arrays_), folder / "model.safetensors")
    opened = hugging_face.read(folder)
    assert not opened.module.encoder.mask_token and "encoder/mask_token" not in opened.params()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": None}, "config.json: num_attention_heads = None"),
        ({"hidden_act": "quick_gelu"}, "hidden_act = 'quick_gelu' is not supported"),
        ({"patch_size": [4, 8]}, r"patch_size = \[4, 8\]: only squares"),
        ({"qkv_bias": False}, "qkv_bias = False is not supported"),
        ({"num_hidden_layers": 3}, "missing encoder.layer.2"),
        ({"image_size": 16}, r"embeddings.position_embeddings is \[1, 10, 16\], and 1 \+ 4 x 4 were expected"),
        ({"mlp_ratio": 2}, "encoder.layer.0.mlp.fc1.* is .*, the configuration says"),
    ],
)
def test_configurations_that_the_tensors_do_not_fit(changes, message, tmp_path):
    dinov2(tmp_path / "f", {**CONFIG, **changes})
    with pytest.raises(DataError, match=message) as caught:
        hugging_face.read(tmp_path / "f").params()
    assert "\n" not in str(caught.value)


def processor(folder, **config):
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_center_crop": False, **config}))
    return hugging_face.read(folder).notes


def test_another_filter_is_said_and_other_colours_are_refused(tmp_path):
    dinov2(tmp_path / "f")
    plain = processor(tmp_path / "f", resample=2)
    (note,) = set(processor(tmp_path / "f", resample=3)) - set(plain)
    assert (
        "preprocessor_config.json: images are resized by a linear filter; the folder's own processor takes a cubic"
        in note
    )
    for name in ("do_rescale", "do_resize"):
        with pytest.raises(DataError, match=f"preprocessor_config.json: {name} = False: images are resized and scaled"):
            processor(tmp_path / "f", **{name: False})
