"""Folders of Hugging Face: TIPSv2 with both towers, and Dinov2 with and without registers."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from embed import documents
from embed.errors import DataError
from embed.interop import entries, tokenizer_files
from embed.interop.entries import only
from embed.interop.family import ACTIVATIONS, size
from embed.interop.known_entries import CONFIG
from embed.interop.source import matryoshka_sizes
from embed.interop.tensors import Reader
from embed.models.dual_encoder import DualEncoder, ImageEmbedder
from embed.models.embedder import Embedder
from embed.models.pooling import MeanPooling
from embed.models.tips_text import TipsText
from embed.models.vit import VisionTransformer
from embed.towers import names, sentence_folder, stored, towers
from embed.towers.names import Dialect
from embed.towers.towers import IMAGENET, KINDS, TIPS, ImageSource

_VISION_ENTRIES = CONFIG | entries.table(
    honoured=(
        "hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "hidden_act", "layer_norm_eps", "image_size",
        "patch_size", "use_swiglu_ffn", "num_register_tokens",
    ),
    no_effect=(
        "attention_probs_dropout_prob", "hidden_dropout_prob", "drop_path_rate", "layerscale_value", "out_features",
        "out_indices", "stage_names", "apply_layernorm", "reshape_hidden_states", "use_mask_token", "interpolate_antialias",
        "interpolate_offset", "_out_features", "_out_indices",
    ),
    refused={"qkv_bias": only(True), "num_channels": only(3)},
)  # fmt: skip
_TEXT_ENTRIES = CONFIG | entries.table(
    honoured=(
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
        "layer_norm_eps", "max_position_embeddings",
    ),
    no_effect=("attention_dropout", "pooling_epsilon", "pad_token_id", "bos_token_id", "eos_token_id"),
    refused={"scale_sqrt_depth": only(True)},
)  # fmt: skip


def read(path: pathlib.Path) -> ImageSource:
    """Returns what a folder with config.json and safetensors holds."""
    config = documents.read_json(path / "config.json")
    reader = stored.of_safetensors(path)
    return _both(path, config, reader) if config["model_type"] == "tipsv2" else _image_alone(path, config, reader)


_TEMPERATURE = "the learned temperature is left out, which no embedding depends on"


def _image_alone(path: pathlib.Path, config: dict, reader: Reader) -> ImageSource:
    """Returns a Dinov2, or the image tower of a TIPSv2."""
    prefix = _prefix(reader, "dinov2.", "dinov2_with_registers.", "vision_encoder.", "vision_model.", "backbone.", "")
    image, dialect, notes = _image(path, config, "", reader, prefix, config["model_type"])
    folder = sentence_folder.read(path, image.encoder.width, has_text=False)
    sizes = matryoshka_sizes(config, None, folder.sizes[-1] if folder.sizes else image.encoder.width)
    params = lambda: towers.image_params(reader, dialect, image, prefix, ()) | folder.kernels()  # noqa: E731
    return ImageSource(
        path,
        config["model_type"],
        tuple(reader.files),
        image.clone(projection=folder.sizes, matryoshka_dims=sizes),
        params,
        notes=(*notes, *folder.notes),
    )


def _both(path: pathlib.Path, config: dict, reader: Reader) -> ImageSource:
    """Returns both towers of a TIPSv2."""
    file = path / "config.json"
    vision, text = (config.get(f"{part}_config") for part in ("vision", "text"))
    if not isinstance(vision, dict) or not isinstance(text, dict):
        raise DataError(f"{file}: lacks vision_config or text_config; restore the file from its source")
    # The files have the names of TIPS' own code, the modules of transformers others.
    of_image, of_text = (
        _prefix(reader, "vision_encoder.", "vision_model."),
        _prefix(reader, "text_encoder.", "text_model."),
    )
    image, dialect, notes = _image(path, vision, "vision_config.", reader, of_image, "tipsv2")
    notes += entries.check(file, text, _TEXT_ENTRIES, "text_config.")
    embedder, max_length = _text_embedder(file, text)
    folder = sentence_folder.read(path, embedder.encoder.width, has_text=True)
    sizes = matryoshka_sizes(config, None, embedder.encoder.width)
    tokenizer = tokenizer_files.read(path, config, vocab_size=embedder.encoder.vocab_size)
    table = names.ORIGINAL_TEXT if of_text == "text_encoder." else names.TEXT

    def params() -> dict[str, np.ndarray]:
        other = {prefix: prefix.replace(".", r"\.") + ".*" for prefix in (of_image, of_text)}
        leaves = {
            "image": towers.image_params(reader, dialect, image, of_image, (other[of_text], "temperature")),
            "text": towers.text_params(reader, table, embedder, of_text, (other[of_image], "temperature")),
        }
        return {f"{tower}/{path}": array for tower, arrays in leaves.items() for path, array in arrays.items()}

    return ImageSource(
        path,
        "tipsv2",
        tuple(reader.files),
        DualEncoder(embedder, image, matryoshka_dims=sizes),
        params,
        tokenizer=tokenizer.tokenizer,
        max_length=max_length if folder.max_length is None else min(max_length, folder.max_length),
        prompts=folder.prompts,
        default_prompt_name=folder.default_prompt_name,
        notes=(*notes, *folder.notes, *tokenizer.notes, *([_TEMPERATURE] if "temperature" in reader.names() else [])),
    )


def _prefix(reader: Reader, *prefixes: str) -> str:
    """Returns the first of `prefixes` that a tensor has; the last one when none does."""
    return next((p for p in prefixes if any(name.startswith(p) for name in reader.names())), prefixes[-1])


def _image(
    path: pathlib.Path, config: dict, location: str, reader: Reader, prefix: str, kind: str
) -> tuple[ImageEmbedder, Dialect, list[str]]:
    """Returns the image tower that an object of config.json describes, the dialect of its tensors, and notes."""
    file = path / "config.json"
    notes = entries.check(file, config, _VISION_ENTRIES, location)
    dialect = towers.dialect(reader, prefix, path)
    processor, processor_notes = _processor(path, kind)
    image_size = processor.pop("image_size") or _square(file, config, "image_size", 224)
    fields = _vision_fields(file, config, kind) | processor
    fields["mask_token"] = prefix + dialect.mask in reader.names()
    return ImageEmbedder(VisionTransformer(**fields), image_size=image_size), dialect, notes + processor_notes


def _square(file, config: Mapping[str, Any], name: str, default: int) -> int:
    """Returns a size that may be written as two equal ones."""
    value = config.get(name, default)
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2 or sides[0] != sides[1]:
        raise DataError(
            f"{file}: {name} = {value!r}: only squares can be computed with; restore the file from its source"
        )
    return entries.whole_number(file, {name: sides[0]}, name, 1, 1 << 14)


def _hidden_size(width: int, ratio: float, gated: bool) -> int:
    """Returns the hidden size of an MLP; a gated one has two thirds of it, rounded up to a multiple of 8."""
    hidden = int(width * ratio)
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden


def mlp_ratio(width: int, hidden: int, gated: bool) -> float | None:
    """Returns the mlp_ratio of config.json for an MLP of that hidden size, an integer if one gives it; None where none does."""
    wanted = hidden * 3 / 2 if gated else hidden
    whole = int(wanted // width)
    ratios = (whole, whole + 1, wanted / width, (wanted + 0.5) / width)
    return next((ratio for ratio in ratios if _hidden_size(width, ratio, gated) == hidden), None)


def _vision_fields(file, config: dict, kind: str) -> dict[str, Any]:
    try:
        width = size(config, "hidden_size")
        patch = _square(file, config, "patch_size", 14)
        gated = entries.flag(file, config, "use_swiglu_ffn", False)
        act = "silu" if gated else _activation(file, config, "gelu")
        registers = config.get("num_register_tokens", {"dinov2_with_registers": 4}.get(kind, int(kind in TIPS)))
        if kind in TIPS and registers != 1:
            raise DataError(
                f"{file}: num_register_tokens = {registers}: TIPS' second class token is the only one; restore the file"
            )
        return {
            "patch_size": patch,
            "width": width,
            "num_layers": size(config, "num_hidden_layers"),
            "num_heads": size(config, "num_attention_heads"),
            "mlp_dim": _hidden_size(width, entries.real_number(file, config, "mlp_ratio", 0, 64, 4.0), gated),
            "gated": gated,
            "activation": act,
            "num_registers": 0 if kind in TIPS else registers,
            "position_grid": _square(file, config, "image_size", 224) // patch,
            "mask_token": True,
            "layer_scale": 1.0,
            "norm_eps": entries.real_number(file, config, "layer_norm_eps", 0, 1, 1e-6),
            **KINDS[kind],
        }
    except KeyError as e:
        raise DataError(f"{file}: lacks {e.args[0]!r}; complete it") from e


def _activation(file, config: Mapping[str, Any], default: str) -> str:
    value = config.get("hidden_act", default)
    if value not in ACTIVATIONS:
        raise DataError(f"{file}: hidden_act = {value!r} is not supported, only {', '.join(map(repr, ACTIVATIONS))}")
    return ACTIVATIONS[value]


def _text_embedder(file, config: dict) -> tuple[Embedder, int]:
    """Returns TIPS' text tower of a text_config, and the tokens that texts are cut at."""
    try:
        encoder = TipsText(
            vocab_size=size(config, "vocab_size"),
            width=size(config, "hidden_size"),
            num_layers=size(config, "num_hidden_layers"),
            num_heads=size(config, "num_attention_heads"),
            mlp_dim=size(config, "intermediate_size"),
            activation=_activation(file, config, "relu"),
            norm_eps=entries.real_number(file, config, "layer_norm_eps", 0, 1, 1e-5),
        )
    except KeyError as e:
        raise DataError(f"{file}: text_config lacks {e.args[0]!r}; complete it") from e
    return Embedder(encoder, MeanPooling()), size(config, "max_position_embeddings", 64)


