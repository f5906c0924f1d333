"""Gemma 3 text: EmbeddingGemma (bidirectional) and the causal decoders, with or without the parts for pictures."""

from embed.errors import DataError
from embed.interop import entries
from embed.interop.entries import only
from embed.interop.family import (
    DECODER_SIZES,
    Family,
    flag,
    layer_pattern,
    layer_types,
    nested_rope,
    positive,
    read_fields,
    rope,
    size,
    write_fields,
)
from embed.interop.known_entries import CONFIG
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


_ENTRIES = CONFIG | entries.table(
    honoured=(
        *DECODER_SIZES.values(),
        "query_pre_attn_scalar",
        "sliding_window",
        "sliding_window_pattern",
        "_sliding_window_pattern",
        "layer_types",
        "use_bidirectional_attention",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "rope_local_base_freq",
    ),
    no_effect=(
        "final_logit_softcapping",
        "mm_tokens_per_image",
        "boi_token_index",
        "eoi_token_index",
        "image_token_index",
        "vision_config",
        "cache_implementation",
        "hidden_act",  # of Gemma 1 and 2; hidden_activation is read
    ),
    refused={
        "hidden_activation": only("gelu_pytorch_tanh"),
        "attention_bias": only(False),
        "attn_logit_softcapping": only(None),
        "is_causal": only(True, None),
    },
)


def _global_every(config: dict) -> int:
    """Returns N where every N-th layer is global.

    transformers only reads layer_types, or else sliding_window_pattern; files that it wrote have _sliding_window_pattern too.
    """
    if config.get("layer_types") is not None:
        return layer_pattern(config, "_sliding_window_pattern", every=6, last=True)
    every = layer_pattern(config, "sliding_window_pattern", every=6, last=True)
    if config.get("_sliding_window_pattern", every) not in (None, every):
        raise DataError(
            f"config.json: _sliding_window_pattern = {config['_sliding_window_pattern']}, but transformers reads "
            f"sliding_window_pattern and layer_types, which say {every}; write layer_types into the file"
        )
    return every


def _fields(config: dict) -> dict:
    full, sliding = nested_rope(config, scaled=("full_attention",))
    global_base, global_scale = rope(full, positive(config, "rope_theta", 1_000_000.0), ("default", "linear"))
    local_base, _ = rope(sliding, positive(config, "rope_local_base_freq", 10_000.0))
    every = _global_every(config)
    return {
        **read_fields(config, DECODER_SIZES),
        "window": size(config, "sliding_window"),
        "global_every": every,
        "causal": not (
            config.get("use_bidirectional_attention") is not None and flag(config, "use_bidirectional_attention")
        ),
        "query_scale": positive(config, "query_pre_attn_scalar") ** -0.5,
        "local_rope_base": local_base,
        "global_rope_base": global_base,
        "global_rope_scale": global_scale,
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
    entries=_ENTRIES,
    max_positions=131_072,
    inner={"gemma3": "text_config"},
    tensors=TENSORS,
    prefixes=("", "model.", "language_model.model.", "model.language_model."),
    ignored=(
        r"(language_model\.)?lm_head\.weight",
        r"(model\.)?vision_tower\..*",
        r"(model\.)?multi_modal_projector\..*",
    ),
)
