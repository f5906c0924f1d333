"""EmbeddingGemma 2: its text model, alone or out of a folder that has parts for images and audio too.

The tower of images is read by `towers.embedding_gemma2`.

transformers reads no older form of config.json in this family: what is written has the new entries alone.
"""

from collections.abc import Sequence
from typing import Any

from embed.errors import DataError
from embed.interop import entries
from embed.interop.entries import only
from embed.interop.family import (
    DECODER_SIZES,
    Family,
    nested_rope,
    positive,
    read_fields,
    rope,
    size,
    write_fields,
)
from embed.interop.known_entries import CONFIG
from embed.interop.tensors import Tensor, linear, norm
from embed.models.embedding_gemma2 import EmbeddingGemma2
from embed.models.periods import global_layers

_COMPOSITE, _TEXT = "embedding_gemma2", "embedding_gemma2_text"
_SIZES = {
    **DECODER_SIZES,
    "window": "sliding_window",
    "per_layer_dim": "hidden_size_per_layer_input",
    "output_dim": "embedding_dim",
}
_PER_LAYER = ("head_dim", "num_key_value_heads")  # what may differ in global layers
_FULL, _SLIDING = "full_attention", "sliding_attention"

_LAYER = "layers.{}"
_OUTSIDE = (
    Tensor("embed_tokens.weight", ("embedding/table",)),
    *norm("norm", "final_norm"),
    *linear("embedding_projection", "output"),
    *linear("ple.per_layer_model_projection", "stack/per_layer_input"),
    *norm("ple.per_layer_projection_norm", "stack/per_layer_input"),
)


def _block(path: str, layer_index: tuple) -> tuple[Tensor, ...]:
    """Returns the tensors of the layers that lie under `path`."""
    where = {"layer_index": layer_index}
    return (
        *linear(f"{_LAYER}.self_attn.q_proj", f"{path}/attention/query", **where),
        *linear(f"{_LAYER}.self_attn.k_proj", f"{path}/attention/key", **where),
        *linear(f"{_LAYER}.self_attn.v_proj", f"{path}/attention/value", **where),
        *linear(f"{_LAYER}.self_attn.o_proj", f"{path}/attention/output", inputs=2, **where),
        *norm(f"{_LAYER}.self_attn.q_norm", f"{path}/attention/query_norm", **where),
        *norm(f"{_LAYER}.self_attn.k_norm", f"{path}/attention/key_norm", **where),
        *norm(f"{_LAYER}.input_layernorm", f"{path}/attention_norm", **where),
        *norm(f"{_LAYER}.post_attention_layernorm", f"{path}/attention_post_norm", **where),
        *norm(f"{_LAYER}.pre_feedforward_layernorm", f"{path}/mlp_norm", **where),
        *norm(f"{_LAYER}.post_feedforward_layernorm", f"{path}/mlp_post_norm", **where),
        *linear(f"{_LAYER}.mlp.gate_proj", f"{path}/mlp/gate", **where),
        *linear(f"{_LAYER}.mlp.up_proj", f"{path}/mlp/up", **where),
        *linear(f"{_LAYER}.mlp.down_proj", f"{path}/mlp/down", **where),
        *linear(f"{_LAYER}.ple_block.per_layer_input_gate", f"{path}/per_layer_gate", **where),
        *linear(f"{_LAYER}.ple_block.per_layer_projection", f"{path}/per_layer_output", **where),
        *norm(f"{_LAYER}.ple_block.post_per_layer_input_norm", f"{path}/per_layer_post_norm", **where),
        Tensor(f"{_LAYER}.layer_scalar", (f"{path}/output_scale",), **where),
    )


