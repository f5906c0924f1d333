"""The tensors of vision transformers and of TIPS' text tower by their foreign names.

Four dialects have the same tensors: Dinov2's files on the Hub ("hub"), the modules of transformers 5 ("transformers"), the first
code of Dinov2 and TIPS in PyTorch ("original"), and what transformers saves of TIPSv2, which differs from it in the MLPs ("saved").
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from embed.errors import DataError
from embed.interop.tensors import Tensor, linear, norm

_OURS = "stack/layers"
# Parameters of a VisionTransformer that `Dialect.layers` does not have.
OTHERS = ("patches/kernel", "positions", "class_tokens", "class_positions", "registers", "mask_token")
_NEW, _OLD, _FIRST = "encoder.layer.{}", "encoder.layer.{}", "blocks.{}"


@dataclasses.dataclass(frozen=True)
class Dialect:
    """The names of a vision transformer's tensors. `layers` are read by the tables of `interop.tensors`, and the others here.

    `class_token` is [1, 1, D], `registers` [1, n, D], `positions` [1, 1 + G * G, D] with the class token's in front, `mask` [1, D],
    and `patches` the weight of a convolution, [D, 3, p, p].
    """

    name: str
    layers: tuple[Tensor, ...]
    class_token: str
    registers: str
    positions: str
    mask: str
    patches: str

    @property
    def others(self) -> tuple[str, ...]:
        """The names that `layers` does not have."""
        return self.class_token, self.registers, self.positions, self.mask, self.patches


def _norms(first: str, second: str, last: str) -> tuple[Tensor, ...]:
    return *norm(first, f"{_OURS}/attention_norm"), *norm(second, f"{_OURS}/mlp_norm"), *norm(last, "final_norm")


def _heads(query: str, key: str, value: str, output: str) -> tuple[Tensor, ...]:
    names = {"query": query, "key": key, "value": value}
    into = [tensor for ours, name in names.items() for tensor in linear(name, f"{_OURS}/attention/{ours}")]
    return *into, *linear(output, f"{_OURS}/attention/output", inputs=2)


def _joined(weight: str, bias: str, *paths: str) -> tuple[Tensor, Tensor]:
    """Returns the tensors of several linear maps in one."""
    kernels, biases = (tuple(f"{path}/{part}" for path in paths) for part in ("kernel", "bias"))
    return Tensor(weight, kernels, inputs=1), Tensor(bias, biases)


def _scales(first: str, second: str) -> tuple[Tensor, ...]:
    names = {"attention": first, "mlp": second}
    return tuple(Tensor(name, (f"{_OURS}/{ours}_layer_scale/scale",)) for ours, name in names.items())


_GATE, _UP, _DOWN = (f"{_OURS}/mlp/{name}" for name in ("gate", "up", "down"))
_EMBEDDINGS = {
    "class_token": "embeddings.cls_token",
    "registers": "embeddings.register_tokens",
    "positions": "embeddings.position_embeddings",
    "mask": "embeddings.mask_token",
    "patches": "embeddings.patch_embeddings.projection.weight",
}
_PATCH_BIAS = Tensor("embeddings.patch_embeddings.projection.bias", ("patches/bias",))
_FIRST_ATTENTION = tuple(f"{_OURS}/attention/{name}" for name in ("query", "key", "value"))


def dialects(gated: bool) -> dict[str, Dialect]:
    """Returns the dialects by name, of a tower whose MLP is gated or not."""
    plain = (*linear(f"{_NEW}.mlp.fc1", _UP), *linear(f"{_NEW}.mlp.fc2", _DOWN))
    new_mlp = [linear(f"{_NEW}.mlp.{part}_proj", f"{_OURS}/mlp/{part}") for part in ("gate", "up", "down")]
    old_mlp = (
        *_joined(f"{_OLD}.mlp.weights_in.weight", f"{_OLD}.mlp.weights_in.bias", _GATE, _UP),
        *linear(f"{_OLD}.mlp.weights_out", _DOWN),
    )
    first_mlp = (
        *_joined(f"{_FIRST}.mlp.w12.weight", f"{_FIRST}.mlp.w12.bias", _GATE, _UP),
        *linear(f"{_FIRST}.mlp.w3", _DOWN),
    )
    first_plain = (*linear(f"{_FIRST}.mlp.fc1", _UP), *linear(f"{_FIRST}.mlp.fc2", _DOWN))
    saved_plain = (*linear(f"{_FIRST}.mlp.c_fc", _UP), *linear(f"{_FIRST}.mlp.c_proj", _DOWN))
    shared = (
        _PATCH_BIAS,
        *_norms(f"{_NEW}.norm1", f"{_NEW}.norm2", "layernorm"),
        *_scales(f"{_NEW}.layer_scale1.lambda1", f"{_NEW}.layer_scale2.lambda1"),
    )
    new_heads = _heads(*(f"{_NEW}.attention.{part}_proj" for part in "qkvo"))
    inner = f"{_OLD}.attention.attention"
    old_heads = _heads(f"{inner}.query", f"{inner}.key", f"{inner}.value", f"{_OLD}.attention.output.dense")
    qkv = f"{_FIRST}.attn.qkv"
    first = (
        Tensor("patch_embed.proj.bias", ("patches/bias",)),
        *_norms(f"{_FIRST}.norm1", f"{_FIRST}.norm2", "norm"),
        *_scales(f"{_FIRST}.ls1.gamma", f"{_FIRST}.ls2.gamma"),
        *_joined(f"{qkv}.weight", f"{qkv}.bias", *_FIRST_ATTENTION),
        *linear(f"{_FIRST}.attn.proj", f"{_OURS}/attention/output", inputs=2),
    )
    new = (*shared, *new_heads, *([t for pair in new_mlp for t in pair] if gated else plain))
    hub = (*shared, *old_heads, *(old_mlp if gated else plain))
    first_names = ("cls_token", "register_tokens", "pos_embed", "mask_token", "patch_embed.proj.weight")
    tables = {
        "transformers": Dialect("transformers", new, **_EMBEDDINGS),
        "hub": Dialect("hub", hub, **_EMBEDDINGS),
        "original": Dialect("original", (*first, *(first_mlp if gated else first_plain)), *first_names),
    }
    return tables if gated else {**tables, "saved": Dialect("saved", (*first, *saved_plain), *first_names)}


_TEXT = "encoder.layers.{}"
TEXT = (
    Tensor("embeddings.token_embedding.weight", ("embedding/table",)),
    *_norms(f"{_TEXT}.layer_norm1", f"{_TEXT}.layer_norm2", "final_layer_norm"),
    *_heads(*(f"{_TEXT}.self_attn.{part}_proj" for part in ("q", "k", "v", "out"))),
    *linear(f"{_TEXT}.mlp.fc1", _UP),
    *linear(f"{_TEXT}.mlp.fc2", _DOWN),
)
_BLOCK = "transformer.resblocks.{}"
ORIGINAL_TEXT = (
    Tensor("token_embedding.weight", ("embedding/table",)),
    *_norms(f"{_BLOCK}.ln_1", f"{_BLOCK}.ln_2", "ln_final"),
    *_joined(f"{_BLOCK}.attn.in_proj_weight", f"{_BLOCK}.attn.in_proj_bias", *_FIRST_ATTENTION),
    *linear(f"{_BLOCK}.attn.out_proj", f"{_OURS}/attention/output", inputs=2),
    *linear(f"{_BLOCK}.mlp.c_fc", _UP),
    *linear(f"{_BLOCK}.mlp.c_proj", _DOWN),
)


def other_arrays(dialect: Dialect, tensors: Mapping[str, np.ndarray], encoder) -> dict[str, np.ndarray]:
    """Returns the parameters of a VisionTransformer that `Dialect.layers` does not have, from foreign arrays.

    TIPS stores its second class token as a register, and its class tokens have no positions: one that is there is added to the
    first token.
    """
    positions, token = tensors[dialect.positions][0], tensors[dialect.class_token][0]
    side, width = encoder.position_grid, encoder.width
    if positions.shape != (1 + side * side, width):
        raise DataError(
            f"{dialect.positions} is {list(tensors[dialect.positions].shape)}, and 1 + {side} x {side} were expected"
        )
    params = {
        "patches/kernel": tensors[dialect.patches].transpose(2, 3, 1, 0),
        "positions": positions[1:].reshape(side, side, width),
        "class_tokens": token,
    }
    registers = tensors.get(dialect.registers)
    if encoder.class_position:
        params["class_positions"] = positions[:1]
    else:
        params["class_tokens"] = np.concatenate([token + positions[:1], registers[0]])
    if encoder.num_registers:
        params["registers"] = registers[0]
    if encoder.mask_token:
        params["mask_token"] = tensors[dialect.mask].reshape(width)
    return {path: np.ascontiguousarray(array, np.float32) for path, array in params.items()}


def foreign_others(dialect: Dialect, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the foreign arrays of parameters as `other_arrays` reads them. A tower without a mask token gets one of zeros."""
    tokens, grid = params["class_tokens"], params["positions"]
    width = grid.shape[-1]
    lead = params.get("class_positions", np.zeros((1, width), np.float32))
    registers = params.get("registers", tokens[1:])
    arrays = {
        dialect.class_token: tokens[None, :1],
        dialect.positions: np.concatenate([lead, grid.reshape(-1, width)])[None],
        dialect.mask: params.get("mask_token", np.zeros(width, np.float32))[None],
        dialect.patches: params["patches/kernel"].transpose(3, 2, 0, 1),
    }
    if len(registers):
        arrays[dialect.registers] = registers[None]
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


def dialect_of(names: Sequence[str], prefix: str = "") -> Dialect:
    """Returns the dialect whose tensors are there; none is a DataError."""
    present = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    for gated in (False, True):
        for dialect in dialects(gated).values():
            needed = {tensor.name.format(0) for tensor in dialect.layers if "layer_scale" not in tensor.paths[0]}
            if needed <= present and dialect.class_token in present:
                return dialect
    raise DataError("no tensors of a vision transformer of TIPS or Dinov2 are there; give a folder or file of one")
