"""Exports in sentence-transformers: they load without complaint and give our vectors, and `embed verify` notices damage.

Every shape is a random foreign folder written by hand, converted and exported by the command line. The foreign folder itself
runs in sentence-transformers too, so that a fault that import and export share is seen.
"""

import json
import shutil

import numpy as np
import parity_foreign
import pytest
import safetensors.numpy
from corruption import recommit
from parity_foreign import SHAPES, TEXTS, embed, open_reported, theirs

from embed import arrays, documents, trees
from embed.inference import model as inference

TOLERANCE = 1e-5
# Keys that MTEB would put on both sides of a search; the sides are written apart instead.
NOT_WRITTEN = {"Retrieval", "Reranking", "InstructionRetrieval"}
shapes = pytest.mark.parametrize("name", SHAPES)


def largest(a, b) -> float:
    assert a.shape == b.shape
    assert np.all(np.isfinite(a))
    return float(np.max(np.abs(a - b)))


def opened(folder):
    return open_reported(folder)[0]


@shapes
def test_loading_an_export_reports_nothing(name, made):
    said = open_reported(made(name).export)[1]
    assert said == []


def test_missing_and_unexpected_weights_would_be_reported(made, tmp_path):
    folder = shutil.copytree(made("bert").export, tmp_path / "export")
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    weights["stranger"] = weights.pop("encoder.layer.0.output.dense.weight")
    safetensors.numpy.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    said = "\n".join(open_reported(folder)[1])
    assert "MISSING" in said and "UNEXPECTED" in said and "stranger" in said


@shapes
def test_every_prompt_gives_the_same_vectors(name, made, record_property):
    ours, export, foreign = inference.open_model(made(name).bundle), opened(made(name).export), made(name).foreign
    foreign = opened(foreign)
    assert set(SHAPES[name].prompts) - NOT_WRITTEN <= set(export.prompts)
    errors = {}
    for prompt in ours.prompts:
        vectors = ours.encode(TEXTS, prompt=prompt)
        assert vectors.std() > 0.05
        # A model without prompts writes two empty ones; anything else is asked for by its name.
        asked = {"prompt_name": prompt} if prompt in export.prompts else {"prompt": None}
        assert prompt == "none" or prompt in export.prompts or not any(SHAPES[name].prompts.values())
        errors[prompt] = largest(vectors, theirs(export, TEXTS, **asked))
        prefix = SHAPES[name].prompts.get(prompt)
        if prefix is not None or prompt == "none":
            errors[f"{prompt}, foreign"] = largest(vectors, theirs(foreign, TEXTS, prompt=prefix))
    record_property("largest_error", float(max(errors.values())))
    assert {k: e for k, e in errors.items() if e > TOLERANCE} == {}


@shapes
def test_prompts_of_the_foreign_folder_keep_their_words(name, made):
    export = opened(made(name).export)
    given = {key: text for key, text in SHAPES[name].prompts.items() if key not in NOT_WRITTEN}
    assert {key: export.prompts[key] for key in given} == given
    if SHAPES[name].prompts:
        assert len(set(export.prompts.values())) > 1


@pytest.mark.parametrize("name", ["bert", "qwen3", "embeddinggemma"])
def test_queries_and_documents_by_method(name, made):
    ours, export = inference.open_model(made(name).bundle), opened(made(name).export)
    options = {"batch_size": len(TEXTS), "show_progress_bar": False}
    assert largest(ours.encode(TEXTS, prompt="query"), export.encode_query(list(TEXTS), **options)) <= TOLERANCE
    assert largest(ours.encode(TEXTS, prompt="document"), export.encode_document(list(TEXTS), **options)) <= TOLERANCE
    assert largest(ours.encode(TEXTS, prompt="query"), ours.encode(TEXTS, prompt="document")) > 1e-2


@shapes
def test_prefixes_of_vectors_at_unit_length(name, made):
    ours, export = inference.open_model(made(name).bundle), opened(made(name).export)
    found = theirs(export, TEXTS, prompt_name="query", truncate_dim=12, normalize_embeddings=True)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert largest(ours.encode(TEXTS, prompt="query", dims=12), found) <= TOLERANCE


@shapes
def test_texts_alone_and_in_a_batch_of_other_lengths(name, made):
    ours, export = inference.open_model(made(name).bundle), opened(made(name).export)
    alone = np.concatenate([theirs(export, [text], prompt_name="query") for text in TEXTS])
    assert largest(ours.encode(TEXTS, prompt="query"), alone) <= TOLERANCE


def leaves(bundle):
    return trees.flatten(arrays.load_numpy(bundle))


def assert_same_model(bundle, other):
    """Fails unless the parameters are equal to the bit, and everything else that decides the vectors is equal too."""
    first, second = leaves(bundle), leaves(other)
    assert first.keys() == second.keys()
    assert [path for path in first if not np.array_equal(first[path], second[path])] == []
    one, two = (documents.read_json(folder / "model.json") for folder in (bundle, other))
    for description in (one, two):  # no sizes mean the full one alone, which an export spells out
        description["architecture"].pop("matryoshka_dims")
    for key in ("architecture", "prompts", "lengths", "matryoshka_dims"):
        assert one[key] == two[key]


