"""A foreign tower of images, or a pair of towers, written as a bundle."""

import pathlib
from typing import Any

from embed import bundles, checkpoints, files, trees
from embed.models import api
from embed.towers.towers import ImageSource


def describe(source: ImageSource, name: str, text_normalization: str = "none") -> dict[str, Any]:
    """Returns model.json of a tower of images, or of a pair of towers; `name` is what the user called it."""
    model = api.build(source.module)
    lineage = {"converted_from": name, "weights": {path.name: files.sha256_file(path) for path in source.files}}
    if source.tokenizer is None:
        return bundles.image_model_json(model.description, matryoshka_dims=model.matryoshka_dims, lineage=lineage)
    default = {} if source.default_prompt_name is None else {"default_prompt_name": source.default_prompt_name}
    return bundles.model_json(
        model.description,
        tokenizer_options=source.tokenizer.options(),
        tokenizer_digest=source.tokenizer.digest,
        prompts=dict(source.prompts),
        text_normalization=text_normalization,
        matryoshka_dims=model.matryoshka_dims,
        lengths={"query": source.max_length, "target": source.max_length},
        lineage=lineage,
        **default,
    )


def convert(source: ImageSource, output, name: str, text_normalization: str = "none") -> pathlib.Path:
    """Writes the bundle `output` of a tower of images, or of a pair of towers; whole or not at all."""
    files.check_new(output)
    params = trees.unflatten(source.params())
    tokenizer = () if source.tokenizer is None else (source.tokenizer.filename, source.tokenizer.content())
    return checkpoints.write_bundle(
        output, params, bundles.contents(describe(source, name, text_normalization), *tokenizer)
    )
