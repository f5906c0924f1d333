"""Qwen3 and Qwen3-Embedding: a causal decoder, the last token is the text."""

from embed.errors import DataError
from embed.interop import entries
from embed.interop.entries import only
from embed.interop.family import DECODER_SIZES, Family, flag, flat_rope, read_fields, write_fields
from embed.interop.known_entries import CONFIG
from embed.interop.tensors import Tensor, linear, norm
from embed.models.qwen3 import Qwen3

_LAYER, _OURS = "layers.{}", "stack/layers"

_TENSORS = (
    Tensor("embed_tokens.weight", ("embedding/table",)),
    *norm("norm", "final_norm"),
    *linear(f"{_LAYER}.self_attn.q_proj", f"{_OURS}/attention/query"),
    *linear(f"{_LAYER}.self_attn.k_proj", f"{_OURS}/attention/key"),
    *linear(f"{_LAYER}.self_attn.v_proj", f"{_OURS}/attention/value"),
    *linear(f"{_LAYER}.self_attn.o_proj", f"{_OURS}/attention/output", inputs=2),
    *norm(f"{_LAYER}.self_attn.q_norm", f"{_OURS}/attention/query_norm"),
    *norm(f"{_LAYER}.self_attn.k_norm", f"{_OURS}/attention/key_norm"),
    *norm(f"{_LAYER}.input_layernorm", f"{_OURS}/attention_norm"),
    *norm(f"{_LAYER}.post_attention_layernorm", f"{_OURS}/mlp_norm"),
    *linear(f"{_LAYER}.mlp.gate_proj", f"{_OURS}/mlp/gate"),
    *linear(f"{_LAYER}.mlp.up_proj", f"{_OURS}/mlp/up"),
    *linear(f"{_LAYER}.mlp.down_proj", f"{_OURS}/mlp/down"),
)


_ENTRIES = CONFIG | entries.table(
    honoured=(
        *DECODER_SIZES.values(),
        "attention_bias",
        "is_causal",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "layer_types",
    ),
    # Only read with use_sliding_window.
    no_effect=("sliding_window", "max_window_layers"),
    refused={"hidden_act": only("silu"), "use_sliding_window": only(False, None)},
)


def _fields(config: dict) -> dict:
    if set(config.get("layer_types") or ()) - {"full_attention"}:
        raise DataError("config.json: layer_types other than full_attention are not supported in qwen3")
    return {
        **read_fields(config, DECODER_SIZES),
        "causal": flag(config, "is_causal", True),
        "rope_base": flat_rope(config, 10_000.0),
        "attention_bias": flag(config, "attention_bias"),
    }


def _config(encoder: Qwen3) -> dict:
    return {
        **write_fields(encoder, DECODER_SIZES),
        "attention_bias": encoder.attention_bias,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_window_layers": encoder.num_layers,
        "rope_scaling": None,
        "rope_theta": encoder.rope_base,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_cache": True,
        "use_sliding_window": False,
    }


QWEN3 = Family(
    model_type="qwen3",
    class_name="Qwen3Model",
    module=Qwen3,
    # transformers cannot be told to open this decoder to both sides.
    owns=lambda encoder: encoder.causal,
    fields=_fields,
    config=_config,
    max_length=lambda encoder: 32_768,
    entries=_ENTRIES,
    max_positions=32_768,
    tensors=_TENSORS,
    prefixes=("", "model."),
    ignored=(r"lm_head\.weight",),
)