@shapes
def test_the_newest_dialect_converts_to_the_same_bundle(name, made, tmp_path):
    model = opened(made(name).foreign)
    model.save_pretrained(str(tmp_path / "newest"))
    kinds = [entry["type"] for entry in json.loads((tmp_path / "newest" / "modules.json").read_text())]
    assert kinds[0] == "sentence_transformers.base.modules.transformer.Transformer"
    assert embed("convert", tmp_path / "newest", tmp_path / "bundle") == 0
    assert_same_model(made(name).bundle, tmp_path / "bundle")


@shapes
def test_an_export_converts_back_to_the_same_bundle(name, made, tmp_path):
    assert embed("convert", made(name).export, tmp_path / "bundle") == 0
    assert_same_model(made(name).bundle, tmp_path / "bundle")


@shapes
def test_verify_passes(name, made, capsys):
    assert embed("verify", made(name).export) == 0
    assert "in sentence-transformers: token ids equal" in capsys.readouterr().out


def one_weight(place, tensor):
    def alter(folder):
        weights = safetensors.numpy.load_file(folder / place)
        weights[tensor] = weights[tensor].copy()
        weights[tensor].flat[7] += 0.25
        safetensors.numpy.save_file(weights, folder / place, {"format": "pt"})

    return alter


def entries(place, **changes):
    """Returns what changes entries of a JSON file; `prompts` inside it are merged."""

    def alter(folder):
        content = json.loads((folder / place).read_text())
        before = json.dumps(content)
        prompts = changes.get("prompts", {})
        assert set(prompts) <= set(content.get("prompts", {}))
        content = {**content, **changes}
        if prompts:
            content["prompts"] = {**json.loads(before)["prompts"], **prompts}
        assert json.dumps(content) != before
        (folder / place).write_text(json.dumps(content))

    return alter


def prompt(*names):
    return entries("config_sentence_transformers.json", prompts=dict.fromkeys(names, "something else: "))


def without_dense(folder):
    modules = json.loads((folder / "modules.json").read_text())
    kept = [m for m in modules if not m["type"].endswith("Dense")]
    (folder / "modules.json").write_text(json.dumps(kept))


OTHER_POOLING = {
    "cls": entries("1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True),
    "mean": entries(
        "1_Pooling/config.json",
        pooling_mode_mean_tokens=True,
        pooling_mode_cls_token=False,
        pooling_mode_lasttoken=False,
    ),
}
DAMAGE = {
    "a weight of bert": ("bert", one_weight("model.safetensors", "encoder.layer.1.attention.self.value.weight")),
    "a weight of gemma3": ("gemma3", one_weight("model.safetensors", "layers.6.mlp.down_proj.weight")),
    "a bias of xlm-roberta": ("xlm-roberta", one_weight("model.safetensors", "encoder.layer.0.output.dense.bias")),
    "a norm of modernbert": ("modernbert", one_weight("model.safetensors", "layers.2.attn_norm.weight")),
    "a weight of t5gemma": ("t5gemma", one_weight("model.safetensors", "encoder.layers.3.self_attn.q_proj.weight")),
    "a linear map": ("embeddinggemma", one_weight("3_Dense/model.safetensors", "linear.weight")),
    "no linear maps": ("embeddinggemma", without_dense),
    "query prompt": ("embeddinggemma", prompt("query")),
    "document prompt": ("bert", prompt("document")),
    "clustering prompt": ("embeddinggemma", prompt("clustering")),
    "prompt of a name of its own": ("embeddinggemma", prompt("odd name")),
    "prompt that repeats the query's": ("embeddinggemma", prompt("question answering")),
    "prompts under MTEB's keys": ("embeddinggemma", prompt("Retrieval-query", "Retrieval-document", "STS")),
    "bert pools the mean": ("bert", OTHER_POOLING["mean"]),
    "qwen3 pools the mean": ("qwen3", OTHER_POOLING["mean"]),
    "gemma3 pools the first": ("gemma3", OTHER_POOLING["cls"]),
    "another window": ("gemma3", entries("config.json", sliding_window=4)),
    "one direction": ("gemma3", entries("config.json", use_bidirectional_attention=False)),
    "another rotary base": ("modernbert", entries("config.json", local_rope_theta=50_000.0)),
    "no softcap": ("t5gemma", lambda folder: _change_encoder(folder, attn_logit_softcapping=50.0)),
    "another length": ("xlm-roberta", entries("sentence_bert_config.json", max_seq_length=32)),
}


def _change_encoder(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    assert changes.keys() <= config["encoder"].keys()
    config["encoder"].update(changes)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("damage", DAMAGE)
def test_verify_fails_on_an_altered_folder(damage, made, tmp_path, capsys):
    name, alter = DAMAGE[damage]
    folder = shutil.copytree(made(name).export, tmp_path / "export")
    alter(folder)
    assert embed("verify", folder) == 65
    assert capsys.readouterr().err.splitlines()[-1].startswith("embed: ")
    recommit(folder)
    assert embed("verify", folder) == 70
    assert capsys.readouterr().err.splitlines()[-1].startswith("embed: ")


def test_shapes_cover_every_family():
    assert {shape.family for shape in SHAPES.values()} == set(parity_foreign.CONFIGS)
    assert {shape.pooling for shape in SHAPES.values()} == {"mean", "cls", "lasttoken"}