def _tensors(encoder: EmbeddingGemma2) -> tuple[Tensor, ...]:
    """Returns the tensors of an encoder: those of its layers by the period and the kind of layer that they lie in."""
    every, scanned = encoder.global_every, encoder.num_layers - encoder.num_layers % encoder.global_every
    groups: dict[str, list] = {}
    for layer, is_global in enumerate(global_layers(encoder.num_layers, every)):
        period = ("periods", (layer // every,)) if layer < scanned else ("last", ())
        kind = ("global", ()) if is_global else ("local", (layer % every,))
        groups.setdefault(f"stack/{period[0]}/{kind[0]}", []).append((layer, period[1] + kind[1]))
    return (*_OUTSIDE, *(tensor for path, index in groups.items() for tensor in _block(path, tuple(index))))


_ENTRIES = CONFIG | entries.table(
    honoured=(
        *_SIZES.values(),
        "layer_types",
        "sliding_window_pattern",
        "per_layer_config",
        "global_head_dim",
        "num_global_key_value_heads",
        "rope_parameters",
    ),
    no_effect=(
        "vision_config",  # a folder with these parts has a note
        "audio_config",
        "boi_token_id",
        "eoi_token_id",
        "image_token_id",
        "video_token_id",
        "boa_token_id",
        "eoa_token_index",
        "audio_token_id",
    ),
    refused={
        "hidden_activation": only("gelu_pytorch_tanh"),
        "attention_bias": only(False),
        "is_causal": only(False, None),
        "use_bidirectional_attention": only(True, None),
        **dict.fromkeys(
            ("rope_theta", "rope_scaling"), only(None, advice="transformers does not read it here; use rope_parameters")
        ),
    },
)


def _is_global(config: dict) -> tuple[bool, ...]:
    """Returns which layers are global, as transformers reads it: the last one always is."""
    count, types = size(config, "num_hidden_layers"), config.get("layer_types")
    if types is None:
        return global_layers(count, size(config, "sliding_window_pattern", 6))
    if not isinstance(types, list) or not set(map(str, types)) <= {_FULL, _SLIDING}:
        raise DataError(f"config.json: layer_types {types!r:.120} are not {_FULL} and {_SLIDING} alone")
    if len(types) != count:
        raise DataError(f"config.json: layer_types names {len(types)} layers, num_hidden_layers says {count}")
    return tuple(kind == _FULL or i + 1 == count for i, kind in enumerate(types))


def _global_every(is_global: tuple[bool, ...]) -> int:
    """Returns the smallest N where every N-th layer, and the last, is global."""
    for every in range(1, len(is_global) + 1):
        if global_layers(len(is_global), every) == is_global:
            return every
    raise DataError(
        f"config.json: the full_attention layers {[i for i, x in enumerate(is_global) if x]!s:.100} do not repeat; only every "
        "N-th layer and the last may be global"
    )


def _heads(config: dict, is_global: tuple[bool, ...]) -> dict[str, int]:
    """Returns the head_dim and num_key_value_heads of global layers.

    `per_layer_config` says them layer by layer; a file without that entry has them, or their defaults, for all global layers.
    """
    if "per_layer_config" not in config:
        return {
            "head_dim": size(config, "global_head_dim", 512),
            "num_key_value_heads": size(config, "num_global_key_value_heads", 1),
        }
    layers = _overrides(config["per_layer_config"], len(is_global))
    general = {name: size(config, name) for name in _PER_LAYER}
    heads = [general | {name: size(given, name) for name in given} for given in layers]
    of_kind = {kind: [h for h, x in zip(heads, is_global) if x is kind] for kind in (True, False)}
    if any(h != of_kind[True][0] for h in of_kind[True]) or any(h != general for h in of_kind[False]):
        raise DataError(
            "config.json: per_layer_config gives layers of one kind different heads; only full_attention layers may differ "
            "from the others, all in the same way"
        )
    return of_kind[True][0]


def _overrides(given: Any, count: int) -> list[dict]:
    """Returns what per_layer_config says of each layer; what it may not say is a DataError."""
    given = {} if given is None else given
    if not isinstance(given, dict) or not all(isinstance(layer, dict) for layer in given.values()):
        raise DataError(
            f"config.json: per_layer_config = {given!r:.100} is not an object of objects by layer; restore it"
        )
    layers: list[dict] = [{} for _ in range(count)]
    for name, entry in given.items():
        if not name.isdecimal() or int(name) >= count:
            raise DataError(
                f"config.json: per_layer_config names the layer {name!r}, but there are {count}; restore it"
            )
        layers[int(name)] = {key: value for key, value in entry.items() if (key, value) != ("skip", [])}
    other = sorted({key for entry in layers for key in entry} - set(_PER_LAYER))
    if other:
        raise DataError(
            f"config.json: per_layer_config gives layers their own {', '.join(other)}; only {' and '.join(_PER_LAYER)} of "
            "full_attention layers are supported"
        )
    return layers


def _fields(config: dict) -> dict:
    full, sliding = nested_rope(config, scaled=())
    is_global = _is_global(config)
    fields, heads = read_fields(config, _SIZES), _heads(config, is_global)
    if fields["num_heads"] % heads["num_key_value_heads"]:
        raise DataError(
            f"config.json: {fields['num_heads']} num_attention_heads cannot share {heads['num_key_value_heads']} "
            "num_key_value_heads in full_attention layers; restore the file from its source"
        )
    return {
        **fields,
        "global_num_kv_heads": heads["num_key_value_heads"],
        "global_head_dim": heads["head_dim"],
        "global_every": _global_every(is_global),
        "local_rope_base": rope(sliding, positive({}, "rope_theta", 10_000.0))[0],
        "global_rope_base": rope(full, positive({}, "rope_theta", 1_000_000.0))[0],
    }


def _config(encoder: EmbeddingGemma2) -> dict:
    is_global = global_layers(encoder.num_layers, encoder.global_every)
    heads = {"head_dim": encoder.global_head_dim, "num_key_value_heads": encoder.global_num_kv_heads}
    return {
        **write_fields(encoder, _SIZES),
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_activation": "gelu_pytorch_tanh",
        "initializer_range": 0.02,
        "layer_types": [_FULL if x else _SLIDING for x in is_global],
        "per_layer_config": {str(i): heads for i, x in enumerate(is_global) if x},
        "rope_parameters": {
            _FULL: {"rope_type": "default", "rope_theta": encoder.global_rope_base},
            _SLIDING: {"rope_type": "default", "rope_theta": encoder.local_rope_base},
        },
    }


def _notes(config: dict, parts: Sequence[str]) -> list[str]:
    """Returns what of a folder for texts, images, videos and audio is left out."""
    if config["model_type"] != _COMPOSITE:
        return []
    others = [n for n in ("vision_config", "audio_config") if config.get(n) is not None and n not in parts]
    left_out = f"the parts of {' and '.join(others)} are left out, and " if others else ""
    embedded = "texts and images" if parts else "texts"
    return [
        f"{left_out}{embedded} alone are embedded, here and by an export; a text that spells out a placeholder of an image, a "
        "video or audio gets another vector than in transformers, which reads padding there"
    ]


EMBEDDING_GEMMA2 = Family(
    model_type=_TEXT,
    other_types=(_COMPOSITE,),
    class_name="EmbeddingGemma2TextModel",
    module=EmbeddingGemma2,
    fields=_fields,
    config=_config,
    max_length=lambda encoder: 262_144,
    entries=_ENTRIES,
    max_positions=262_144,
    inner={_COMPOSITE: "text_config"},
    tensors=_tensors,
    prefixes=("", "model.", "language_model.", "model.language_model."),
    ignored=(r"(model\.)?(vision_tower|embed_vision|audio_tower|embed_audio)\..*",),
    notes=_notes,
)
