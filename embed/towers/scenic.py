"""TIPS' towers in the names of its JAX code (scenic): flattened Flax parameters, whose layout is ours layer by layer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from embed.errors import DataError
from embed.towers.stored import Arrays

_START, _END = "encoder/ToTokenSequence_0", "encoder/encoder_norm"
_VISION_BLOCK, _TEXT_BLOCK = "encoder/transformer/encoderblock_{}", "transformer/encoderblock_{}"
_TABLE, _TEXT_END = "token_emb/emb_var", "text_encoder_norm"
TEMPERATURE = "temperature_contrastive"
# Our name of a part of a block -> theirs.
_BLOCK = {
    "attention_norm": "LayerNorm_0",
    "attention/query": "MultiHeadDotProductAttention_0/query",
    "attention/key": "MultiHeadDotProductAttention_0/key",
    "attention/value": "MultiHeadDotProductAttention_0/value",
    "attention/output": "MultiHeadDotProductAttention_0/out",
    "mlp_norm": "LayerNorm_1",
}
_PLAIN = {"mlp/up": "MlpBlock_0/Dense_0", "mlp/down": "MlpBlock_0/Dense_1"}
_GATED = {
    "mlp/gate": "FFNSwiGluFused_0/Dense_0",
    "mlp/up": "FFNSwiGluFused_0/Dense_1",
    "mlp/down": "FFNSwiGluFused_0/Dense_2",
}


def is_vision(names: Sequence[str]) -> bool:
    """Returns whether these are names of an image tower."""
    return f"{_START}/cls" in names


def is_text(names: Sequence[str]) -> bool:
    """Returns whether these are names of a text tower."""
    return _TABLE in names


def _blocks(block: str, layers: int, gated: bool) -> dict[str, list[str]]:
    """Returns {our path: their names, layer by layer} of all blocks."""
    parts = _BLOCK | (_GATED if gated else _PLAIN)
    return {
        f"stack/layers/{ours}/{leaf}": [f"{block.format(i)}/{theirs}/{leaf}" for i in range(layers)]
        for ours, theirs in parts.items()
        for leaf in (("scale", "bias") if ours.endswith("norm") else ("kernel", "bias"))
    }


def vision_names(layers: int, gated: bool) -> dict[str, list[str] | str]:
    """Returns {our path: their name, or their names layer by layer} of an image tower."""
    return {
        "patches/kernel": f"{_START}/embedding/kernel",
        "patches/bias": f"{_START}/embedding/bias",
        "positions": f"{_START}/posembed_input",
        "class_tokens": f"{_START}/cls",
        "final_norm/scale": f"{_END}/scale",
        "final_norm/bias": f"{_END}/bias",
        **_blocks(_VISION_BLOCK, layers, gated),
    }


def text_names(layers: int) -> dict[str, list[str] | str]:
    """Returns {our path: their name, or their names layer by layer} of a text tower."""
    return {
        "embedding/table": _TABLE,
        "final_norm/scale": f"{_TEXT_END}/scale",
        "final_norm/bias": f"{_TEXT_END}/bias",
        **_blocks(_TEXT_BLOCK, layers, False),
    }


def _count(names: Sequence[str], block: str) -> int:
    present, count = set(names), 0
    while f"{block.format(count)}/LayerNorm_0/scale" in present:
        count += 1
    return count


def vision_fields(reader: Arrays) -> dict[str, Any]:
    """Returns the fields of a VisionTransformer from the shapes of its arrays."""
    names, first = reader.names(), _VISION_BLOCK.format(0)
    gated = f"{first}/FFNSwiGluFused_0/Dense_0/kernel" in names
    mlp = "FFNSwiGluFused_0" if gated else "MlpBlock_0"
    patch, _, _, width = reader.shape(f"{_START}/embedding/kernel")
    return {
        "patch_size": patch,
        "width": width,
        "num_layers": _count(names, _VISION_BLOCK),
        "num_heads": reader.shape(f"{first}/MultiHeadDotProductAttention_0/query/kernel")[1],
        "mlp_dim": reader.shape(f"{first}/{mlp}/Dense_0/kernel")[1],
        "gated": gated,
        "activation": "silu" if gated else "gelu_tanh",
        "position_grid": reader.shape(f"{_START}/posembed_input")[1],
    }


def text_fields(reader: Arrays) -> dict[str, Any]:
    """Returns the fields of a TipsText from the shapes of its arrays."""
    first = _TEXT_BLOCK.format(0)
    vocab_size, width = reader.shape(_TABLE)
    return {
        "vocab_size": vocab_size,
        "width": width,
        "num_layers": _count(reader.names(), _TEXT_BLOCK),
        "num_heads": reader.shape(f"{first}/MultiHeadDotProductAttention_0/query/kernel")[1],
        "mlp_dim": reader.shape(f"{first}/MlpBlock_0/Dense_0/kernel")[1],
    }


def vision_params(reader: Arrays, encoder) -> dict[str, np.ndarray]:
    """Returns the parameters of an image tower by their paths below its ImageEmbedder."""
    leaves = _read(reader, vision_names(encoder.num_layers, encoder.gated), ())
    return {
        f"encoder/{path}": array[0] if path in ("positions", "class_tokens") else array
        for path, array in leaves.items()
    }


def text_params(reader: Arrays, encoder) -> dict[str, np.ndarray]:
    """Returns the parameters of a text tower by their paths below its Embedder."""
    leaves = _read(reader, text_names(encoder.num_layers), (TEMPERATURE,))
    return {f"encoder/{path}": array for path, array in leaves.items()}


def _read(reader: Arrays, names: dict[str, list[str] | str], ignored: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns arrays by our paths; an array that is missing or left over is a DataError that lists them."""
    expected = {name for value in names.values() for name in ([value] if isinstance(value, str) else value)}
    present = set(reader.names())
    missing, extra = sorted(expected - present), sorted(present - expected - set(ignored))
    if missing or extra:
        lists = {"missing": missing, "unknown": extra}
        parts = [f"{word} {', '.join(listed[:8])}" for word, listed in lists.items() if listed]
        raise DataError(f"{reader.files[0]}: its arrays are not those of TIPS: {'; '.join(parts)}; download it again")
    return {
        path: reader.read(value) if isinstance(value, str) else np.stack([reader.read(name) for name in value])
        for path, value in names.items()
    }


def foreign(params: dict[str, np.ndarray], names: dict[str, list[str] | str]) -> dict[str, np.ndarray]:
    """Returns arrays by their names, of parameters by our paths; `vision_params` and `text_params` undo it."""
    arrays = {}
    for path, value in names.items():
        array = params[path]
        if isinstance(value, str):
            arrays[value] = array[None] if path in ("positions", "class_tokens") else array
        else:
            arrays |= {name: array[layer] for layer, name in enumerate(value)}
    return arrays
