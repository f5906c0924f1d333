"""What makes a folder of parameters a model: model.json, the tokenizer file, and how a MODEL on a command line is found.

MODEL is a run folder, a checkpoint step folder or a bundle. A bundle is data: opening one executes nothing from it.
"""

import pathlib
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from embed import architectures, documents, files, ranges
from embed.errors import DataError

FORMAT = 1
UNSERVED = ("decoder",)  # parts of the parameters that embeddings do not use


class _Part(TypedDict):
    type: ranges.Text


class _Embedder(TypedDict):
    """The description of an Embedder; `models.api.from_description` checks its parts' fields."""

    type: ranges.Text
    encoder: _Part


class _DualEncoder(TypedDict):
    type: ranges.Text
    text: _Embedder
    image: _Embedder


class _Rule(TypedDict):
    pattern: str
    bits: Literal[4, 8]
    block_size: ranges.Size | None


class _Quantization(TypedDict):
    """The values that the parameters have; `models.quantization.from_description` reads it."""

    name: str
    rules: list[_Rule]


class _Description(TypedDict):
    """What every model.json holds."""

    format: int
    architecture: _Embedder
    tokenizer: dict[str, Any]
    prompts: dict[str, str]
    lengths: Annotated[dict[str, ranges.Count], Meta(min_length=1)]
    lineage: dict[str, Any]
    matryoshka_dims: Annotated[list[ranges.Size], Meta(min_length=1)]
    text_normalization: NotRequired[str]
    default_prompt_name: NotRequired[str | None]
    quantization: NotRequired[_Quantization]


class _DualDescription(_Description):
    architecture: _DualEncoder


class _ImageDescription(TypedDict):
    """What the model.json of a model of images alone holds."""

    format: int
    architecture: _Embedder
    lineage: dict[str, Any]
    matryoshka_dims: Annotated[list[ranges.Size], Meta(min_length=1)]


BEST = "best.json"


class _Best(TypedDict):
    step: ranges.Natural
    score: float
    metric: str
    scored_on: NotRequired[str]


def model_json(
    model_description: dict,
    *,
    tokenizer_options: dict,
    tokenizer_digest: str,
    prompts: dict,
    matryoshka_dims,
    lengths: dict,
    lineage: dict,
    text_normalization: str = "NFC, strip",
    **others: Any,
) -> dict[str, Any]:
    """Returns the content of model.json. `text_normalization` is a name of `text.NORMALIZATIONS`."""
    return {
        "format": FORMAT,
        "architecture": model_description,
        "matryoshka_dims": list(matryoshka_dims),
        "tokenizer": {**tokenizer_options, "digest": tokenizer_digest},
        "prompts": prompts,
        "text_normalization": text_normalization,
        "lengths": lengths,
        "lineage": lineage,
        **others,
    }


def image_model_json(model_description: dict, *, matryoshka_dims, lineage: dict) -> dict[str, Any]:
    """Returns the content of model.json of a model of images alone."""
    return {
        "format": FORMAT,
        "architecture": model_description,
        "matryoshka_dims": list(matryoshka_dims),
        "lineage": lineage,
    }


def contents(
    description: dict, tokenizer_filename: str | None = None, tokenizer_content: bytes = b"", **others: Any
) -> dict[str, bytes]:
    """Returns the small files of a step or bundle: model.json, the tokenizer if there is one, and each of `others` as NAME.json."""
    contents_by_name = {"model.json": documents.json_bytes(description)}
    if tokenizer_filename is not None:
        contents_by_name[tokenizer_filename] = tokenizer_content
    return contents_by_name | {f"{name}.json": documents.json_bytes(value) for name, value in others.items()}


def resolve(path) -> pathlib.Path:
    """Returns the folder with the parameters that MODEL names.

    A run folder gives its best checkpoint when evaluations during training chose one, else its newest. Whoever reads it
    verifies it.
    """
    folder = _folder_of(pathlib.Path(path))
    if "ema" in files.read_manifest(folder).get("trees", {}):
        raise DataError(
            f"{folder}: an older version of embed saved a moving average beside the parameters here, and this version would "
            "serve the parameters; export the model with the version that trained it"
        )
    return folder


def _folder_of(path: pathlib.Path) -> pathlib.Path:
    if (path / files.MANIFEST).is_file() and (path / "model.json").is_file():
        return path
    steps = path / "checkpoints"
    if steps.is_dir():
        best = read_best(path)
        if best is not None and (steps / str(best["step"]) / files.MANIFEST).is_file():
            return steps / str(best["step"])
        committed = files.committed_steps(steps)
        if committed:
            return steps / str(committed[-1])
        raise DataError(f"{path}: the run has no checkpoint yet; train it first")
    if (path / "config.json").is_file() or (path / "modules.json").is_file():
        raise DataError(f"{path}: a folder of another tool; read it in first: embed convert {path} BUNDLE")
    raise DataError(f"{path}: not a run folder, checkpoint step or bundle (no model.json with {files.MANIFEST} in it)")


def read_best(run_dir) -> dict | None:
    """Returns {"step", "score", "metric", "scored_on"?} of a run's best checkpoint, or None."""
    path = pathlib.Path(run_dir) / BEST
    return documents.read_json(path, _Best) if path.is_file() else None


def read_model_json(folder) -> dict[str, Any]:
    """Returns a bundle's model.json, checking that this version can read it."""
    path = pathlib.Path(folder) / "model.json"
    description = documents.read_json(path)
    if description.get("format") != FORMAT:
        raise DataError(f"{path}: format {description.get('format')!r}, this version reads {FORMAT}; upgrade embed")
    architecture = description.get("architecture")
    documents.check(description, _kind_of(architecture), str(path))
    # Bundles of older versions do not say it: all normalised so.
    return {"text_normalization": "NFC, strip", **description}


def _kind_of(architecture: Any) -> type:
    """Returns what model.json must hold for a model of this architecture."""
    if not isinstance(architecture, dict):
        return _Description
    if any(name in architecture for name in architectures.TOWERS):
        return _DualDescription
    return _ImageDescription if architectures.takes_no_text(architecture) else _Description


def tokenizer_file(folder) -> pathlib.Path:
    """Returns the tokenizer file of a bundle, the one that its model.json is of."""
    kind = read_model_json(folder)["tokenizer"].get("kind")
    path = pathlib.Path(folder) / ("tokenizer.model" if kind == "sentencepiece" else "tokenizer.json")
    if not path.is_file():
        raise DataError(f"{folder}: holds no {path.name}, which model.json is of; restore it from its source")
    return path
