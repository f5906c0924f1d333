"""What a family of foreign checkpoints is: its configuration as our fields and back, and its tensors' names."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from embed.errors import DataError
from embed.interop import entries
from embed.interop.entries import Entry
from embed.interop.tensors import Tensor

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "relu": "relu",
}
FOREIGN_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "silu": "silu", "relu": "relu"}


@dataclasses.dataclass(frozen=True)
class DecoderPart:
    """The decoder of a family of encoder-decoders: what `Family` says of an encoder.

    `entry` is the object of config.json that describes it; `fields(config, encoder)` gives our module's fields.
    """

    entry: str
    module: type
    fields: Callable[[dict, Any], dict[str, Any]]
    entries: Mapping[str, Entry]
    tensors: Sequence[Tensor]
    prefixes: Sequence[str]
    ignored: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Family:
    """One architecture as transformers knows it.

    `fields(config)` gives our module's fields, `config(encoder)` the entries of config.json in the flat form that old and new
    versions read. `entries` are those that config.json may have. `inner` names, by model_type, the object in it that describes
    the encoder. `max_positions` is the max_position_embeddings of a config.json that has none; `max_length` is what an encoder
    without that entry is exported with, and the limit of one with a table of positions. `tensors` name everything below
    `encoder/`, in some families depending on the encoder (`tensors_of`); they are read under the prefix of `prefixes` that fits
    and written under `write_prefix`. `decoder` says the same of the decoder of an encoder-decoder. `load_options` go to the
    constructor in transformers. `owns` tells whether an encoder of this module belongs here. `notes(config, parts)` says what of a
    folder is left out; `parts` are the entries of config.json that the caller reads itself, such as 'vision_config'.
    """

    model_type: str
    class_name: str
    module: type
    fields: Callable[[dict], dict[str, Any]]
    config: Callable[[Any], dict[str, Any]]
    max_length: Callable[[Any], int]
    tensors: Sequence[Tensor] | Callable[[Any], Sequence[Tensor]]
    entries: Mapping[str, Entry]
    max_positions: int
    inner: Mapping[str, str] = dataclasses.field(default_factory=dict)
    other_types: Sequence[str] = ()
    prefixes: Sequence[str] = ("",)
    ignored: Sequence[str] = ()
    write_prefix: str = ""
    load_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    owns: Callable[[Any], bool] = lambda encoder: True
    decoder: DecoderPart | None = None
    notes: Callable[[dict, Sequence[str]], Sequence[str]] = lambda config, parts: ()

    def tensors_of(self, encoder) -> Sequence[Tensor]:
        """Returns the tensors of an encoder of this family."""
        return self.tensors(encoder) if callable(self.tensors) else self.tensors


# our field -> the entry of config.json, of the families that have both
SIZES = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "mlp_dim": "intermediate_size",
}
DECODER_SIZES = {**SIZES, "num_kv_heads": "num_key_value_heads", "head_dim": "head_dim", "norm_eps": "rms_norm_eps"}
# The largest value of a size; a larger one would only be noticed when the memory is full.
_MAX_SIZES = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 17,
    "num_hidden_layers": 1000,
    "num_attention_heads": 4096,
    "num_key_value_heads": 4096,
    "head_dim": 1 << 14,
    "intermediate_size": 1 << 20,
    "max_position_embeddings": 1 << 24,
    "type_vocab_size": 1 << 16,
    "sliding_window": 1 << 24,
    "cross_attention_hidden_size": 1 << 17,
    "hidden_size_per_layer_input": 1 << 17,
    "embedding_dim": 1 << 17,
    "global_head_dim": 1 << 14,
    "num_global_key_value_heads": 4096,
    "local_attention": 1 << 24,
    "global_attn_every_n_layers": 1000,
    "sliding_window_pattern": 1000,
    "patch_size": 1 << 10,
    "pooling_kernel_size": 1 << 10,
    "position_embedding_size": 1 << 20,
    "_sliding_window_pattern": 1000,
}
# entries.check and its kin name the folder's file in front; families only see what is in it.
_FILE = "config.json"


def size(config: dict, name: str, default: int | None = None) -> int:
    """Returns a size of config.json; KeyError when it is missing without a default, DataError when it cannot be."""
    return entries.whole_number(_FILE, config, name, 1, _MAX_SIZES[name], default)


def epsilon(config: dict, name: str, default: float | None = None) -> float:
    """Returns what a normalisation adds to the variance."""
    return entries.real_number(_FILE, config, name, 0.0, 1.0, default)


def positive(config: dict, name: str, default: float | None = None) -> float:
    """Returns a positive number of config.json."""
    return entries.real_number(_FILE, config, name, 0.0, 1e12, default)


def flag(config: dict, name: str, default: bool = False) -> bool:
    """Returns a true or false of config.json."""
    return entries.flag(_FILE, config, name, default)


def read_fields(config: dict, names: Mapping[str, str]) -> dict[str, Any]:
    """Returns our fields from the entries of config.json that `names` maps them to.

    Raises DataError for sizes that cannot be, and for a width that the heads cannot share.
    """
    read = lambda name: epsilon(config, name) if name.endswith("_eps") else size(config, name)  # noqa: E731
    fields = {ours: read(theirs) for ours, theirs in names.items()}
    if "head_dim" not in fields and fields["width"] % fields["num_heads"]:
        raise DataError(
            f"{_FILE}: hidden_size = {fields['width']} cannot be shared by {fields['num_heads']} num_attention_heads; "
            "restore the file from its source"
        )
    if fields["num_heads"] % fields.get("num_kv_heads", 1):
        raise DataError(
            f"{_FILE}: {fields['num_heads']} num_attention_heads cannot share {fields['num_kv_heads']} "
            "num_key_value_heads; restore the file from its source"
        )
    return fields


def write_fields(encoder, names: Mapping[str, str]) -> dict[str, Any]:
    """Returns the entries of config.json of the fields that `names` maps to them."""
    return {theirs: getattr(encoder, ours) for ours, theirs in names.items()}


def layer_types(count: int, every: int) -> list[str]:
    """Returns config.json's layer_types when every `every`-th layer is global."""
    return ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(count)]


