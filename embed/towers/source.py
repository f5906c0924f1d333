"""A foreign tower of images, or a pair of towers, read and understood: TIPSv2, Dinov2 and EmbeddingGemma 2 of Hugging Face, TIPS'
.npz, ONNX."""

import pathlib
from typing import Any

from embed import documents
from embed.errors import DataError
from embed.towers import embedding_gemma2, hugging_face, single_files, stored
from embed.towers.towers import KINDS, ImageSource


def is_one(path) -> bool:
    """Returns whether a folder or file holds a tower that `read` reads."""
    path = pathlib.Path(path)
    if path.is_file():
        return path.suffix in (".npz", ".onnx")
    if not path.is_dir():
        return False
    config = path / "config.json"
    if config.is_file():
        return documents.read_json(config).get("model_type") in KINDS or embedding_gemma2.is_one(path)
    return any(path.glob("*.npz"))


def takes_options(path) -> bool:
    """Returns whether `read` takes options of texts for what a folder holds."""
    return pathlib.Path(path).is_dir() and embedding_gemma2.is_one(pathlib.Path(path))


def read(path, **options: Any) -> ImageSource:
    """Returns what a folder of Hugging Face, a folder with TIPS' .npz files, or an .npz or ONNX file of one tower holds.

    TIPS' files are named *_vision.npz and *_text.npz, and the vocabulary beside them is tokenizer.model. `options` are those of
    `interop.source.read`, where `takes_options` says so. Raises DataError, one line, for whatever would be computed differently
    from the tool that wrote it.
    """
    path = pathlib.Path(path)
    if takes_options(path):
        return embedding_gemma2.read(path, **options)
    if path.is_file():
        if path.suffix == ".onnx":
            return single_files.of_onnx(path, stored.of_onnx(path))
        return single_files.of_npz(path, path, None)
    if (path / "config.json").is_file():
        return hugging_face.read(path)
    files = {kind: sorted(path.glob(f"*{kind}*.npz")) for kind in ("vision", "text")}
    for kind, paths in files.items():
        if len(paths) > 1:
            raise DataError(
                f"{path}: has several files of the {kind} tower ({', '.join(p.name for p in paths)}); keep one"
            )
    if not files["vision"]:
        raise DataError(f"{path}: has no file *vision*.npz, the image tower of TIPS; download it")
    return single_files.of_npz(path, files["vision"][0], files["text"][0] if files["text"] else None)
