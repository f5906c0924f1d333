"""EmbeddingGemma 2's folders of texts and images: the order of heads, what is refused, and the way back."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from mixed_models import SIDE, mixed_embedder
from tiny_models import word_tokenizer

from embed import bundles, checkpoints, documents
from embed.errors import DataError
from embed.interop import origin
from embed.models import api
from embed.towers import convert, embedding_gemma2, source
from embed.trees import flatten, unflatten

WORDS = [*"abcdefgh", "<|image>", "<|image|>", "<image|>"]
PIECES = {"before": "<|image>", "placeholder": "<|image|>", "after": "<image|>"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = word_tokenizer(folder / "tokenizer.json", WORDS)
    model = api.build(mixed_embedder(tokenizer.vocab_size, vision={"standardize": True}, max_images=8, **PIECES))
    random = np.random.default_rng(3)
    shapes = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    params = unflatten({path: random.normal(size=s.shape).astype(np.float32) for path, s in shapes.items()})
    content = bundles.model_json(
        model.description,
        tokenizer_options=tokenizer.options(),
        tokenizer_digest=tokenizer.digest,
        prompts={"query": "a {content}", "document": "{content}", "none": "{content}"},
        matryoshka_dims=model.matryoshka_dims,
        lengths={"query": 30, "target": 30},
        lineage={"run": "test"},
        text_normalization="none",
    )
    contents = bundles.contents(content, tokenizer.filename, tokenizer.content())
    return checkpoints.write_bundle(folder / "bundle", params, contents)


@pytest.fixture
def export(bundle, tmp_path):
    (tmp_path / "export").mkdir()
    embedding_gemma2.write(tmp_path / "export", origin.open_trained(bundle))
    return tmp_path / "export"


def changed(folder, name, **entries):
    path = folder / name
    content = documents.read_json(path)
    for key, value in entries.items():
        inner = content["vision_config"] if key not in content and name == "config.json" else content
        inner[key] = value
    path.write_text(json.dumps(content))
    return folder


def test_quarters_of_heads_change_places():
    tensor = embedding_gemma2.Axial("q.weight", ("query/kernel",), inputs=1)
    ours = np.arange(3 * 2 * 8, dtype=np.float32).reshape(3, 2, 8)  # [D, H, K]
    theirs = tensor.join([ours])
    assert theirs.shape == (16, 3)
    assert theirs[:8, 0].tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    np.testing.assert_array_equal(tensor.split(theirs, [ours.shape])[0], ours)


@pytest.mark.slow
def test_there_and_back_is_the_same_to_the_bit(bundle, export, tmp_path):
    assert source.is_one(export) and source.takes_options(export)
    read = source.read(export)
    back = convert.convert(read, tmp_path / "back", "export")
    first, second = origin.open_trained(bundle), origin.open_trained(back)
    assert first.module == second.module
    for path in first.shapes:
        np.testing.assert_array_equal(first.read(path), second.read(path), err_msg=path)
    assert second.description["prompts"]["query"] == "a {content}"
    assert f"squares of {SIDE} x {SIDE} pixels, 4 vectors each" in read.notes[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"use_clipped_linears": True}, "vision_config.use_clipped_linears = True is not supported"),
        ({"rope_parameters": {"rope_type": "default"}}, "vision_config.rope_parameters are not axial"),
        ({"hidden_activation": "silu"}, "vision_config.hidden_activation = 'silu' is not supported"),
        ({"hidden_size": 0}, "hidden_size = 0 cannot be"),
        ({"vision_config": {"model_type": "siglip"}}, "vision_config is no object of the kind gemma4_vision"),
        ({"boi_token_id": 999}, "has no token 999, which config.json names as boi_token_id"),
    ],
)
def test_what_is_refused(export, entries, message):
    with pytest.raises(DataError, match=message):
        source.read(changed(export, "config.json", **entries))


@pytest.mark.slow
def test_a_processor_of_another_tower_is_refused(export):
    path = export / "processor_config.json"
    content = documents.read_json(path)
    content["image_processor"]["patch_size"] = 14
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="patch_size = 14, and config.json says 2; restore the files"):
        source.read(export)


@pytest.mark.slow
def test_without_a_processor_images_are_as_large_as_280_vectors_allow(export):
    (export / "processor_config.json").unlink()
    with pytest.raises(
        DataError, match="does not fit its tower: images of 64 pixels a side"
    ):  # it has positions for 18
        source.read(export)


@pytest.mark.slow
def test_linear_maps_are_refused(bundle, tmp_path):
    trained = origin.open_trained(bundle)
    module = trained.module.clone(text=trained.module.text.clone(projection=(8,)))
    with pytest.raises(DataError, match="has linear maps after pooling"):
        embedding_gemma2.write(tmp_path, dataclasses.replace(trained, module=module))