def activation(config: dict, name: str, default: str) -> str:
    """Returns our name of an activation; an unknown one is a DataError."""
    value = config.get(name, default)
    if value not in ACTIVATIONS:
        raise DataError(f"{_FILE}: {name} = {value!r} is not supported, only {', '.join(map(repr, ACTIVATIONS))}")
    return ACTIVATIONS[value]


_ROPE_KINDS = {"default": {"rope_type", "type", "rope_theta"}, "linear": {"rope_type", "type", "rope_theta", "factor"}}


def rope(given: Any, default_base: float, kinds: Sequence[str] = ("default",)) -> tuple[float, float]:
    """Returns (base, factor by which positions are stretched) of rotary positions, from one object of config.json.

    Kinds that are not in `kinds`, and entries that the kind does not have, are a DataError: they would be computed wrong.
    """
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise DataError(f"{_FILE}: rotary positions {given!r} are not an object; restore the file from its source")
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in kinds or given.get("type", kind) != kind:
        raise DataError(f"{_FILE}: rotary positions of kind {kind!r} are not supported, only {', '.join(kinds)}")
    others = {k: v for k, v in given.items() if k not in _ROPE_KINDS[kind] and v is not None}
    if others.pop("partial_rotary_factor", 1.0) != 1.0 or others.keys() - {
        "factor",
        "original_max_position_embeddings",
    }:
        raise DataError(f"{_FILE}: rotary positions with {', '.join(sorted(given))} are not supported")
    base = positive(given, "rope_theta", default_base)
    return base, positive(given, "factor", 1.0) if kind == "linear" else 1.0


def nested_rope(config: dict, scaled: Sequence[str]) -> tuple[dict, dict]:
    """Returns the rotary positions of full and of sliding attention.

    An old `rope_scaling` is written over the kinds of attention named in `scaled`, as transformers does.
    """
    parameters = config.get("rope_parameters") or {}
    if not isinstance(parameters, dict) or parameters.keys() - {"full_attention", "sliding_attention"}:
        raise DataError(
            f"{_FILE}: rope_parameters must have full_attention and sliding_attention; restore the file from its source"
        )
    scaling = config.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise DataError(f"{_FILE}: rope_scaling = {scaling!r} is not an object; restore the file from its source")
    full, sliding = (dict(parameters.get(name) or {}) for name in ("full_attention", "sliding_attention"))
    full |= scaling if "full_attention" in scaled else {}
    sliding |= scaling if "sliding_attention" in scaled else {}
    return full, sliding


def flat_rope(config: dict, default_base: float) -> float:
    """Returns the base of rotary positions that all layers share; `rope_scaling` replaces `rope_parameters`."""
    given = config.get("rope_scaling") or config.get("rope_parameters")
    return rope(given, positive(config, "rope_theta", default_base))[0]


def layer_pattern(config: dict, entry: str, *, every: int, last: bool) -> int:
    """Returns N where every N-th layer is global: the last of each N layers, or else the first.

    `layer_types` says it, or else the number `entry`; `every` is the family's default when there is neither.
    """
    count = size(config, "num_hidden_layers")
    given = every if config.get(entry) is None else size(config, entry)
    types = config.get("layer_types")
    if types is None:
        return given
    if not isinstance(types, list) or not set(types) <= {"full_attention", "sliding_attention"}:
        raise DataError(f"config.json: layer_types {types!r:.120} are not full_attention and sliding_attention alone")
    if len(types) != count:
        raise DataError(f"config.json: layer_types names {len(types)} layers, num_hidden_layers says {count}")
    is_global = lambda i, n: (i + 1) % n == 0 if last else i % n == 0  # noqa: E731
    for n in (given, *range(1, count + 2)):
        if all((types[i] == "full_attention") == is_global(i, n) for i in range(count)):
            return n
    raise DataError(f"config.json: layer_types {str(types)[:120]} do not repeat; only every N-th layer may be global")
