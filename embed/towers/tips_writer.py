"""The towers of TIPS as .npz files in the names of its JAX code or of its PyTorch code, for whoever runs that code."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from embed.data.tokenizers import SentencePiece
from embed.errors import DataError
from embed.interop.origin import Trained
from embed.models.pooling import MeanPooling
from embed.models.tips_text import TipsText
from embed.towers import hugging_face_writer, names, scenic

VISION, TEXT, VOCABULARY = "tips_vision.npz", "tips_text.npz", "tokenizer.model"
JAX, PYTORCH = "tips-jax", "tips-pytorch"
_LENGTH = 64  # tokens that TIPS' code cuts texts at
# What TIPS' code fixes and its files do not say. Its PyTorch code has the exact GELU where its JAX code has tanh.
_VISION: Mapping[str, Any] = {
    "num_class_tokens": 2,
    "num_registers": 0,
    "class_position": False,
    "position_resize": "linear_antialias",
    "pixel_mean": (0.0,) * 3,
    "pixel_std": (1.0,) * 3,
    "norm_eps": 1e-6,
}
_VISION_OF: Mapping[str, Mapping[str, Any]] = {
    JAX: {"layer_scale": None, "activation": "gelu_tanh"},
    PYTORCH: {"activation": "gelu"},
}
_TEXT_OF: Mapping[str, Mapping[str, Any]] = {
    JAX: {"activation": "relu", "norm_eps": 1e-6},
    PYTORCH: {"activation": "relu", "norm_eps": 1e-5},
}


def write(folder: pathlib.Path, trained: Trained, code: str) -> None:
    """Writes the files of the towers that a model has; `code` is JAX or PYTORCH. What TIPS does not compute is a DataError.

    The learned temperature is no part of a model. The files have 1, and no cosine depends on it.
    """
    check(trained, code)
    image, text = trained.image, trained.text
    encoder = image.module.encoder
    if code == JAX:
        arrays = scenic.foreign(_below_encoder(image), scenic.vision_names(encoder.num_layers, encoder.gated))
    else:
        arrays = dict(hugging_face_writer.vision_tensors(image, names.dialects(encoder.gated)["original"]))
    np.savez(folder / VISION, **arrays)
    if text is None:
        return
    if code == JAX:
        arrays = scenic.foreign(_below_encoder(text), scenic.text_names(text.module.encoder.num_layers))
        temperature = scenic.TEMPERATURE
    else:
        arrays, temperature = dict(hugging_face_writer.text_tensors(text)), "temperature"
    np.savez(folder / TEXT, **arrays, **{temperature: np.float32(1)})
    (folder / VOCABULARY).write_bytes(text.tokenizer.content())


def notes(trained: Trained) -> list[str]:
    """Returns what a user must know of the files."""
    if trained.text is None or trained.text.max_length == _LENGTH:
        return []
    length = trained.text.max_length
    return [
        f"the code of TIPS cuts texts at {_LENGTH} tokens unless it is told otherwise, and the model at {length}: tell it"
    ]


def _below_encoder(tower: Trained) -> dict[str, np.ndarray]:
    return {path.removeprefix("encoder/"): tower.read(path) for path in tower.shapes if path.startswith("encoder/")}


def check(trained: Trained, code: str) -> None:
    """Raises DataError, with the field of the model, where TIPS' code computes something else."""
    reason = _difference(trained.image.module, code) or (_text_difference(trained.text, code) if trained.text else "")
    if reason:
        raise DataError(f"{trained.folder}: {reason}; export with another --format")


def _difference(image, code: str) -> str:
    """Returns what of an image tower TIPS' code computes differently; '' where there is nothing."""
    encoder = image.encoder
    if image.class_token:
        return f"it embeds images by class token {image.class_token}, and TIPS by its first one"
    if image.projection:
        return "the image tower has a linear map behind it, and TIPS' has none"
    if image.image_size % encoder.patch_size:
        return f"images of {image.image_size} pixels are no multiple of the patch of {encoder.patch_size}"
    expected = {**_VISION, **_VISION_OF[code], **({"activation": "silu"} if encoder.gated else {})}
    return _fields(encoder, expected, code)


def _text_difference(text: Trained, code: str) -> str:
    """Returns what of a text tower TIPS' code computes differently; '' where there is nothing."""
    module, tokenizer = text.module, text.tokenizer
    if not isinstance(module.encoder, TipsText) or not isinstance(module.pooling, MeanPooling) or module.projection:
        return f"the text tower is not that of TIPS ({type(module.encoder).__name__}, {type(module.pooling).__name__})"
    if not isinstance(tokenizer, SentencePiece) or tokenizer.add_bos or tokenizer.add_eos or not tokenizer.lower_case:
        return (
            "TIPS lower-cases texts and cuts them by a SentencePiece vocabulary, without tokens at their beginning and end, and "
            "the tokenizer of the model does not"
        )
    return _fields(module.encoder, _TEXT_OF[code], code)


def _fields(encoder, expected: Mapping[str, Any], code: str) -> str:
    for name, value in expected.items():
        actual = getattr(encoder, name)
        if (tuple(actual) if isinstance(actual, list) else actual) != value:
            return f"{type(encoder).__name__}.{name} is {actual!r}, and the code of {code} computes with {value!r}"
    return ""
