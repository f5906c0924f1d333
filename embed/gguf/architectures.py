"""The architectures that llama.cpp has for our encoders: their tensors and metadata, and what it would compute otherwise.

Names and arithmetic are those of llama.cpp's own sources, src/models/{bert,modern-bert,gemma-embedding,qwen3}.cpp, as in
llama-cpp-python 0.3.36. Tensors are laid out as Hugging Face lays them out, [out, in].
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embed.errors import DataError
from embed.interop.family import ACTIVATIONS, FOREIGN_ACTIVATIONS
from embed.interop.tensors import Tensor, linear, norm
from embed.models.bert import Bert
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.modernbert import ModernBert
from embed.models.pooling import FirstPooling, LastPooling, MeanPooling
from embed.models.qwen3 import Qwen3

Metadata = dict[str, Any]
POOLINGS = {MeanPooling: 1, FirstPooling: 2, LastPooling: 3}
_LAYER, _OURS = "blk.{}", "stack/layers"
_ACTIVATION = "hidden_activation"
_TOKEN_TYPES = "tokenizer.ggml.token_type_count"  # not below the architecture's name
_PROJECTION = ("dense_2", "dense_3")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One architecture of llama.cpp for one of our encoders.

    `fields` maps our fields to entries of the metadata, below the architecture's name; `constants` are entries that are
    always the same, `extras(encoder)` those that follow from several fields. `encoder_fields(metadata)` gives the fields that
    `fields` does not. `problems(encoder)` says what llama.cpp would compute otherwise. `norm_offset` is added to the scales
    of norms. `has_projection`: linear maps after pooling, which lead back to the encoder's width.
    """

    name: str
    module: type
    described: str
    tensors: Sequence[Tensor]
    fields: Mapping[str, str]
    constants: Metadata
    problems: Callable[[Any], list[str]]
    extras: Callable[[Any], Metadata] = lambda encoder: {}
    encoder_fields: Callable[[Metadata], dict[str, Any]] = lambda metadata: {}
    norm_offset: float = 0.0
    has_projection: bool = False

    def metadata(self, encoder, max_length: int) -> Metadata:
        """Returns the entries of the encoder, by their whole names."""
        entries = {key: getattr(encoder, field) for field, key in self.fields.items()}
        entries = {"context_length": max_length, **entries, **self.constants, **self.extras(encoder)}
        return {key if key == _TOKEN_TYPES else f"{self.name}.{key}": value for key, value in entries.items()}

    def encoder(self, metadata: Metadata, vocab_size: int):
        """Returns the encoder whose entries `metadata` are."""
        entries = {key.removeprefix(f"{self.name}."): value for key, value in metadata.items()}
        fields = {field: entries[key] for field, key in self.fields.items()}
        return self.module(vocab_size=vocab_size, **fields, **self.encoder_fields(entries))

    def stored(self, name: str, array: np.ndarray, encoder) -> np.ndarray:
        """Returns a tensor as llama.cpp has it: norms with their offset, and no position before a text's first."""
        if name == "position_embd.weight":
            return array[encoder.position_offset :]
        return array + np.float32(self.norm_offset) if name.endswith("_norm.weight") else array

    def restored(self, name: str, array: np.ndarray) -> np.ndarray:
        """Returns a tensor as `stored` was given it, but for the positions that were left out."""
        return array - np.float32(self.norm_offset) if name.endswith("_norm.weight") else array

    @property
    def projection(self) -> tuple[Tensor, ...]:
        """The tensors of the linear maps after pooling."""
        return tuple(
            Tensor(f"{name}.weight", (f"projection_{i}/kernel",), inputs=1) for i, name in enumerate(_PROJECTION)
        )


_SIZES = {
    "width": "embedding_length",
    "num_layers": "block_count",
    "num_heads": "attention.head_count",
    "mlp_dim": "feed_forward_length",
}
_DECODER_SIZES = {**_SIZES, "num_kv_heads": "attention.head_count_kv", "head_dim": "attention.key_length"}
_LAYER_NORM, _RMS_NORM = "attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon"
_LOCAL = {
    "window": "attention.sliding_window",
    "global_every": "attention.sliding_window_pattern",
    "local_rope_base": "rope.freq_base_swa",
    "global_rope_base": "rope.freq_base",
}


