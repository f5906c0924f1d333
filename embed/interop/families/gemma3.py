"""Gemma 3 text: EmbeddingGemma (bidirectional) and the causal decoders, with or without the parts for pictures."""

from embed.interop.family import (
    DECODER_SIZES,
    Family,
    layer_pattern,
    layer_types,
    read_fields,
    require,
    rope_factor,
    write_fields,
)
from embed.interop.tensors import Tensor, linear, norm
from embed.models.gemma import Gemma

_LAYER, _OURS = "layers.{}", "stack/layers"

TENSORS = (
    Tensor("embed_tokens.weight", ("embedding/table",)),
    *norm("norm", "final_norm"),
    *linear(f"{_LAYER}.self_attn.q_proj", f"{_OURS}/attention/query"),
    *linear(f"{_LAYER}.self_attn.k_proj", f"{_OURS}/attention/key"),
    *linear(f"{_LAYER}.self_attn.v_proj", f"{_OURS}/attention/value"),
    *linear(f"{_LAYER}.self_attn.o_proj", f"{_OURS}/attention/output", inputs=2),
    *norm(f"{_LAYER}.self_attn.q_norm", f"{_OURS}/attention/query_norm"),
    *norm(f"{_LAYER}.self_attn.k_norm", f"{_OURS}/attention/key_norm"),
    *norm(f"{_LAYER}.input_layernorm", f"{_OURS}/attention_norm"),
    *norm(f"{_LAYER}.post_attention_layernorm", f"{_OURS}/attention_post_norm"),
    *norm(f"{_LAYER}.pre_feedforward_layernorm", f"{_OURS}/mlp_norm"),
    *norm(f"{_LAYER}.post_feedforward_layernorm", f"{_OURS}/mlp_post_norm"),
    *linear(f"{_LAYER}.mlp.gate_proj", f"{_OURS}/mlp/gate"),
    *linear(f"{_LAYER}.mlp.up_proj", f"{_OURS}/mlp/up"),
    *linear(f"{_LAYER}.mlp.down_proj", f"{_OURS}/mlp/down"),
)


def _fields(config: dict) -> dict:
    config = config.get("text_config", config)
    require(config, "hidden_activation", "gelu_pytorch_tanh")
    require(config, "attention_bias", False)
    require(config, "attn_logit_softcapping", None)
    rope = config.get("rope_parameters") or {}
    full, local = rope.get("full_attention") or {}, rope.get("sliding_attention") or {}
    rope_factor(local, ("default",))
    return {
        **read_fields(config, DECODER_SIZES),
        "window": config["sliding_window"],
        "global_every": layer_pattern(config, every=6, last=True),
        "causal": not config.get("use_bidirectional_attention", False),
        "query_scale": config["query_pre_attn_scalar"] ** -0.5,
        "local_rope_base": float(local.get("rope_theta", config.get("rope_local_base_freq", 10_000.0))),
        "global_rope_base": float(full.get("rope_theta", config.get("rope_theta", 1_000_000.0))),
        "global_rope_scale": rope_factor(config.get("rope_scaling") or full),
    }


def _config(encoder: Gemma) -> dict:
    scale = encoder.query_scale or encoder.head_dim**-0.5
    linear_scaling = {"factor": encoder.global_rope_scale, "rope_type": "linear"}
    return {
        "_sliding_window_pattern": encoder.global_every,
        **write_fields(encoder, DECODER_SIZES),
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "hidden_activation": "gelu_pytorch_tanh",
        "initializer_range": 0.02,
        "layer_types": layer_types(encoder.num_layers, encoder.global_every),
        "query_pre_attn_scalar": round(scale**-2),
        "rope_local_base_freq": encoder.local_rope_base,
        "rope_scaling": None if encoder.global_rope_scale == 1 else linear_scaling,
        "rope_theta": encoder.global_rope_base,
        "sliding_window": encoder.window,
        "use_bidirectional_attention": not encoder.causal,
        "use_cache": True,
    }


GEMMA3 = Family(
    model_type="gemma3_text",
    other_types=("gemma3",),
    class_name="Gemma3TextModel",
    module=Gemma,
    fields=_fields,
    config=_config,
    max_length=lambda encoder: 2048,
    tensors=TENSORS,
    prefixes=("", "model.", "language_model.model.", "model.language_model."),
    ignored=(
        r"(language_model\.)?lm_head\.weight",
        r"(model\.)?vision_tower\..*",
        r"(model\.)?multi_modal_projector\..*",
    ),
)
