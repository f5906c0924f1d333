"""TIPS' files: read back they are the same model, and what its code computes differently is refused with the field."""

import numpy as np
import pytest
from image_bundles import of_both, of_images, vocabulary
from image_towers import image_tower

from embed import arrays, trees
from embed.errors import DataError
from embed.interop import origin
from embed.towers import source, tips_writer, towers

PYTORCH = {"activation": "gelu", "layer_scale": 1.0, "mask_token": True}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return vocabulary(tmp_path_factory.mktemp("words") / "words.model")


@pytest.mark.slow
@pytest.mark.parametrize("code", [tips_writer.JAX, tips_writer.PYTORCH])
def test_both_towers_are_read_back(code, words, tmp_path, monkeypatch):
    monkeypatch.setitem(towers._HEADS, 16, 2)
    image, text = (PYTORCH, {"norm_eps": 1e-5}) if code == tips_writer.PYTORCH else ({}, {})
    bundle = of_both(tmp_path / "bundle", words, image, text)
    (tmp_path / "out").mkdir()
    trained = origin.open_trained(bundle)
    tips_writer.write(tmp_path / "out", trained, code)
    opened = source.read(tmp_path / "out")
    assert opened.module == trained.module
    expected, params = trees.flatten(arrays.load_numpy(bundle)), opened.params()
    assert set(params) == set(expected)
    for path, array in expected.items():
        np.testing.assert_array_equal(params[path], array, err_msg=path)
    assert opened.tokenizer.options()["lower_case"]
    assert tips_writer.notes(trained) == [
        "the code of TIPS cuts texts at 64 tokens unless it is told otherwise, and the model at 12: tell it"
    ]


REFUSED = {
    "token": (image_tower().clone(class_token=1), "tips-jax", "it embeds images by class token 1"),
    "map": (image_tower().clone(projection=(8,)), "tips-jax", "the image tower has a linear map behind it"),
    "size": (image_tower().clone(image_size=13), "tips-jax", "images of 13 pixels are no multiple of the patch of 4"),
    "scale": (image_tower(layer_scale=1.0), "tips-jax", "VisionTransformer.layer_scale is 1.0, and .* with None"),
    "gelu": (image_tower(), "tips-pytorch", "VisionTransformer.activation is 'gelu_tanh', and .* with 'gelu'"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_other_image_towers_are_refused(case, tmp_path):
    module, code, reason = REFUSED[case]
    trained = origin.open_trained(of_images(tmp_path / "bundle", module))
    with pytest.raises(DataError, match=f"{reason}.*; export with another --format"):
        tips_writer.write(tmp_path, trained, code)
    assert not (tmp_path / tips_writer.VISION).exists()


@pytest.mark.slow
def test_another_tokenizer_is_refused(words, tmp_path):
    trained = origin.open_trained(of_both(tmp_path / "bundle", words, add_eos=True))
    with pytest.raises(DataError, match="TIPS lower-cases texts and cuts them by a SentencePiece vocabulary"):
        tips_writer.check(trained, "tips-jax")
    trained = origin.open_trained(of_both(tmp_path / "other", words, text={"norm_eps": 1e-5}))
    with pytest.raises(DataError, match="TipsText.norm_eps is 1e-05, and the code of tips-jax computes with 1e-06"):
        tips_writer.check(trained, "tips-jax")
