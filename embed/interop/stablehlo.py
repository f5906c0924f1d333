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
PATCHES = "patches.stablehlo"
PARAMETERS = "parameters.npz"
_PLATFORMS = ("cpu", "cuda", "tpu")


def write(folder: pathlib.Path, trained: Trained) -> None:
    """Writes a model of texts into `folder`, one of images into its folder `image`, and one of both into `text` and `image`."""
    if trained.image is None:
        _write_text(folder, trained)
        return
    for name, tower, write_tower in (("text", trained.text, _write_text), ("image", trained.image, _write_image)):
        if tower is not None:
            (folder / name).mkdir()
            write_tower(folder / name, tower)


def _write_text(folder: pathlib.Path, trained: Trained) -> None:
    """Writes the program (parameters, token_ids int32 [b, l], mask bool [b, l]) -> float32 [b, E] and its parameters."""
    model = api.build(trained.module)
    batch, length = jax.export.symbolic_shape("b, l", constraints=["b >= 1", "l >= 1", f"l <= {trained.max_length}"])
    params = {p: jax.ShapeDtypeStruct(s, jnp.float32) for p, s in trained.shapes.items()}
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    mask = jax.ShapeDtypeStruct((batch, length), jnp.bool_)

    def embed(parameters, token_ids, mask):
        return model.apply(trees.unflatten(parameters), {"tokens": token_ids, "segment_ids": mask})

    _write_program(folder / PROGRAM, embed, params, tokens, mask)
    _write_parameters(folder, trained)
    write_tokenizer(folder, trained)


def _write_image(folder: pathlib.Path, trained: Trained) -> None:
    """Writes the programs (parameters, pixels uint8 [b, S, S, 3]) -> float32 [b, E] and -> the patches' float32 [b, P, D]."""
    model, size = api.build(trained.module), trained.module.image_size
    (batch,) = jax.export.symbolic_shape("b", constraints=["b >= 1"])
    params = {p: jax.ShapeDtypeStruct(s, jnp.float32) for p, s in trained.shapes.items()}
    pixels = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)

    def embed(parameters, pixels):
        return model.apply(trees.unflatten(parameters), {"pixels": pixels}, method="image")

    def patches(parameters, pixels):
        return model.apply(trees.unflatten(parameters), {"pixels": pixels}, method="image_tokens")[1]

    _write_program(folder / PROGRAM, embed, params, pixels)
    _write_program(folder / PATCHES, patches, params, pixels)
    _write_parameters(folder, trained)


def _write_program(path: pathlib.Path, function, *arguments) -> None:
    exported = jax.export.export(jax.jit(function), platforms=_PLATFORMS)(*arguments)
    path.write_bytes(exported.serialize())


def _write_parameters(folder: pathlib.Path, trained: Trained) -> None:
    """Writes the parameters and model.json."""
    np.savez(folder / PARAMETERS, **{path: trained.read(path) for path in trained.shapes})
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
