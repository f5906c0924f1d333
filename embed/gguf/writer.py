"""A model as one GGUF file for llama.cpp and the servers around it: weights, tokenizer, prompts. Needs the extra [gguf].

The format has no place for an embedding model's prompts. They are entries of the metadata under sentence-transformers' names,
which no server applies by itself.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from embed import files
from embed.data.tokenizers import SentencePiece
from embed.errors import DataError
from embed.gguf import architectures, sentencepiece_model, tokenizer_json, vocabulary
from embed.gguf.architectures import Architecture
from embed.gguf.vocabulary import NFC_NOTE, STRIP_NOTE, Vocabulary
from embed.interop import prompts
from embed.interop.origin import Trained, public_description
from embed.interop.stablehlo import write_tokenizer
from embed.interop.tensors import Tensor, foreign_shapes, foreign_tensors
from embed.text import DEFAULT_NORMALIZATION

FILE = "model.gguf"
# Our name of a type of weights -> the name in the format, and the number that says what most of a file's weights are.
TYPES = {
    "float32": ("F32", 0),
    "float16": ("F16", 1),
    "bfloat16": ("BF16", 32),
    "q8_0": ("Q8_0", 7),
    "q4_0": ("Q4_0", 2),
}
BLOCK = 32  # weights of a row that share a scale, in Q8_0 and Q4_0
# llama.cpp wants these tables in float32, and norms and biases too.
_FLOAT32 = ("position_embd.weight", "token_types.weight")
_MAX_FLOAT16 = 65504.0
_LISTED = 4


@dataclasses.dataclass(frozen=True)
class Plan:
    """A model and what becomes of it; everything that llama.cpp cannot repeat has been refused."""

    trained: Trained
    dtype: str
    architecture: Architecture
    vocabulary: Vocabulary

    def metadata(self) -> dict[str, Any]:
        """Returns all entries of the file's metadata, but for the architecture's name."""
        trained, module = self.trained, self.trained.module
        entries = {"pooling_type": architectures.POOLINGS[type(module.pooling)]}
        sizes = [module.encoder.width, *module.projection]
        for tensor, inputs, outputs in zip(self.architecture.projection, sizes, sizes[1:]):
            name = tensor.name.removesuffix(".weight")
            entries |= {f"{name}_feat_in": inputs, f"{name}_feat_out": outputs}
        vocab_size = module.encoder.vocab_size
        location = trained.tokenizer.path
        return {
            "general.type": "model",
            "general.name": trained.folder.name,
            "general.file_type": TYPES[self.dtype][1],
            "general.quantization_version": 2,
            **self.architecture.metadata(module.encoder, trained.max_length),
            **{f"{self.architecture.name}.{key}": value for key, value in entries.items()},
            **vocabulary.metadata(self.vocabulary, trained.tokenizer.pad_id, vocab_size, location),
            **_users_entries(trained),
        }

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the file's tensors, by name, in order."""
        encoder = self.trained.module.encoder
        named: dict[str, tuple[int, ...]] = {}
        for table, _, shapes in self._tables():
            named |= foreign_shapes(table, shapes, encoder.num_layers)
        if "position_embd.weight" in named:
            named["position_embd.weight"] = (encoder.max_positions - encoder.position_offset, encoder.width)
        return named

    def _tables(self) -> Iterator[tuple[Sequence[Tensor], str, dict[str, tuple[int, ...]]]]:
        """Yields (tensors, prefix of their parameters' paths, those parameters' shapes by the rest of their paths)."""
        shapes, prefix = self.trained.shapes, "encoder/"
        below = {p.removeprefix(prefix): s for p, s in shapes.items() if p.startswith(prefix)}
        yield self.architecture.tensors, prefix, below
        for tensor in self.architecture.projection:
            if tensor.paths[0] in shapes:
                yield (tensor,), "", {tensor.paths[0]: shapes[tensor.paths[0]]}

    def type_of(self, name: str) -> str:
        """Returns the name of a tensor's type in the format."""
        shape = self.shapes[name]
        if len(shape) == 1 or name.endswith("_norm.weight") or name in _FLOAT32:
            return "F32"
        is_in_blocks = self.dtype in ("q8_0", "q4_0")
        return "F16" if is_in_blocks and shape[-1] % BLOCK else TYPES[self.dtype][0]

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (name, float32 array) of every tensor in the order of `shapes`, one at a time."""
        encoder = self.trained.module.encoder
        for table, prefix, shapes in self._tables():
            read = lambda path, prefix=prefix: self.trained.read(prefix + path)  # noqa: E731
            for name, array in foreign_tensors(table, shapes, encoder.num_layers, read):
                yield name, self.architecture.stored(name, array, encoder)

    def notes(self) -> list[str]:
        """Returns what a user of the file must know or do, for the model card and the screen."""
        is_cleaned = self.trained.description["text_normalization"] == DEFAULT_NORMALIZATION
        cleaning = (NFC_NOTE, STRIP_NOTE) if is_cleaned else ()
        notes = list(dict.fromkeys((*cleaning, *self.vocabulary.notes)))
        others = {name for name in self.shapes if self.dtype in ("q8_0", "q4_0") and self.type_of(name) == "F16"}
        notes += architectures.notes(self.architecture, self.trained.module.encoder)
        notes.append("put a prompt before each text yourself; llama.cpp does not, though the file names the prompts")
        notes.append(
            f"cut texts at {self.trained.max_length} tokens; llama.cpp refuses longer ones, or drops their last token"
        )
        if others:
            shown = ", ".join(sorted(others)[:_LISTED])
            more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
            notes.append(f"rows that are no multiple of {BLOCK} numbers stay float16: {shown}{more}")
        return notes


def make_plan(trained: Trained, dtype: str) -> Plan:
    """Returns what becomes of a model in weights of type `dtype`, a key of TYPES.

    Raises DataError for an encoder, pooling, projection or tokenizer that llama.cpp does not have.
    """
    tokenizer = trained.tokenizer
    architecture = architectures.of_model(trained.module, trained.folder)
    reader = sentencepiece_model if isinstance(tokenizer, SentencePiece) else tokenizer_json
    return Plan(trained, dtype, architecture, reader.read(tokenizer))


def write(folder: pathlib.Path, plan: Plan) -> None:
    """Writes model.gguf, and the tokenizer, prompts and description that other tools read beside it."""
    import gguf

    writer = gguf.GGUFWriter(folder / FILE, plan.architecture.name)
    for key, value in plan.metadata().items():
        _add(writer, key, value)
    types = {name: gguf.GGMLQuantizationType[plan.type_of(name)] for name in plan.shapes}
    for name, shape in plan.shapes.items():
        _announce(writer, name, shape, types[name])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, array in plan.tensors():
            writer.write_tensor_data(_quantized(array, types[name], f"{plan.trained.folder}: {name}"))
    finally:
        writer.close()
    write_tokenizer(folder, plan.trained)
    files.write_json(folder / "model.json", public_description(plan.trained))


def _users_entries(trained: Trained) -> dict[str, Any]:
    """Returns entries for whoever uses the file, under the names of sentence-transformers' files."""
    description = trained.description
    entries = {f"prompts.{name}": prefix for name, prefix in prompts.exported(description["prompts"]).items()}
    entries |= {
        "max_seq_length": trained.max_length,
        "matryoshka_dimensions": trained.matryoshka_dims,
        "similarity_fn_name": "cosine",
    }
    if description.get("default_prompt_name") is not None:
        entries["default_prompt_name"] = description["default_prompt_name"]
    named = {f"sentence_transformers.{key}": value for key, value in entries.items()}
    return {**named, "embed.text_normalization": description["text_normalization"], "embed.model": trained.digest}


