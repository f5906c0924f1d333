"""ModernBERT: queries, keys and values in one tensor, and so are the two halves of the gated MLP."""

from embed.errors import DataError
from embed.interop import entries
from embed.interop.family import (
    FOREIGN_ACTIVATIONS,
    SIZES,
    Family,
    activation,
    epsilon,
    flag,
    layer_pattern,
    nested_rope,
    positive,
    read_fields,
    rope,
    size,
    write_fields,
)
from embed.interop.known_entries import CONFIG
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


_ENTRIES = CONFIG | entries.table(
    honoured=(
        *SIZES.values(),
        "local_attention",
        "sliding_window",
        "global_attn_every_n_layers",
        "layer_types",
        "rope_parameters",
        "rope_scaling",
        "global_rope_theta",
        "local_rope_theta",
        "hidden_activation",
        "norm_eps",
        "norm_bias",
        "attention_bias",
        "mlp_bias",
    ),
    no_effect=(
        "position_embedding_type",  # transformers reads it nowhere; released files say absolute and mean rotary
        "layer_norm_eps",  # norm_eps is read
        "hidden_act",
        "rope_theta",
        "decoder_bias",
        "classifier_pooling",
        "classifier_bias",
        "classifier_activation",
        "deterministic_flash_attn",
        "sparse_prediction",
        "sparse_pred_ignore_index",
        "reference_compile",
        "repad_logits_with_grad",
    ),
    refused={"is_causal": entries.only(False, None)},
)


def _window(config: dict) -> int:
    """Returns the width of local attention, both sides of a token together."""
    if config.get("sliding_window") is None:
        return size(config, "local_attention", 128)
    reach = size(config, "sliding_window", 64)  # to one side; transformers takes it before local_attention
    if config.get("local_attention", 2 * reach) // 2 != reach:
        raise DataError(
            f"config.json: sliding_window = {reach} tokens to each side, but local_attention = {config['local_attention']}; "
            "make them agree"
        )
    return 2 * reach


def _fields(config: dict) -> dict:
    full, sliding = nested_rope(config, scaled=("full_attention", "sliding_attention"))
    return {
        **read_fields(config, SIZES),
        "window": _window(config),
        "global_every": layer_pattern(config, "global_attn_every_n_layers", every=3, last=False),
        "local_rope_base": rope(sliding, positive(config, "local_rope_theta", 10_000.0))[0],
        "global_rope_base": rope(full, positive(config, "global_rope_theta", 160_000.0))[0],
        "activation": activation(config, "hidden_activation", "gelu"),
        "norm_eps": epsilon(config, "norm_eps", 1e-5),
        **{name: flag(config, name) for name in ("norm_bias", "attention_bias", "mlp_bias")},
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
    entries=_ENTRIES,
    max_positions=8192,
    tensors=_TENSORS,
    prefixes=("", "model."),
    ignored=(r"head\..*", r"decoder\..*", r"classifier\..*"),
)
