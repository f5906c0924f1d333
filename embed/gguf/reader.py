"""A GGUF file read back as one of our models, its weights as they are stored, and read by llama.cpp itself.

Nothing but the file is read: what `writer` wrote must be there and say the same again.
"""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from embed import trees
from embed.documents import first_line
from embed.errors import DataError
from embed.gguf import architectures
from embed.gguf.architectures import Architecture
from embed.interop import torch_twin
from embed.interop.prompts import PLAIN
from embed.interop.tensors import read_all
from embed.models import api
from embed.models.embedder import Embedder

# The largest cosine distance of llama.cpp's vectors to ours with the same weights. It rounds what it multiplies quantised
# weights with to eight bits, and computes gelu approximately.
LLAMA_TOLERANCE = {"float32": 1e-4, "float16": 1e-4, "bfloat16": 2e-3, "q8_0": 1e-2, "q4_0": 1e-2}
_PROMPTS = "sentence_transformers.prompts."
_SHORTEST = 32  # texts are filled up to it or to a higher power of two, so that few programs are compiled


class Tensors:
    """The tensors of a GGUF file, dequantised one at a time; what `tensors.read_all` reads."""

    def __init__(self, path: pathlib.Path):
        torch_twin.need("gguf", extra="gguf")
        import gguf

        try:
            reader = gguf.GGUFReader(path)
            self._tensors = {tensor.name: tensor for tensor in reader.tensors}
            self.metadata: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        except Exception as e:  # the library raises many types, for every kind of damage
            raise DataError(f"{path}: not a whole GGUF file ({first_line(e)}); export the model again") from e
        self.folder = path

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(size) for size in reversed(self._tensors[name].shape))

    def types(self) -> dict[str, str]:
        """Returns the format's name of every tensor's type."""
        return {name: tensor.tensor_type.name for name, tensor in self._tensors.items()}

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor in float32."""
        import gguf

        tensor = self._tensors[name]
        return np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32).reshape(self.shape(name))


class _Restored:
    """The tensors of a file as they were before `Architecture.stored`."""

    def __init__(self, tensors: Tensors, architecture: Architecture):
        self.names, self.shape, self.folder = tensors.names, tensors.shape, tensors.folder
        self.read = lambda name: architecture.restored(name, tensors.read(name))


def read(path) -> tuple[Embedder, dict[str, np.ndarray]]:
    """Returns the model of a file and its parameters by path, dequantised; a DataError for what no writer of ours wrote."""
    tensors = Tensors(pathlib.Path(path))
    try:
        architecture, module = _module(tensors)
    except (KeyError, StopIteration, TypeError, ValueError) as e:
        raise DataError(f"{path}: its metadata is not that of an export ({e!r:.80}); export the model again") from e
    model = api.build(module)
    shapes = {p: tuple(s.shape) for p, s in trees.flatten(jax.eval_shape(model.init, jax.random.key(0))).items()}
    source, layers = _Restored(tensors, architecture), module.encoder.num_layers
    maps = [t for t in architecture.projection if t.paths[0] in shapes]
    ignored = [t.name.replace(".", r"\.") for t in maps]
    leaves = read_all(source, architecture.tensors, trees.below(shapes, "encoder"), layers=layers, ignored=ignored)
    params = {f"encoder/{name}": array for name, array in leaves.items()}
    for tensor in maps:
        params |= read_all(source, (tensor,), {p: shapes[p] for p in tensor.paths}, layers=0, ignored=(".*",))
    return module, params


def _module(tensors: Tensors) -> tuple[Architecture, Embedder]:
    metadata = tensors.metadata
    name = metadata["general.architecture"]
    architecture = next(a for a in architectures.ALL if a.name == name)
    pooling = next(p for p, i in architectures.POOLINGS.items() if i == metadata[f"{name}.pooling_type"])
    encoder = architecture.encoder(metadata, vocab_size=tensors.shape("token_embd.weight")[0])
    maps = (f"{name}.{t.name.removesuffix('.weight')}_feat_out" for t in architecture.projection)
    projection = tuple(int(metadata[key]) for key in maps if key in metadata)
    return architecture, Embedder(encoder=encoder, pooling=pooling(), projection=projection)


def prompts(path) -> dict[str, str]:
    """Returns the prompts of a file as templates."""
    entries = Tensors(pathlib.Path(path)).metadata.items()
    return {key.removeprefix(_PROMPTS): f"{text}{PLAIN}" for key, text in entries if key.startswith(_PROMPTS)}


def vectors(path, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns the float32 unit vectors [n, E] that our model makes of token ids with the weights of a file."""
    module, params = read(path)
    apply, nested = jax.jit(api.build(module).apply), trees.unflatten(params)
    longest = getattr(module.encoder, "max_positions", math.inf)
    rows = []
    for ids in token_ids:
        length = min(longest, max(_SHORTEST, 1 << (len(ids) - 1).bit_length()))
        tokens = np.zeros((1, length), np.int32)
        tokens[0, : len(ids)] = ids
        rows.append(np.asarray(apply(nested, {"tokens": tokens, "segment_ids": np.arange(length)[None] < len(ids)}))[0])
    return np.stack(rows)


def llama_tokens(path, texts: Sequence[str]) -> list[list[int]]:
    """Returns the token ids that llama.cpp makes of texts."""
    import llama_cpp

    model = llama_cpp.Llama(str(path), verbose=False)
    return [model.tokenize(text.encode(), special=True) for text in texts]
