"""What an export starts from: the parameters that are served, and what is told of the model."""

import types

import jax
import numpy as np
import pytest

from embed import arrays, checkpoints, files, trees
from embed.interop import origin


def test_moving_averages_are_what_is_exported(gemma_bundle, foreign, tmp_path):
    """A step folder of a run with a moving average: every form writes the average, not the last parameters."""
    params = arrays.load_numpy(gemma_bundle)
    average = jax.tree.map(lambda x: x * np.float32(2), params)
    contents = {n: (gemma_bundle / n).read_bytes() for n in ("model.json", "tokenizer.json")}
    saver = checkpoints.Saver(tmp_path / "run" / "checkpoints")
    saver.save(7, {"params": average, "learned": {"model": params}}, contents)
    saver.close()
    trained = origin.open_trained(tmp_path / "run")
    assert trained.folder.name == "7" and trained.digest == files.folder_digest(trained.folder)
    ours = trees.flatten(average)
    assert set(trained.shapes) == set(ours)
    assert all(np.array_equal(trained.read(path), ours[path]) for path in ours)


def made(normalization: str, prompts=None, pieces=str.split, **fields) -> origin.Trained:
    """A model whose tokens are the pieces of a text; by default words, between which white space is nothing."""

    def encode_batch(texts, most):
        return [np.array([sum(map(ord, p)) for p in pieces(text)][:most]) for text in texts], 0

    return origin.Trained(
        folder=None,
        description={
            "text_normalization": normalization,
            "prompts": {"query": "ask: {content}", "mine": "{content}"} if prompts is None else prompts,
            "lengths": {"query": 7, "target": 9, "inference": 8},
            "matryoshka_dims": (8, 4),
            "architecture": {"type": "Embedder"},
            **fields,
        },
        module=None,
        tokenizer=types.SimpleNamespace(encode_batch=encode_batch, pad_id=5),
        shapes={},
        read=None,
        digest="",
    )


def test_what_a_user_of_vectors_must_know():
    trained = made("none")
    assert (trained.max_length, trained.matryoshka_dims) == (9, [8, 4])
    found = origin.public_description(trained)
    assert found == {**{k: v for k, v in trained.description.items() if k != "architecture"}, "padding_token_id": 5}
    assert "architecture" in trained.description  # what was given is as it was


def test_the_side_of_truncation_is_right_where_the_tokenizer_says_nothing():
    trained = made("none")
    assert origin.truncation_side(trained) == "right"
    trained.tokenizer.truncation_side = "left"
    assert origin.truncation_side(trained) == "left"


def test_white_space_that_makes_no_tokens_needs_no_note():
    assert origin.text_notes(made("none"), "sentence-transformers") == []
    assert origin.text_notes(made("NFC, strip"), "sentence-transformers") == []


def test_white_space_that_makes_tokens_is_told_where_sentence_transformers_cuts_texts():
    (note,) = origin.text_notes(made("none", pieces=list), "sentence-transformers")
    assert note.startswith(
        "the model reads white space at the ends of a text, as sentence-transformers 6 does; earlier"
    )
    (note,) = origin.text_notes(made("NFC, strip", pieces=list), "sentence-transformers")
    assert note.startswith(
        "strip white space from the beginning of texts: behind a prompt sentence-transformers leaves"
    )


@pytest.mark.parametrize("form", ["stablehlo", "onnx"])
def test_the_other_forms_are_given_prompted_texts(form):
    for normalization in ("none", "NFC, strip"):
        assert origin.text_notes(made(normalization, pieces=list), form) == []


def test_without_prompts_a_text_that_is_stripped_has_nothing_before_it():
    bare = {"query": "{content}", "mine": " {content}"}
    assert origin.text_notes(made("NFC, strip", bare, pieces=list), "sentence-transformers") == []
    assert len(origin.text_notes(made("none", bare, pieces=list), "sentence-transformers")) == 1


def test_weights_of_a_quantised_model_have_a_note():
    assert origin.value_notes(made("none"), "float32") == []
    with_decoder = made("none")
    with_decoder.description["architecture"] = {"decoder": {"type": "Gemma"}}
    (note,) = origin.value_notes(with_decoder, "float32")
    assert note.startswith("the decoder is left out: embeddings do not use it")
    quantised = made("none", quantization={"name": "int4_blocks", "rules": []})
    (note,) = origin.value_notes(quantised, "float32")
    assert note == "the model is quantised as int4_blocks: the weights have those values, and take the space of float32"
    (note,) = origin.value_notes(quantised, "bfloat16")
    assert "int4_blocks" in note and "bfloat16 rounds its values again" in note
