"""A model as one StableHLO program that jax alone reloads, for any batch and any length, on CPU, GPU and TPU."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from embed import files, trees
from embed.errors import DataError
from embed.interop import tokenizer_json
from embed.interop.origin import Trained, public_description, truncation_side
from embed.models import api

PROGRAM = "model.stablehlo"
PARAMETERS = "parameters.npz"
_PLATFORMS = ("cpu", "cuda", "tpu")


def write(folder: pathlib.Path, trained: Trained) -> None:
    """Writes the program (parameters, token_ids int32 [b, l], mask bool [b, l]) -> float32 [b, E] and its parameters."""
    model = api.build(trained.module)
    batch, length = jax.export.symbolic_shape("b, l", constraints=["b >= 1", "l >= 1", f"l <= {trained.max_length}"])
    params = {p: jax.ShapeDtypeStruct(s, jnp.float32) for p, s in trained.shapes.items()}
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    mask = jax.ShapeDtypeStruct((batch, length), jnp.bool_)

    def embed(parameters, token_ids, mask):
        return model.apply(trees.unflatten(parameters), {"tokens": token_ids, "segment_ids": mask})

    exported = jax.export.export(jax.jit(embed), platforms=_PLATFORMS)(params, tokens, mask)
    (folder / PROGRAM).write_bytes(exported.serialize())
    np.savez(folder / PARAMETERS, **{path: trained.read(path) for path in trained.shapes})
    write_tokenizer(folder, trained)
    files.write_json(folder / "model.json", public_description(trained))


def write_tokenizer(folder: pathlib.Path, trained: Trained) -> None:
    """Writes tokenizer.json, or the SentencePiece model where no tokenizer.json can do what it does."""
    content = trained.tokenizer.content()
    if trained.tokenizer.filename != "tokenizer.json":
        try:
            content = tokenizer_json.from_sentencepiece(trained.tokenizer)
        except DataError:
            (folder / trained.tokenizer.filename).write_bytes(content)
            return
    side = truncation_side(trained)
    spec = tokenizer_json.for_readers(content, trained.max_length, side, trained.description["text_normalization"])
    (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
