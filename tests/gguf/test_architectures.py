"""Tensors and metadata by llama.cpp's names, and the models that it would compute otherwise."""

import dataclasses

import gguf
import gguf_models
import numpy as np
import pytest
from gguf_models import MODELS

from embed.errors import DataError
from embed.gguf import architectures
from embed.models.bert import Bert
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.modernbert import ModernBert
from embed.models.pooling import AttentionPooling, MeanPooling
from embed.models.qwen3 import Qwen3
from embed.models.t5gemma import T5GemmaEncoder


def known_keys(architecture: str) -> set[str]:
    """Returns every entry that the gguf package names, for one architecture."""
    groups = [value for value in vars(gguf.Keys).values() if isinstance(value, type)]
    keys = [key for group in groups for key in vars(group).values() if isinstance(key, str)]
    return {key.replace("{arch}", architecture) for key in keys}


@pytest.mark.parametrize("architecture", architectures.ALL, ids=lambda a: a.name)
def test_tensors_have_the_names_of_the_gguf_package(architecture):
    number = next(i for i, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture.name)
    names = {gguf.TENSOR_NAMES[tensor].replace("{bid}", "{}") for tensor in gguf.MODEL_TENSORS[number]}
    ours = {tensor.name.rpartition(".")[0] for tensor in architecture.tensors}
    assert ours <= names, ours - names
    assert {t.name.removesuffix(".weight") for t in architecture.projection} <= {*names, "dense_2", "dense_3"}


@pytest.mark.parametrize("name", MODELS)
def test_entries_have_the_names_of_the_gguf_package_and_give_the_encoder_back(name):
    module, _ = MODELS[name]
    architecture = architectures.of_model(module, "here")
    entries = architecture.metadata(module.encoder, gguf_models.LENGTH)
    # The activation is read by newer versions of llama.cpp than the package is of.
    assert set(entries) - {f"{architecture.name}.hidden_activation"} <= known_keys(architecture.name)
    assert all(type(value) in (bool, int, float, str) for value in entries.values())
    expected = module.encoder
    if isinstance(expected, Bert) and expected.position_offset:
        expected = dataclasses.replace(expected, max_positions=expected.max_positions - 2, position_offset=0)
    assert architecture.encoder(entries, vocab_size=gguf_models.VOCAB) == expected


def test_poolings_have_the_numbers_of_the_gguf_package():
    numbers = {kind.__name__: gguf.PoolingType(number).name for kind, number in architectures.POOLINGS.items()}
    assert numbers == {"MeanPooling": "MEAN", "FirstPooling": "CLS", "LastPooling": "LAST"}


def test_norms_of_gemma_are_stored_with_their_one_and_other_tensors_as_they_are():
    array, encoder = np.full(4, 0.25, np.float32), MODELS["gemma"][0].encoder
    stored = architectures.GEMMA.stored("blk.0.attn_q_norm.weight", array, encoder)
    assert np.array_equal(stored, np.full(4, 1.25)) and stored.dtype == np.float32
    assert np.array_equal(architectures.GEMMA.restored("blk.0.attn_q_norm.weight", stored), array)
    assert architectures.GEMMA.stored("blk.0.ffn_up.weight", array, encoder) is array
    assert np.array_equal(architectures.QWEN3.stored("output_norm.weight", array, None), array)


def test_positions_before_a_texts_first_are_left_out():
    table, encoder = np.arange(12.0).reshape(6, 2), MODELS["xlm-roberta"][0].encoder
    assert np.array_equal(architectures.BERT.stored("position_embd.weight", table, encoder), table[2:])


@pytest.mark.parametrize(
    ("name", "is_noted"), [("bert", True), ("modernbert", True), ("gemma", False), ("qwen3", False)]
)
def test_an_activation_that_is_approximated_is_noted(name, is_noted):
    module, _ = MODELS[name]
    notes = architectures.notes(architectures.of_model(module, "here"), module.encoder)
    assert (len(notes) == 1 and "gelu by its tanh approximation" in notes[0]) if is_noted else notes == []


POSSIBLE = "Possible: Bert (XLM-RoBERTa too), ModernBert, Gemma (not causal; projection to nothing, or back to its width), Qwen3"
REFUSED = {
    "T5Gemma": (Embedder(T5GemmaEncoder(), MeanPooling()), "llama.cpp has no such encoder"),
    "attention pooling": (Embedder(Bert(), AttentionPooling()), "llama.cpp has no AttentionPooling"),
    "a causal Gemma": (Embedder(Gemma(causal=True), MeanPooling()), "causal = True, where llama.cpp has False"),
    "no window": (Embedder(Gemma(window=0), MeanPooling()), "window = 0, which llama.cpp takes for no window"),
    "another scale": (
        Embedder(Gemma(query_scale=0.1), MeanPooling()),
        "query_scale = 0.1, where llama.cpp has head_dim^-0.5 = 0.0625",
    ),
    "relu": (Embedder(Bert(activation="relu"), MeanPooling()), "activation = 'relu', where llama.cpp has 'gelu' or"),
    "biases": (Embedder(ModernBert(mlp_bias=True), MeanPooling()), "mlp_bias = True, where llama.cpp has False"),
    "norms with biases": (Embedder(ModernBert(norm_bias=True), MeanPooling()), "norm_bias = True"),
    "attention with biases": (Embedder(Qwen3(attention_bias=True), MeanPooling()), "attention_bias = True"),
    "a map where none is": (
        Embedder(Bert(), MeanPooling(), (384,)),
        "projection = (384,), and llama.cpp's bert has none",
    ),
    "a map to another size": (
        Embedder(Gemma(), MeanPooling(), (3072, 256)),
        "projection = (3072, 256), where llama.cpp has at most 2 linear maps, back to 768",
    ),
    "three maps": (Embedder(Gemma(), MeanPooling(), (768, 768, 768)), "has at most 2 linear maps"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_llama_cpp_lacks_is_refused_with_the_list_of_what_it_has(kind):
    module, message = REFUSED[kind]
    with pytest.raises(DataError) as caught:
        architectures.of_model(module, "a/folder")
    line = str(caught.value)
    assert line.startswith(f"a/folder: {type(module.encoder).__name__} cannot be a GGUF: ") and "\n" not in line
    assert message in line and POSSIBLE in line and line.endswith("export with another --format")


def test_all_that_is_lacking_is_said_at_once():
    with pytest.raises(
        DataError, match="causal = True.*; window = 0.*; llama.cpp has no AttentionPooling; projection = "
    ):
        architectures.of_model(Embedder(Gemma(causal=True, window=0), AttentionPooling(), (3,)), "here")