def _decoder_tensors(**norms: str) -> tuple[Tensor, ...]:
    """Returns the tensors that Gemma and Qwen3 share; `norms` are the other norms of a layer, ours -> theirs."""
    return (
        Tensor("token_embd.weight", ("embedding/table",)),
        *norm("output_norm", "final_norm"),
        *linear(f"{_LAYER}.attn_q", f"{_OURS}/attention/query"),
        *linear(f"{_LAYER}.attn_k", f"{_OURS}/attention/key"),
        *linear(f"{_LAYER}.attn_v", f"{_OURS}/attention/value"),
        *linear(f"{_LAYER}.attn_output", f"{_OURS}/attention/output", inputs=2),
        *norm(f"{_LAYER}.attn_q_norm", f"{_OURS}/attention/query_norm"),
        *norm(f"{_LAYER}.attn_k_norm", f"{_OURS}/attention/key_norm"),
        *(tensor for ours, theirs in norms.items() for tensor in norm(f"{_LAYER}.{theirs}", f"{_OURS}/{ours}")),
        *linear(f"{_LAYER}.ffn_gate", f"{_OURS}/mlp/gate"),
        *linear(f"{_LAYER}.ffn_up", f"{_OURS}/mlp/up"),
        *linear(f"{_LAYER}.ffn_down", f"{_OURS}/mlp/down"),
    )


def _is_other(what: str, value, *allowed) -> list[str]:
    return [] if value in allowed else [f"{what} = {value!r}, where llama.cpp has {' or '.join(map(repr, allowed))}"]


def _no_window(encoder) -> list[str]:
    return [] if encoder.window else ["window = 0, which llama.cpp takes for no window"]


def _read_activation(metadata: Metadata) -> dict[str, Any]:
    return {"activation": ACTIVATIONS[metadata[_ACTIVATION]]}


BERT = Architecture(
    name="bert",
    module=Bert,
    described="Bert (XLM-RoBERTa too)",
    tensors=(
        Tensor("token_embd.weight", ("embedding/table",)),
        Tensor("position_embd.weight", ("position_embedding/table",)),
        Tensor("token_types.weight", ("type_embedding/table",)),
        *norm("token_embd_norm", "embedding_norm"),
        *linear(f"{_LAYER}.attn_q", f"{_OURS}/attention/query"),
        *linear(f"{_LAYER}.attn_k", f"{_OURS}/attention/key"),
        *linear(f"{_LAYER}.attn_v", f"{_OURS}/attention/value"),
        *linear(f"{_LAYER}.attn_output", f"{_OURS}/attention/output", inputs=2),
        *norm(f"{_LAYER}.attn_output_norm", f"{_OURS}/attention_norm"),
        *linear(f"{_LAYER}.ffn_up", f"{_OURS}/mlp/up"),
        *linear(f"{_LAYER}.ffn_down", f"{_OURS}/mlp/down"),
        *norm(f"{_LAYER}.layer_output_norm", f"{_OURS}/mlp_norm"),
    ),
    fields={**_SIZES, "norm_eps": _LAYER_NORM},
    constants={"attention.causal": False},
    # Positions begin at 0, whatever they begin at in the trained model; llama.cpp takes the table's size from the context's.
    extras=lambda e: {
        "context_length": e.max_positions - e.position_offset,
        _TOKEN_TYPES: e.num_token_types,
        _ACTIVATION: FOREIGN_ACTIVATIONS[e.activation],
    },
    encoder_fields=lambda m: {
        "max_positions": m["context_length"],
        "num_token_types": m[_TOKEN_TYPES],
        **_read_activation(m),
    },
    problems=lambda e: _is_other("activation", e.activation, "gelu", "gelu_tanh"),
)

MODERN_BERT = Architecture(
    name="modern-bert",
    module=ModernBert,
    described="ModernBert",
    tensors=(
        Tensor("token_embd.weight", ("embedding/table",)),
        *norm("token_embd_norm", "embedding_norm"),
        *norm("output_norm", "final_norm"),
        Tensor(
            f"{_LAYER}.attn_qkv.weight",
            tuple(f"{_OURS}/attention/{name}/kernel" for name in ("query", "key", "value")),
            inputs=1,
        ),
        *linear(f"{_LAYER}.attn_output", f"{_OURS}/attention/output", inputs=2),
        *norm(f"{_LAYER}.attn_norm", f"{_OURS}/attention_norm", first_layer=1, fill=1.0),
        *norm(f"{_LAYER}.ffn_norm", f"{_OURS}/mlp_norm"),
        # The first half goes through the activation.
        Tensor(f"{_LAYER}.ffn_up.weight", (f"{_OURS}/mlp/gate/kernel", f"{_OURS}/mlp/up/kernel"), inputs=1),
        *linear(f"{_LAYER}.ffn_down", f"{_OURS}/mlp/down"),
    ),
    fields={**_SIZES, **_LOCAL, "norm_eps": _LAYER_NORM},
    constants={"attention.causal": False, "rope.scaling.type": "none"},
    extras=lambda e: {_ACTIVATION: FOREIGN_ACTIVATIONS[e.activation], "vocab_size": e.vocab_size},
    encoder_fields=_read_activation,
    problems=lambda e: [
        *_is_other("activation", e.activation, "gelu", "gelu_tanh", "silu"),
        *(p for name in ("norm_bias", "attention_bias", "mlp_bias") for p in _is_other(name, getattr(e, name), False)),
        *_no_window(e),
    ],
)


