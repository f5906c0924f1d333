"""A foreign checkpoint into a bundle. No torch, no pickle, nothing executed; the weights are read one tensor at a time."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from embed import bundles, checkpoints, files, trees
from embed.interop import source as sources
from embed.interop.tensors import Reader, Tensor, read_all
from embed.models import api

Progress = Callable[[float], None]


def load_params(source: sources.Source, progress: Progress = lambda share: None) -> dict[str, Any]:
    """Returns the nested parameters of a foreign folder, in float32."""
    model = api.build(source.module)
    shapes = trees.flatten(jax.eval_shape(model.init, jax.random.key(0)))
    encoder = {
        path.removeprefix("encoder/"): tuple(s.shape) for path, s in shapes.items() if path.startswith("encoder/")
    }
    family = source.family
    leaves = read_all(
        Reader(source.weights),
        family.tensors_of(source.module.encoder),
        encoder,
        layers=source.module.encoder.num_layers,
        prefixes=family.prefixes,
        ignored=family.ignored,
        progress=progress,
    )
    params = {f"encoder/{path}": array for path, array in leaves.items()}
    if source.module.decoder is not None:
        params |= _decoder_params(source, shapes)
    for i, dense_folder in enumerate(source.dense):
        path = f"projection_{i}/kernel"
        tensor = Tensor("linear.weight", (path,), inputs=1)
        params |= read_all(Reader(dense_folder), (tensor,), {path: tuple(shapes[path].shape)}, layers=0)
    return trees.unflatten({path: params[path] for path in shapes})


def _decoder_params(source: sources.Source, shapes) -> dict[str, Any]:
    """Returns the parameters of the folder's decoder, by their paths."""
    part = source.family.decoder
    decoder = {p.removeprefix("decoder/"): tuple(x.shape) for p, x in shapes.items() if p.startswith("decoder/")}
    leaves = read_all(
        Reader(source.weights),
        part.tensors,
        decoder,
        layers=source.module.decoder.num_layers,
        prefixes=part.prefixes,
        ignored=part.ignored,
    )
    return {f"decoder/{path}": array for path, array in leaves.items()}


def describe(source: sources.Source, name: str, text_normalization: str = "none") -> dict[str, Any]:
    """Returns model.json for a foreign folder; `name` is what the user called it.

    Other tools read texts as they are, so a model of theirs does too, unless another `text_normalization` is asked for.
    """
    model = api.build(source.module)
    paths = [*Reader(source.weights).files, *(p for d in source.dense for p in Reader(d).files)]
    description = bundles.model_json(
        model.description,
        tokenizer_options=source.tokenizer.options(),
        tokenizer_digest=source.tokenizer.digest,
        prompts=source.prompts,
        text_normalization=text_normalization,
        matryoshka_dims=model.matryoshka_dims,
        lengths={"query": source.max_length, "target": source.max_length},
        lineage={
            "converted_from": name,
            "weights": {p.relative_to(source.folder).as_posix(): files.sha256_file(p) for p in paths},
        },
    )
    if source.default_prompt_name is None:
        return description
    # What sentence-transformers does without being asked; an export says it again.
    return {**description, "default_prompt_name": source.default_prompt_name}


def convert(
    source: sources.Source,
    output,
    name: str,
    progress: Progress = lambda share: None,
    text_normalization: str = "none",
) -> pathlib.Path:
    """Writes the bundle `output` from a foreign folder; whole or not at all."""
    files.check_new(output)
    params = load_params(source, progress)
    contents = bundles.contents(
        describe(source, name, text_normalization), source.tokenizer.filename, source.tokenizer.content()
    )
    return checkpoints.write_bundle(output, jax.tree.map(np.asarray, params), contents)
