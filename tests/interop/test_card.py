"""The model card: how the folder is used, what it was made from, how it was trained and what it scores."""

import math

import pytest

from embed import bundles
from embed.interop import card, readers
from embed.models.embedder import Embedder
from embed.models.pooling import MeanPooling


@pytest.mark.slow
def test_the_card(exported, gemma_bundle):
    text = (exported / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlibrary_name: sentence-transformers\n") and "# mine\n" in text
    assert "10 dimensions, 48 tokens, Matryoshka sizes 10, 4." in text
    assert readers.source(readers.open_sentence_transformers) in text and "truncate_dim=4" in text
    assert """open_sentence_transformers('mine')(['What is the capital of France?'], prompt_name='query')""" in text
    assert "A text is taken as it is." in text
    assert "| query | ` find:  ` |" in text and "| Reranking-document | ` text:  ` |" in text and "| STS |  |" in text
    assert "embed verify mine" in text and "`parity.json`" in text
    lineage = bundles.read_model_json(gemma_bundle)["lineage"]
    assert "- converted_from: a folder" in text and lineage["weights"]["model.safetensors"] in text
    assert "Suite `small`" in text and "| mine | find | 10 | ndcg_at_10 | 67.9 |" in text
    assert "| mine | find | 4 | ndcg_at_10 | - |" in text and "| bm25 | find | all | ndcg_at_10 | 50.0 |" in text
    assert "## Recipe" not in text and "{" not in text.split("## Prompts")[0].split("```")[0]


def test_the_card_tells_data_recipe_and_inputs(trained, foreign):
    made = trained(Embedder(foreign.SMALL, MeanPooling()), {"query": "{content}", "none": "{content}"})
    lineage = {"method": "uniform", "inputs": [{"weight": 0.5, "digest": "abcdef0123456789", "lineage": {"step": 7}}]}
    text = card.write(made, "sentence-transformers", "mine", recipe="a.b = 3")
    assert "None: texts are encoded as they are." in text and "- step: 3" in text
    assert "  - first: 75.0% of batches" in text and "  - second: 25.0% of batches" in text
    assert "## Recipe" in text and "a.b = 3" in text and "## Scores" not in text
    made.description["lineage"] = lineage
    text = card.write(made, "sentence-transformers", "mine")
    assert "  - weight 0.5, digest `abcdef012345`" in text and "- step: 7" in text
    for form, use in (("stablehlo", "jax.export.deserialize"), ("onnx", "onnxruntime.InferenceSession")):
        text = card.write(made, form, "mine")
        assert use in text and "open_sentence_transformers" not in text and "library_name" not in text


def test_the_card_tells_the_quantisation(trained, foreign):
    given = trained(Embedder(foreign.SMALL, MeanPooling()))
    assert "quantised" not in card.write(given, "stablehlo", "mine")
    given.description["quantization"] = {"name": "int4_blocks", "rules": []}
    text = card.write(given, "stablehlo", "mine")
    assert "The model was quantised as `int4_blocks`; its weights are stored here unpacked.\n" in text
    assert "The model was quantised as `int4_blocks`.\n" in card.write(given, "gguf", "mine")


def test_the_card_tells_every_kind_of_origin(trained, foreign):
    made = trained(Embedder(foreign.SMALL, MeanPooling()))
    start = {"converted_from": "a/b", "weights": {"model.safetensors": "f00"}}
    made.description["lineage"] = {"step": 9, "recipe_name": "*bold*", "from": start}
    text = card.write(made, "sentence-transformers", "mine")
    lines = text.split("## What it was made from\n\n")[1].split("\n")
    assert lines[:5] == [
        "- step: 9",
        r"- recipe_name: \*bold\*",
        "- which came from:",
        "  - converted_from: a/b",
        '  - weights: `{"model.safetensors": "f00"}`',
    ]


@pytest.mark.parametrize("form", ["stablehlo", "onnx"])
@pytest.mark.parametrize("normalization", ["NFC, strip", "none"])
def test_the_code_of_the_other_forms_puts_prompts_around_texts(form, normalization, trained, foreign):
    made = trained(Embedder(foreign.SMALL, MeanPooling()), {"query": "ask: {content}", "document": "{content}"})
    made.description["text_normalization"] = normalization
    function = readers.PROMPTED[normalization]
    text = card.write(made, form, "mine")
    assert readers.source(function) in text
    # ONNX is given the prefixes of sentence-transformers, StableHLO our own templates.
    prompt = "ask: " if form == "onnx" else "ask: {content}"
    call = f"('mine', {function.__name__})('What is the capital of France?', prompt={prompt!r})"
    assert f"vector = open_{form}{call}" in text
    assert ("removed" in text.split("## Prompts")[0]) == (normalization != "none")


def test_scores_are_percent_and_a_dash_where_there_is_none():
    results = {
        "suite": "a|b",
        "models": {"m": {"results": {"t": {"8": {"map": 0.12345, "other": 1.0}, "4": {"map": math.nan}}}}},
        "tasks": {"t": {"main": "map"}},
    }
    assert card.scores_table(results).splitlines()[2:] == [
        "Suite `a|b`, percent.",
        "",
        "| model | task | dimensions | metric | score |",
        "|---|---|---:|---|---:|",
        "| m | t | 8 | map | 12.3 |",
        "| m | t | 4 | map | - |",
    ]