def _gemma_problems(encoder: Gemma) -> list[str]:
    scale = encoder.query_scale or encoder.head_dim**-0.5
    problems = [*_is_other("causal", encoder.causal, False), *_no_window(encoder)]
    if not math.isclose(scale, encoder.head_dim**-0.5, rel_tol=1e-6):
        problems.append(f"query_scale = {scale:.6g}, where llama.cpp has head_dim^-0.5 = {encoder.head_dim**-0.5:.6g}")
    return problems


GEMMA = Architecture(
    name="gemma-embedding",
    module=Gemma,
    described="Gemma (not causal; projection to nothing, or back to its width)",
    tensors=_decoder_tensors(
        attention_norm="attn_norm",
        attention_post_norm="post_attention_norm",
        mlp_norm="ffn_norm",
        mlp_post_norm="post_ffw_norm",
    ),
    fields={**_DECODER_SIZES, **_LOCAL, "norm_eps": _RMS_NORM},
    constants={"attention.causal": False},
    extras=lambda e: {
        "attention.value_length": e.head_dim,
        "rope.scaling.type": "none" if e.global_rope_scale == 1 else "linear",
        "rope.scaling.factor": e.global_rope_scale,
    },
    encoder_fields=lambda m: {"global_rope_scale": m["rope.scaling.factor"]},
    problems=_gemma_problems,
    norm_offset=1.0,
    has_projection=True,
)

QWEN3 = Architecture(
    name="qwen3",
    module=Qwen3,
    described="Qwen3",
    tensors=_decoder_tensors(attention_norm="attn_norm", mlp_norm="ffn_norm"),
    fields={**_DECODER_SIZES, "rope_base": "rope.freq_base", "norm_eps": _RMS_NORM, "causal": "attention.causal"},
    constants={},
    extras=lambda e: {"attention.value_length": e.head_dim},
    problems=lambda e: _is_other("attention_bias", e.attention_bias, False),
)

ALL = (BERT, MODERN_BERT, GEMMA, QWEN3)


def of_model(module: Embedder, folder) -> Architecture:
    """Returns the architecture of a model; a DataError that lists the possible ones when llama.cpp has none for it."""
    architecture = next((a for a in ALL if type(module.encoder) is a.module), None)
    problems = ["llama.cpp has no such encoder"] if architecture is None else architecture.problems(module.encoder)
    if type(module.pooling) not in POOLINGS:
        problems.append(f"llama.cpp has no {type(module.pooling).__name__}")
    if architecture is not None:
        problems += _projection_problems(architecture, module)
    if problems or architecture is None:
        poolings = ", ".join(p.__name__ for p in POOLINGS)
        raise DataError(
            f"{folder}: {type(module.encoder).__name__} cannot be a GGUF: {'; '.join(problems)}. Possible: "
            f"{', '.join(a.described for a in ALL)}, with {poolings}; export with another --format"
        )
    return architecture


def _projection_problems(architecture: Architecture, module: Embedder) -> list[str]:
    sizes = module.projection
    if not sizes:
        return []
    if not architecture.has_projection:
        return [f"projection = {sizes}, and llama.cpp's {architecture.name} has none"]
    if len(sizes) > len(_PROJECTION) or sizes[-1] != module.encoder.width:
        return [
            f"projection = {sizes}, where llama.cpp has at most {len(_PROJECTION)} linear maps, back to {module.encoder.width}"
        ]
    return []


def notes(architecture: Architecture, encoder) -> list[str]:
    """Returns what llama.cpp approximates."""
    if getattr(encoder, "activation", None) != "gelu":
        return []
    return ["llama.cpp computes gelu by its tanh approximation, which moves vectors a little"]
