"""ModernBERT: queries, keys and values in one tensor, and so are the two halves of the gated MLP."""

from embed.interop.family import (
    ACTIVATIONS,
    FOREIGN_ACTIVATIONS,
    SIZES,
    Family,
    layer_pattern,
    read_fields,
    rope_factor,
    write_fields,
)
from embed.interop.tensors import Tensor, linear, norm
from embed.models.modernbert import ModernBert

_LAYER, _OURS = "layers.{}", "stack/layers"
_ATTENTION = tuple(f"{_OURS}/attention/{name}" for name in ("query", "key", "value"))
# The first half goes through the activation.
_MLP = (f"{_OURS}/mlp/gate", f"{_OURS}/mlp/up")

_TENSORS = (
    Tensor("embeddings.tok_embeddings.weight", ("embedding/table",)),
    *norm("embeddings.norm", "embedding_norm"),
    *norm("final_norm", "final_norm"),
    Tensor(f"{_LAYER}.attn.Wqkv.weight", tuple(f"{p}/kernel" for p in _ATTENTION), inputs=1),
    Tensor(f"{_LAYER}.attn.Wqkv.bias", tuple(f"{p}/bias" for p in _ATTENTION)),
    *linear(f"{_LAYER}.attn.Wo", f"{_OURS}/attention/output", inputs=2),
    # The first layer has none; ours is not used there either.
    *norm(f"{_LAYER}.attn_norm", f"{_OURS}/attention_norm", first_layer=1, fill=1.0),
    *norm(f"{_LAYER}.mlp_norm", f"{_OURS}/mlp_norm"),
    Tensor(f"{_LAYER}.mlp.Wi.weight", tuple(f"{p}/kernel" for p in _MLP), inputs=1),
    Tensor(f"{_LAYER}.mlp.Wi.bias", tuple(f"{p}/bias" for p in _MLP)),
    *linear(f"{_LAYER}.mlp.Wo", f"{_OURS}/mlp/down"),
)


def _fields(config: dict) -> dict:
    rope = config.get("rope_parameters") or {}
    full, local = rope.get("full_attention") or {}, rope.get("sliding_attention") or {}
    for given in (full, local, config.get("rope_scaling")):
        rope_factor(given, ("default",))
    return {
        **read_fields(config, SIZES),
        "window": config.get("local_attention", 128),
        "global_every": layer_pattern(config, every=3, last=False),
        "local_rope_base": float(local.get("rope_theta", config.get("local_rope_theta", 10_000.0))),
        "global_rope_base": float(full.get("rope_theta", config.get("global_rope_theta", 160_000.0))),
        "activation": ACTIVATIONS[config.get("hidden_activation", "gelu")],
        "norm_eps": config.get("norm_eps", 1e-5),
        "norm_bias": config.get("norm_bias", False),
        "attention_bias": config.get("attention_bias", False),
        "mlp_bias": config.get("mlp_bias", False),
    }


def _config(encoder: ModernBert) -> dict:
    return {
        **write_fields(encoder, SIZES),
        "attention_bias": encoder.attention_bias,
        "attention_dropout": 0.0,
        # transformers' own defaults are tokens of one vocabulary; padding is written by the exporter.
        **dict.fromkeys(("bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id")),
        "embedding_dropout": 0.0,
        "global_attn_every_n_layers": encoder.global_every,
        "global_rope_theta": encoder.global_rope_base,
        "hidden_activation": FOREIGN_ACTIVATIONS[encoder.activation],
        "initializer_range": 0.02,
        "local_attention": encoder.window,
        "local_rope_theta": encoder.local_rope_base,
        "max_position_embeddings": 8192,
        "mlp_bias": encoder.mlp_bias,
        "mlp_dropout": 0.0,
        "norm_bias": encoder.norm_bias,
        "norm_eps": encoder.norm_eps,
    }


MODERNBERT = Family(
    model_type="modernbert",
    class_name="ModernBertModel",
    module=ModernBert,
    fields=_fields,
    config=_config,
    max_length=lambda encoder: 8192,
    tensors=_TENSORS,
    prefixes=("", "model."),
    ignored=(r"head\..*", r"decoder\..*", r"classifier\..*"),
)
