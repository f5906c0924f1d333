"""T5Gemma: an encoder-decoder. The encoder alone is read unless the decoder is asked for; what is written has no decoder."""

import dataclasses

from embed.errors import DataError
from embed.interop import entries
from embed.interop.entries import only
from embed.interop.families import gemma3
from embed.interop.family import (
    DECODER_SIZES,
    DecoderPart,
    Family,
    flat_rope,
    layer_pattern,
    layer_types,
    positive,
    read_fields,
    size,
    write_fields,
)
from embed.interop.known_entries import CONFIG
from embed.interop.tensors import linear, norm
from embed.models.t5gemma import T5GemmaDecoder, T5GemmaEncoder

# Gemma 3's, without the norms of queries and keys, and with names of its own for the norms around attention.
_RENAMED = {"input_layernorm": "pre_self_attn_layernorm", "post_attention_layernorm": "post_self_attn_layernorm"}


def _tensors():
    for tensor in gemma3.TENSORS:
        if "q_norm" not in tensor.name and "k_norm" not in tensor.name:
            name = tensor.name
            for theirs, ours in _RENAMED.items():
                name = name.replace(f".{theirs}.", f".{ours}.")
            yield dataclasses.replace(tensor, name=name)


_LAYER, _OURS = "layers.{}", "stack/layers"
_CROSS_TENSORS = (
    *linear(f"{_LAYER}.cross_attn.q_proj", f"{_OURS}/cross_attention/query"),
    *linear(f"{_LAYER}.cross_attn.k_proj", f"{_OURS}/cross_attention/key"),
    *linear(f"{_LAYER}.cross_attn.v_proj", f"{_OURS}/cross_attention/value"),
    *linear(f"{_LAYER}.cross_attn.o_proj", f"{_OURS}/cross_attention/output", inputs=2),
    *norm(f"{_LAYER}.pre_cross_attn_layernorm", f"{_OURS}/cross_attention_norm"),
    *norm(f"{_LAYER}.post_cross_attn_layernorm", f"{_OURS}/cross_attention_post_norm"),
)


_ENTRIES = CONFIG | entries.table(
    honoured=(
        *DECODER_SIZES.values(),
        "query_pre_attn_scalar",
        "sliding_window",
        "layer_types",
        "attn_logit_softcapping",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
    ),
    no_effect=("final_logit_softcapping", "decoder", "cache_implementation", "hidden_act", "is_causal"),
    refused={"hidden_activation": only("gelu_pytorch_tanh"), "attention_bias": only(False)},
)


def _softcap(config: dict) -> float | None:
    """Returns the cap on attention's logits: 50 where the file does not say, none where it says null."""
    given = config.get("attn_logit_softcapping", 50.0)
    return None if given is None else positive(config, "attn_logit_softcapping", 50.0)


def _fields(config: dict) -> dict:
    return {
        **read_fields(config, DECODER_SIZES),
        "window": size(config, "sliding_window"),
        "global_every": layer_pattern(config, "", every=2, last=True),
        "query_scale": positive(config, "query_pre_attn_scalar") ** -0.5,
        "softcap": _softcap(config),
        "rope_base": flat_rope(config, 10_000.0),
    }


def _decoder_fields(config: dict, encoder: T5GemmaEncoder) -> dict:
    width = size(config, "cross_attention_hidden_size", encoder.width)
    if width != encoder.width:
        raise DataError(
            f"config.json: decoder.cross_attention_hidden_size = {width}, but the encoder's hidden_size is {encoder.width}; "
            "restore the file from its source"
        )
    given = config.get("final_logit_softcapping", 30.0)
    return {
        **_fields(config),
        "final_softcap": None if given is None else positive(config, "final_logit_softcapping"),
    }


def _config(encoder: T5GemmaEncoder) -> dict:
    module = {
        **write_fields(encoder, DECODER_SIZES),
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": encoder.softcap,
        "dropout_rate": 0.0,
        "final_logit_softcapping": None,
        "hidden_activation": "gelu_pytorch_tanh",
        "initializer_range": 0.02,
        "layer_types": layer_types(encoder.num_layers, encoder.global_every),
        "max_position_embeddings": 8192,
        "model_type": "t5_gemma_module",
        "query_pre_attn_scalar": round(encoder.query_scale**-2),
        "rope_theta": encoder.rope_base,
        "sliding_window": encoder.window,
    }
    # transformers builds the decoder's configuration too, though no decoder is there.
    return {
        "attention_dropout": 0.0,
        "decoder": {**module, "cross_attention_hidden_size": encoder.width},
        "dropout_rate": 0.0,
        "encoder": module,
        "hidden_size": encoder.width,
        "is_encoder_decoder": False,
        "vocab_size": encoder.vocab_size,
    }


T5GEMMA = Family(
    model_type="t5gemma",
    other_types=("t5_gemma_module",),
    class_name="T5GemmaEncoderModel",
    module=T5GemmaEncoder,
    fields=_fields,
    config=_config,
    max_length=lambda encoder: 8192,
    entries=_ENTRIES,
    max_positions=8192,
    inner={"t5gemma": "encoder"},
    tensors=tuple(_tensors()),
    decoder=DecoderPart(
        entry="decoder",
        module=T5GemmaDecoder,
        fields=_decoder_fields,
        entries=_ENTRIES
        | entries.table(
            honoured=("cross_attention_hidden_size", "final_logit_softcapping"),
            refused={"is_decoder": only(True, None), "tie_word_embeddings": only(True, None)},
        ),
        tensors=(*_tensors(), *_CROSS_TENSORS),
        prefixes=("decoder.", "model.decoder."),
        ignored=(r"(model\.)?encoder\..*", r"lm_head\..*"),
    ),
    prefixes=("encoder.", "model.encoder.", ""),
    ignored=(r"(model\.)?decoder\..*", r"lm_head\..*"),
    write_prefix="encoder.",
    load_options={"attn_implementation": "eager"},  # the others may leave the cap on the logits out without a word
)
