"""Folders for transformers: read back they are the same model, and what transformers does not compute is refused."""

import json

import numpy as np
import pytest
from image_bundles import of_both, of_images, vocabulary
from image_towers import image_tower

from embed import arrays, trees
from embed.errors import DataError
from embed.interop import origin
from embed.models.embedder import Embedder
from embed.models.pooling import FirstPooling
from embed.towers import hugging_face_writer, source

DINO = {"mlp_dim": 32, "num_class_tokens": 1, "class_position": True, "activation": "gelu", "layer_scale": 1.0}
KINDS = {
    "tipsv2_vision_model": {},
    "dinov2": {**DINO, "position_resize": "cubic", "mask_token": True},
    "dinov2_with_registers": {**DINO, "num_registers": 3, "position_resize": "cubic_antialias"},
}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return vocabulary(tmp_path_factory.mktemp("words") / "words.model")


def written(folder, bundle):
    folder.mkdir()
    hugging_face_writer.write(folder, origin.open_trained(bundle))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_image_towers_are_read_back(kind, tmp_path):
    module = image_tower(**KINDS[kind]).clone(matryoshka_dims=(8,))
    folder = written(tmp_path / "out", of_images(tmp_path / "bundle", module))
    opened = source.read(folder)
    assert opened.kind == kind and opened.notes == ()
    assert opened.module == module.clone(
        encoder=module.encoder.clone(mask_token=True, layer_scale=1.0)
    )  # transformers always has both
    expected = trees.flatten(arrays.load_numpy(tmp_path / "bundle"))
    params = opened.params()
    assert set(expected) <= set(params)
    for path, array in expected.items():
        np.testing.assert_array_equal(params[path], array, err_msg=path)
    for path in set(params) - set(expected):
        np.testing.assert_array_equal(params[path], 1.0 if path.endswith("scale") else 0.0, err_msg=path)


@pytest.mark.slow
def test_a_linear_map_behind_an_image_tower_is_a_module_of_its_own(tmp_path):
    module = image_tower(**KINDS["dinov2"]).clone(projection=(10, 6))
    folder = written(tmp_path / "out", of_images(tmp_path / "bundle", module))
    opened = source.read(folder)
    assert opened.module.projection == (10, 6)
    expected = trees.flatten(arrays.load_numpy(tmp_path / "bundle"))
    np.testing.assert_array_equal(opened.params()["projection_1/kernel"], expected["projection_1/kernel"])


@pytest.mark.slow
@pytest.mark.parametrize("class_token", [0, 1])
def test_both_towers_are_read_back(class_token, words, tmp_path):
    """The class token that embeds becomes the first one."""
    bundle = of_both(tmp_path / "bundle", words, class_token=class_token, prompts={"query": "find: {content}"})
    opened = source.read(written(tmp_path / "out", bundle))
    expected, params = trees.flatten(arrays.load_numpy(bundle)), opened.params()
    tokens = expected["image/encoder/class_tokens"]
    np.testing.assert_array_equal(params["image/encoder/class_tokens"], tokens[::-1] if class_token else tokens)
    np.testing.assert_array_equal(params["text/encoder/embedding/table"], expected["text/encoder/embedding/table"])
    assert opened.prompts["query"] == "find: {content}" and opened.max_length == 12


REFUSED = {
    "3 class tokens": (image_tower(num_class_tokens=3), "3 class tokens with no position"),
    "patch": (image_tower().clone(image_size=14), "images of 14 pixels, which are no multiple of the patch of 4"),
    "resize": (
        image_tower(**KINDS["dinov2"] | {"position_resize": "cubic_antialias"}).clone(image_size=16),
        "positions of a grid that is resized as 'cubic_antialias', where dinov2 does it as 'cubic'",
    ),
    "gate": (image_tower(gated=True, activation="gelu", mlp_dim=32), "a gated MLP with 'gelu'"),
    "hidden": (image_tower(gated=True, activation="silu", mlp_dim=30), "a gated MLP of 30 hidden units"),
    "ratio": (
        image_tower(**KINDS["dinov2"] | {"mlp_dim": 24}),
        "an MLP of 24 hidden units, which dinov2 makes a multiple",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_what_transformers_does_not_compute_is_refused(case, tmp_path):
    module, reason = REFUSED[case]
    trained = origin.open_trained(of_images(tmp_path / "bundle", module))
    with pytest.raises(
        DataError, match=f"has {reason}.*; transformers has no such model: export with --format=stablehlo"
    ):
        hugging_face_writer.kind_of(trained)


@pytest.mark.slow
def test_a_pair_of_other_towers_is_refused(words, tmp_path):
    trained = origin.open_trained(of_both(tmp_path / "bundle", words))
    pair = trained.module
    others = {
        "FirstPooling of texts": pair.clone(text=Embedder(pair.text.encoder, FirstPooling())),
        "linear maps behind its towers": pair.clone(image=pair.image.clone(projection=(16,))),
        "1 class tokens with a position": pair.clone(image=image_tower(**KINDS["dinov2"])),
    }
    for reason, module in others.items():
        object.__setattr__(trained, "module", module)
        with pytest.raises(DataError, match=f"has {reason}"):
            hugging_face_writer.kind_of(trained)


@pytest.mark.slow
def test_colours_are_scaled_as_the_processor_says(tmp_path):
    """A Dinov2 whose processor does not normalise takes colours as they are."""
    folder = written(tmp_path / "out", of_images(tmp_path / "bundle", image_tower(**KINDS["dinov2"])))
    path = folder / "preprocessor_config.json"
    config = json.loads(path.read_text())
    assert not config["do_normalize"] and source.read(folder).module.encoder.pixel_std == (1.0, 1.0, 1.0)
    path.write_text(json.dumps({**config, "do_normalize": True, "image_std": [0.5, 0.25, 0.125]}))
    assert source.read(folder).module.encoder.pixel_std == (0.5, 0.25, 0.125)
