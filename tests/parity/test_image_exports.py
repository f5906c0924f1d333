"""Exports of towers read by transformers, sentence-transformers and onnxruntime: the same vectors, token ids and patches."""

import json

import numpy as np
import onnxruntime
import pytest
import sentence_transformers
import torch
import transformers
from image_bundles import WORDS, of_both, of_images, vocabulary
from image_towers import image_tower
from PIL import Image

import embed
from embed import files
from embed.errors import NumericError
from embed.towers import convert, pictures, source
from embed.workflows import export, verify

pytestmark = pytest.mark.parity
DINO = {
    "mlp_dim": 32,
    "num_class_tokens": 1,
    "class_position": True,
    "activation": "gelu",
    "mask_token": True,
    "layer_scale": 1.0,
}
IMAGENET = {"pixel_mean": (0.485, 0.456, 0.406), "pixel_std": (0.229, 0.224, 0.225)}
IMAGES = {
    "tips image tower": {"mask_token": True},
    "tips, gated": {"gated": True, "activation": "silu", "mlp_dim": 32},
    "dinov2": {**DINO, **IMAGENET, "position_resize": "cubic"},
    "dinov2, gated": {**DINO, "gated": True, "activation": "silu", "mlp_dim": 48, "position_resize": "cubic"},
    "registers": {**DINO, "num_registers": 3, "position_resize": "cubic_antialias"},
}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return vocabulary(tmp_path_factory.mktemp("words") / "words.model")


def opened_pictures(size: int) -> list[Image.Image]:
    return [Image.fromarray(pixels) for name, pixels in pictures.drawn(size).items() if not name.startswith("resized")]


@pytest.mark.parametrize("name", IMAGES)
def test_towers_of_images(name, tmp_path):
    module = image_tower(**IMAGES[name])
    bundle = of_images(tmp_path / "bundle", module)
    export.run(bundle, tmp_path / "out")
    assert verify.run(tmp_path / "out") <= 1e-5
    ours, images = embed.load(bundle), opened_pictures(module.image_size)
    foreign = transformers.AutoModel.from_pretrained(tmp_path / "out")
    pixels = np.stack([np.asarray(image) for image in images]) / np.float32(255)
    pixels = (pixels - np.float32(module.encoder.pixel_mean)) / np.float32(module.encoder.pixel_std)
    with torch.no_grad():
        states = foreign(torch.tensor(pixels, dtype=torch.float32).permute(0, 3, 1, 2)).last_hidden_state.numpy()
    patches = ours.patches(images)[0]
    np.testing.assert_allclose(patches, states[:, -patches.shape[1] :], rtol=0, atol=2e-5)
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(theirs.encode(images), ours.encode(images), rtol=0, atol=1e-5)
    convert.convert(source.read(tmp_path / "out"), tmp_path / "again", "out")
    np.testing.assert_allclose(embed.load(tmp_path / "again").encode(images), ours.encode(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("class_token", [0, 1])
def test_both_towers_in_sentence_transformers(class_token, words, tmp_path):
    bundle = of_both(tmp_path / "bundle", words, class_token=class_token)
    export.run(bundle, tmp_path / "out")
    assert verify.run(tmp_path / "out") <= 1e-5
    ours, images = embed.load(bundle), opened_pictures(12)
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(theirs.encode(images), ours.encode(images), rtol=0, atol=1e-5)
    np.testing.assert_allclose(theirs.encode(WORDS), ours.encode(WORDS), rtol=0, atol=1e-5)
    again = convert.convert(source.read(tmp_path / "out"), tmp_path / "again", "out")
    np.testing.assert_allclose(embed.load(again).encode(WORDS), ours.encode(WORDS), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_both_towers_as_onnx(words, tmp_path):
    bundle = of_both(tmp_path / "bundle", words)
    export.run(bundle, tmp_path / "out", format="onnx")
    assert verify.run(tmp_path / "out") <= 1e-5
    ours, images = embed.load(bundle), opened_pictures(12)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "image" / "onnx" / "model.onnx")
    pixels = np.stack([np.asarray(image) for image in images]).transpose(0, 3, 1, 2) / np.float32(255)
    vectors, patches = session.run(None, {"pixels": pixels})
    np.testing.assert_allclose(vectors, ours.encode(images), rtol=0, atol=1e-5)
    np.testing.assert_allclose(patches, ours.patches(images)[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("form", ["stablehlo", "tips-jax", "tips-pytorch"])
def test_both_towers_in_other_forms(form, words, tmp_path):
    image = {"activation": "gelu", "layer_scale": 1.0, "mask_token": True} if form == "tips-pytorch" else {}
    text = {"norm_eps": 1e-5} if form == "tips-pytorch" else {}
    image["num_heads"], image["width"] = 2, 16
    bundle = of_both(tmp_path / "bundle", words, image, text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embed.towers.towers._HEADS", {16: 2})
        export.run(bundle, tmp_path / "out", format=form)
        assert verify.run(tmp_path / "out") <= 1e-5


def test_tips_pytorch_files_are_those_that_transformers_reads(words, tmp_path):
    """transformers keeps the names of TIPS' PyTorch code but for the MLPs."""
    image = {"activation": "gelu", "layer_scale": 1.0, "mask_token": True}
    bundle = of_both(tmp_path / "bundle", words, image, {"norm_eps": 1e-5})
    export.run(bundle, tmp_path / "npz", format="tips-pytorch")
    export.run(bundle, tmp_path / "folder")
    foreign = transformers.AutoModel.from_pretrained(tmp_path / "folder")
    foreign.save_pretrained(tmp_path / "saved")
    from safetensors.numpy import load_file

    saved = load_file(tmp_path / "saved" / "model.safetensors")
    for file, prefix in (("tips_vision.npz", "vision_encoder."), ("tips_text.npz", "text_encoder.")):
        with np.load(tmp_path / "npz" / file) as arrays:
            for name in set(arrays.files) - {"temperature"}:
                theirs = name.replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
                np.testing.assert_array_equal(arrays[name], saved[prefix + theirs], err_msg=name)


def test_another_vector_of_a_picture_is_found(tmp_path):
    bundle = of_images(tmp_path / "bundle", image_tower(**IMAGES["dinov2"]))
    export.run(bundle, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    (tmp_path / "out" / "preprocessor_config.json").write_text(json.dumps({**config, "image_mean": [0.5, 0.5, 0.5]}))
    files.write_manifest(tmp_path / "out", kind="export", form="sentence-transformers")
    with pytest.raises(
        NumericError, match=r"error .* above 1e-05 at waves.png; its vectors are not the trained model's"
    ):
        verify.run(tmp_path / "out")
