"""What a family of foreign checkpoints is: its configuration as our fields and back, and its tensors' names."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from embed.errors import DataError
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
class Family:
    """One architecture as transformers knows it.

    `fields(config)` gives our module's fields, `config(encoder)` the entries of config.json in the flat form that old and
    new versions read. `tensors` name everything below `encoder/`; they are read under the prefix of `prefixes` that fits
    and written under `write_prefix`. `load_options` go to the constructor in transformers. `owns` tells whether an encoder
    of this module belongs here.
    """

    model_type: str
    class_name: str
    module: type
    fields: Callable[[dict], dict[str, Any]]
    config: Callable[[Any], dict[str, Any]]
    max_length: Callable[[Any], int]
    tensors: Sequence[Tensor]
    other_types: Sequence[str] = ()
    prefixes: Sequence[str] = ("",)
    ignored: Sequence[str] = ()
    write_prefix: str = ""
    load_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    owns: Callable[[Any], bool] = lambda encoder: True


# our field -> the entry of config.json, of the families that have both
SIZES = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "mlp_dim": "intermediate_size",
}
DECODER_SIZES = {**SIZES, "num_kv_heads": "num_key_value_heads", "head_dim": "head_dim", "norm_eps": "rms_norm_eps"}


def read_fields(config: dict, names: Mapping[str, str]) -> dict[str, Any]:
    """Returns our fields from the entries of config.json that `names` maps them to."""
    return {ours: config[theirs] for ours, theirs in names.items()}


def write_fields(encoder, names: Mapping[str, str]) -> dict[str, Any]:
    """Returns the entries of config.json of the fields that `names` maps to them."""
    return {theirs: getattr(encoder, ours) for ours, theirs in names.items()}


def layer_types(count: int, every: int) -> list[str]:
    """Returns config.json's layer_types when every `every`-th layer is global."""
    return ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(count)]


def require(config: dict, name: str, expected) -> None:
    """Raises DataError unless `config` has the only value (or one of a tuple of values) of `name` we can compute with.

    A missing entry passes: then transformers' own default is meant, and the expected value is that default.
    """
    values = expected if isinstance(expected, tuple) else (expected,)
    if name in config and config[name] not in values:
        raise DataError(f"config.json: {name} = {config[name]!r} is not supported, only {', '.join(map(repr, values))}")


def rope_factor(scaling: dict | None, kinds: tuple[str, ...] = ("default", "linear")) -> float:
    """Returns by how much rotary positions are stretched, of a `rope_scaling` or one entry of `rope_parameters`.

    Kinds that are not in `kinds` are a DataError: they would be computed wrong.
    """
    scaling = scaling or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in kinds:
        raise DataError(f"config.json: rotary positions of kind {kind!r} are not supported, only {', '.join(kinds)}")
    return float(scaling.get("factor", 1.0)) if kind == "linear" else 1.0


def layer_pattern(config: dict, *, every: int, last: bool) -> int:
    """Returns N where every N-th layer is global: the last of each N layers, or else the first.

    `every` is the family's default when the configuration does not say.
    """
    count = config["num_hidden_layers"]
    keys = ("_sliding_window_pattern", "sliding_window_pattern", "global_attn_every_n_layers")
    given = next((config[k] for k in keys if config.get(k)), every)
    types = config.get("layer_types")
    if types is None:
        return given
    if len(types) != count:
        raise DataError(f"config.json: layer_types names {len(types)} layers, num_hidden_layers says {count}")
    is_global = lambda i, n: (i + 1) % n == 0 if last else i % n == 0  # noqa: E731
    for n in (given, *range(1, count + 2)):
        if all((types[i] == "full_attention") == is_global(i, n) for i in range(count)):
            return n
    raise DataError(f"config.json: layer_types {types} do not repeat; only every N-th layer may be global")
