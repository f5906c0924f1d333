"""BERT (all-MiniLM, bge, e5) and XLM-RoBERTa (multilingual-e5, bge-m3): one layout, two positions' tables."""

from embed.interop import entries
from embed.interop.entries import only
from embed.interop.family import FOREIGN_ACTIVATIONS, SIZES, Family, activation, epsilon, read_fields, write_fields
from embed.interop.known_entries import CONFIG
from embed.interop.tensors import Tensor, linear, norm
from embed.models.bert import Bert

_LAYER, _OURS = "encoder.layer.{}", "stack/layers"
_SIZES = {**SIZES, "max_positions": "max_position_embeddings", "num_token_types": "type_vocab_size"}

_TENSORS = (
    Tensor("embeddings.word_embeddings.weight", ("embedding/table",)),
    Tensor("embeddings.position_embeddings.weight", ("position_embedding/table",)),
    Tensor("embeddings.token_type_embeddings.weight", ("type_embedding/table",)),
    *norm("embeddings.LayerNorm", "embedding_norm"),
    *linear(f"{_LAYER}.attention.self.query", f"{_OURS}/attention/query"),
    *linear(f"{_LAYER}.attention.self.key", f"{_OURS}/attention/key"),
    *linear(f"{_LAYER}.attention.self.value", f"{_OURS}/attention/value"),
    *linear(f"{_LAYER}.attention.output.dense", f"{_OURS}/attention/output", inputs=2),
    *norm(f"{_LAYER}.attention.output.LayerNorm", f"{_OURS}/attention_norm"),
    *linear(f"{_LAYER}.intermediate.dense", f"{_OURS}/mlp/up"),
    *linear(f"{_LAYER}.output.dense", f"{_OURS}/mlp/down"),
    *norm(f"{_LAYER}.output.LayerNorm", f"{_OURS}/mlp_norm"),
)
# Heads of other tasks, and buffers that old versions saved.
_IGNORED = (r"embeddings\.(position_ids|token_type_ids)", r"pooler\..*", r"cls\..*", r"lm_head\..*", r"classifier\..*")


_ENTRIES = CONFIG | entries.table(
    honoured=(*_SIZES.values(), "hidden_act", "layer_norm_eps"),
    no_effect=("is_causal",),  # only decoders read it
    refused={"position_embedding_type": only("absolute", None)},
)


def _fields(config: dict) -> dict:
    return {
        **read_fields(config, _SIZES),
        "activation": activation(config, "hidden_act", "gelu"),
        "norm_eps": epsilon(config, "layer_norm_eps", 1e-12),
    }


def _config(encoder: Bert) -> dict:
    return {
        **write_fields(encoder, _SIZES),
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": FOREIGN_ACTIVATIONS[encoder.activation],
        "hidden_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "layer_norm_eps": encoder.norm_eps,
        "position_embedding_type": "absolute",
    }


def _offset(config: dict) -> int:
    """Returns where positions begin: behind the padding's, pad_token_id + 1."""
    return entries.whole_number("config.json", config, "pad_token_id", 0, config["max_position_embeddings"] - 2, 1) + 1


BERT = Family(
    model_type="bert",
    class_name="BertModel",
    module=Bert,
    owns=lambda encoder: encoder.position_offset == 0,
    fields=_fields,
    config=_config,
    max_length=lambda encoder: encoder.max_positions,
    entries=_ENTRIES,
    max_positions=512,
    tensors=_TENSORS,
    prefixes=("", "bert."),
    ignored=_IGNORED,
    load_options={"add_pooling_layer": False},
)

XLM_ROBERTA = Family(
    model_type="xlm-roberta",
    class_name="XLMRobertaModel",
    module=Bert,
    owns=lambda encoder: encoder.position_offset > 0,
    fields=lambda config: {**_fields(config), "position_offset": _offset(config)},
    config=lambda encoder: {**_config(encoder), "pad_token_id": encoder.position_offset - 1},
    max_length=lambda encoder: encoder.max_positions - encoder.position_offset,
    entries=_ENTRIES,
    max_positions=512,
    tensors=_TENSORS,
    prefixes=("", "roberta."),
    ignored=_IGNORED,
    load_options={"add_pooling_layer": False},
)