_LINEAR = 2  # Pillow's number of the filter that images are resized by here
_FILTERS = {0: "the nearest pixel", 1: "Lanczos' filter", 3: "a cubic filter", 4: "a box", 5: "Hamming's filter"}
_NO_CROP = ("ViTImageProcessor",)  # processors that never crop; the others of Dinov2 do unless they are told not to


def _processor(path: pathlib.Path, kind: str) -> tuple[dict[str, Any], list[str]]:
    """Returns the colours' mean and deviation and the size of images (None where it is not said), and notes."""
    file = path / "preprocessor_config.json"
    config = documents.read_json(file) if file.is_file() else {}
    mean, std = (0.0,) * 3, (1.0,) * 3
    if config.get("do_normalize", kind not in TIPS):
        mean, std = (mean, std) if kind in TIPS else IMAGENET
        mean, std = (tuple(config.get(name, default)) for name, default in (("image_mean", mean), ("image_std", std)))
    if len(mean) != 3 or len(std) != 3 or not all(isinstance(x, int | float) for x in (*mean, *std)):
        raise DataError(f"{file}: image_mean or image_std has not three numbers; restore the file from its source")
    scale = config.get("rescale_factor", 1 / 255)
    if abs(scale * 255 - 1) > 1e-6:
        raise DataError(
            f"{file}: rescale_factor = {scale!r}: only 1/255 can be computed with; restore the file from its source"
        )
    for name in ("do_rescale", "do_resize"):
        if config.get(name, True) is not True:
            raise DataError(
                f"{file}: {name} = {config[name]!r}: images are resized and scaled to 0..1 here; restore the file"
            )
    sizes = [config[name] for name in ("crop_size", "size") if isinstance(config.get(name), dict)]
    sides = next((s for s in sizes if s.get("height") and s.get("height") == s.get("width")), {})
    if config.get("do_center_crop", kind not in TIPS and config.get("image_processor_type") not in _NO_CROP):
        notes = [
            f"{path}: images are resized to a square; the folder's own processor crops its middle, so that vectors differ"
        ]
    else:
        notes = []
    filter_number = config.get("resample", _LINEAR)
    if filter_number != _LINEAR:
        named = _FILTERS.get(filter_number, "another")
        notes.append(
            f"{file}: images are resized by a linear filter; the folder's own processor takes {named}, so that vectors differ "
            "slightly"
        )
    side = sides.get("height")
    colours = {"pixel_mean": tuple(map(float, mean)), "pixel_std": tuple(map(float, std))}
    return {**colours, "image_size": side if isinstance(side, int) and side > 0 else None}, notes
