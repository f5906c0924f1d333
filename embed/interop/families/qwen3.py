"""Qwen3 and Qwen3-Embedding: a causal decoder, the last token is the text."""

from embed.interop.family import DECODER_SIZES, Family, read_fields, require, rope_factor, write_fields
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


def _fields(config: dict) -> dict:
    require(config, "hidden_act", "silu")
    require(config, "use_sliding_window", False)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope_factor(rope, ("default",))
    return {
        **read_fields(config, DECODER_SIZES),
        "rope_base": float(rope.get("rope_theta", config.get("rope_theta", 1_000_000.0))),
        "attention_bias": config.get("attention_bias", False),
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
    tensors=_TENSORS,
    prefixes=("", "model."),
    ignored=(r"lm_head\.weight",),
)
