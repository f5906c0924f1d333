"""Bundles of foreign towers: model.json says where the weights come from and which prompt is used without being asked."""

import hashlib

import numpy as np
import pytest
from image_bundles import of_both, of_images, vocabulary
from image_towers import image_tower

import embed
from embed import bundles
from embed.errors import StorageError
from embed.interop import origin
from embed.towers import convert, hugging_face_writer, source


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A folder as transformers has it, of both towers."""
    folder = tmp_path_factory.mktemp("foreign")
    bundle = of_both(folder / "bundle", vocabulary(folder / "words.model"), prompts={"query": "find: {content}"})
    (folder / "out").mkdir()
    hugging_face_writer.write(folder / "out", origin.open_trained(bundle))
    return folder


@pytest.mark.slow
def test_lineage_prompts_and_the_default_prompt(foreign, tmp_path):
    path = foreign / "out" / "config_sentence_transformers.json"
    path.write_text(path.read_text().replace('"default_prompt_name": null', '"default_prompt_name": "query"'))
    bundle = convert.convert(source.read(foreign / "out"), tmp_path / "bundle", "some/name")
    description = bundles.read_model_json(bundle)
    weights = hashlib.sha256((foreign / "out" / "model.safetensors").read_bytes()).hexdigest()
    assert description["lineage"] == {"converted_from": "some/name", "weights": {"model.safetensors": weights}}
    assert description["prompts"]["query"] == "find: {content}" and description["default_prompt_name"] == "query"
    assert description["lengths"] == {"query": 12, "target": 12} and description["text_normalization"] == "none"
    ours, before = embed.load(bundle), embed.load(foreign / "bundle")
    np.testing.assert_allclose(ours.encode(["two dogs"]), before.encode(["two dogs"]), rtol=0, atol=1e-6)
    with pytest.raises(StorageError):
        convert.convert(source.read(foreign / "out"), tmp_path / "bundle", "some/name")


@pytest.mark.slow
def test_a_model_of_images_alone_has_no_texts(tmp_path):
    bundle = of_images(tmp_path / "bundle", image_tower())
    (tmp_path / "out").mkdir()
    hugging_face_writer.write(tmp_path / "out", origin.open_trained(bundle))
    description = convert.describe(source.read(tmp_path / "out"), "name")
    assert not {"tokenizer", "prompts", "lengths"} & description.keys()