def _add(writer, key: str, value) -> None:
    import gguf

    kind = gguf.GGUFValueType
    kinds = {
        bool: kind.BOOL,
        int: kind.UINT32,
        float: kind.FLOAT32,
        str: kind.STRING,
        list: kind.ARRAY,
        bytes: kind.ARRAY,
    }
    writer.add_key_value(key, value, kinds[type(value)])  # its `add_string` leaves empty texts out


def _announce(writer, name: str, shape: tuple[int, ...], kind) -> None:
    """Says which tensor will follow; rows of blocks are announced as their bytes."""
    import gguf

    if kind.name in ("F32", "F16"):
        size = {"F32": 4, "F16": 2}[kind.name]
        writer.add_tensor_info(name, shape, np.dtype(f"f{size}"), math.prod(shape) * size, kind)
    else:
        rows = gguf.quant_shape_to_byte_shape(shape, kind)
        writer.add_tensor_info(name, rows, np.dtype(np.uint8), math.prod(rows), kind)


def _quantized(array: np.ndarray, kind, location: str) -> np.ndarray:
    """Returns the bytes of a tensor. Scales of blocks are float16, so no type but F32 and BF16 holds what is larger."""
    import gguf

    largest = float(np.abs(array).max(initial=0.0))
    limit = {"F16": 1, "Q8_0": 127, "Q4_0": 8}.get(kind.name, math.inf) * _MAX_FLOAT16
    if not largest <= limit:
        raise DataError(
            f"{location} holds {largest:.3g}, more than {kind.name} can; export with --dtype=float32, or bfloat16"
        )
    return np.ascontiguousarray(gguf.quants.quantize(np.ascontiguousarray(array, np.float32), kind))
