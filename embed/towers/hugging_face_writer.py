"""A tower of images, or both towers of TIPS, as a folder that transformers and sentence-transformers load.

transformers has TIPS' pair of towers (`tipsv2`), its image tower alone, and Dinov2 with and without registers. What none of them
computes is refused. modules.json makes the folder one that sentence-transformers 6 loads as a model of images, or as a CLIP-like
model of images and texts.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from embed import files
from embed.errors import DataError
from embed.interop import safetensors_writer as safetensors
from embed.interop.family import FOREIGN_ACTIVATIONS
from embed.interop.origin import Trained
from embed.interop.sentence_transformers import write_dense, write_prompts, write_tokenizer
from embed.interop.tensors import foreign_shapes, foreign_tensors
from embed.models.dual_encoder import ImageEmbedder
from embed.models.pooling import MeanPooling
from embed.models.tips_text import TipsText
from embed.towers import names, sentence_folder
from embed.towers.hugging_face import mlp_ratio
from embed.towers.towers import KINDS

_CLASSES = {
    "tipsv2": "Tipsv2Model",
    "tipsv2_vision_model": "Tipsv2VisionModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
}
_WHOLE_RATIO = ("dinov2", "dinov2_with_registers")  # their mlp_ratio is an integer
_BOTH = {"image": "vision_encoder.", "text": "text_encoder."}  # what the tensors of a pair of towers begin with
_SENTENCE = "sentence_transformers.base.modules."


def write(folder: pathlib.Path, trained: Trained, dtype: str = "float32") -> None:
    """Writes the folder's files; `dtype` is the type of the weights. What transformers does not compute is a DataError."""
    image, text = trained.image, trained.text
    kind = kind_of(trained)
    dialect = names.dialects(image.module.encoder.gated)[_dialect(kind, image.module.encoder.gated)]
    config = _vision_config(image.module)
    if text is not None:
        config = {"vision_config": {"model_type": "tipsv2_vision_model", **config}, "text_config": _text_config(text)}
    files.write_json(
        folder / "config.json",
        {
            "architectures": [_CLASSES[kind]],
            "model_type": kind,
            **config,
            "torch_dtype": dtype,
            "is_matryoshka": len(trained.matryoshka_dims) > 1,
            "matryoshka_dimensions": trained.matryoshka_dims,
        },
    )
    _write_tensors(folder / "model.safetensors", trained, dialect, dtype)
    files.write_json(folder / "preprocessor_config.json", _processor(image.module))
    if text is not None:
        files.write_json(folder / "processor_config.json", {"processor_class": "Tipsv2Processor"})
        write_tokenizer(folder, text)
        write_prompts(folder, text)
    _write_modules(folder, trained, dtype)


def kind_of(trained: Trained) -> str:
    """Returns the model_type of transformers that computes what a model computes; none is a DataError that says why."""
    image, text = trained.image.module, trained.text
    encoder = image.encoder
    if text is not None:
        kind, why = "tipsv2", _no_tips(encoder) or _no_tips_text(text.module) or _projected(image, text.module)
    elif encoder.num_class_tokens == 2 and not encoder.class_position:
        kind, why = "tipsv2_vision_model", _no_tips(encoder)
    else:
        kind = "dinov2_with_registers" if encoder.num_registers else "dinov2"
        why = "" if encoder.num_class_tokens == 1 and encoder.class_position else _tokens(encoder)
    side = encoder.position_grid * encoder.patch_size
    if not why and image.image_size % encoder.patch_size:
        why = f"images of {image.image_size} pixels, which are no multiple of the patch of {encoder.patch_size}"
    if not why and image.image_size != side and encoder.position_resize != KINDS[kind]["position_resize"]:
        why = f"positions of a grid that is resized as {encoder.position_resize!r}, where {kind} does it as "
        why += repr(KINDS[kind]["position_resize"])
    if not why and encoder.gated and encoder.activation != "silu":
        why = f"a gated MLP with {encoder.activation!r}, where transformers has silu"
    ratio = mlp_ratio(encoder.width, encoder.mlp_dim, encoder.gated)
    if not why and ratio is None:
        why = f"a gated MLP of {encoder.mlp_dim} hidden units, which transformers makes a multiple of 8"
    if not why and kind in _WHOLE_RATIO and not isinstance(ratio, int):
        why = f"an MLP of {encoder.mlp_dim} hidden units, which {kind} makes a multiple of the width of {encoder.width}"
    if why:
        raise DataError(f"{trained.folder}: has {why}; transformers has no such model: export with --format=stablehlo")
    return kind


def _tokens(encoder) -> str:
    position = "a position" if encoder.class_position else "no position"
    return f"{encoder.num_class_tokens} class tokens with {position} and {encoder.num_registers} registers"


def _no_tips(encoder) -> str:
    """Returns what an image tower has that TIPS' has not; '' where there is nothing."""
    is_one = encoder.num_class_tokens == 2 and not encoder.class_position and not encoder.num_registers
    return "" if is_one else _tokens(encoder)


def _no_tips_text(text) -> str:
    """Returns what a text tower has that TIPS' has not; '' where there is nothing."""
    if not isinstance(text.encoder, TipsText):
        return f"{type(text.encoder).__name__} as its text tower"
    return "" if isinstance(text.pooling, MeanPooling) else f"{type(text.pooling).__name__} of texts"


def _projected(image: ImageEmbedder, text) -> str:
    return "linear maps behind its towers" if image.projection or text.projection else ""


def _dialect(kind: str, gated: bool) -> str:
    """Returns the names that transformers itself gives to the tensors of its files."""
    return ("original" if gated else "saved") if kind.startswith("tipsv2") else "hub"


def _vision_config(image: ImageEmbedder) -> dict[str, Any]:
    encoder = image.encoder
    return {
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.num_layers,
        "num_attention_heads": encoder.num_heads,
        "mlp_ratio": mlp_ratio(encoder.width, encoder.mlp_dim, encoder.gated),
        "use_swiglu_ffn": encoder.gated,
        "hidden_act": "gelu" if encoder.gated else FOREIGN_ACTIVATIONS[encoder.activation],
        "layer_norm_eps": encoder.norm_eps,
        "patch_size": encoder.patch_size,
        "image_size": encoder.position_grid * encoder.patch_size,
        "num_channels": 3,
        "qkv_bias": True,
        **(
            {}
            if encoder.class_position and not encoder.num_registers
            else {"num_register_tokens": encoder.num_registers or 1}
        ),
    }


def _text_config(text: Trained) -> dict[str, Any]:
    encoder = text.module.encoder
    return {
        "model_type": "tipsv2_text_model",
        "vocab_size": encoder.vocab_size,
        "hidden_size": encoder.width,
        "intermediate_size": encoder.mlp_dim,
        "num_hidden_layers": encoder.num_layers,
        "num_attention_heads": encoder.num_heads,
        "hidden_act": FOREIGN_ACTIVATIONS[encoder.activation],
        "layer_norm_eps": encoder.norm_eps,
        "max_position_embeddings": text.max_length,
        "pad_token_id": text.tokenizer.pad_id,
        "scale_sqrt_depth": True,
    }


def _processor(image: ImageEmbedder) -> dict[str, Any]:
    """Returns preprocessor_config.json: images in RGB as squares, by the filter that the model was trained with."""
    encoder = image.encoder
    is_scaled = any(encoder.pixel_mean) or set(encoder.pixel_std) != {1.0}
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": image.image_size, "width": image.image_size},
        "resample": 2,  # Pillow's number of its linear filter, which is antialiased
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": is_scaled,
        "image_mean": list(encoder.pixel_mean),
        "image_std": list(encoder.pixel_std),
    }


def _write_tensors(path: pathlib.Path, trained: Trained, dialect: names.Dialect, dtype: str) -> None:
    image, text = trained.image, trained.text
    prefixes = dict.fromkeys(_BOTH, "") if text is None else _BOTH
    shapes = {prefixes["image"] + name: shape for name, shape in vision_shapes(image, dialect).items()}
    if text is not None:
        below, layers = _below_encoder(text), text.module.encoder.num_layers
        of_text = foreign_shapes(names.ORIGINAL_TEXT, below, layers)
        shapes |= {prefixes["text"] + name: shape for name, shape in of_text.items()}
        shapes["temperature"] = ()

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        # transformers embeds by the first class token. They have no positions, so that their order is free.
        for name, array in vision_tensors(image, dialect, image.module.class_token):
            yield prefixes["image"] + name, array
        if text is not None:
            for name, array in text_tensors(text):
                yield prefixes["text"] + name, array
            yield "temperature", np.float32(1)  # no embedding depends on the model's, which is not part of it

    safetensors.write(path, shapes, tensors(), dtype)


def _below_encoder(tower: Trained) -> dict[str, tuple[int, ...]]:
    return {p.removeprefix("encoder/"): s for p, s in tower.shapes.items() if p.startswith("encoder/")}


def _layer_scales(encoder) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the scales of branches where a tower has none: foreign towers always have them."""
    parts = ("attention", "mlp") if encoder.layer_scale is None else ()
    return {f"stack/layers/{part}_layer_scale/scale": (encoder.num_layers, encoder.width) for part in parts}


def vision_shapes(image: Trained, dialect: names.Dialect) -> dict[str, tuple[int, ...]]:
    """Returns {foreign name: shape} of an image tower in the order of `vision_tensors`."""
    encoder = image.module.encoder
    below = _below_encoder(image)
    layers = {p: s for p, s in below.items() if p not in names.OTHERS} | _layer_scales(encoder)
    others = names.foreign_others(dialect, {p: np.empty(s, np.float32) for p, s in below.items() if p in names.OTHERS})
    shapes = {name: array.shape for name, array in others.items()}
    return shapes | foreign_shapes(dialect.layers, layers, encoder.num_layers)


def vision_tensors(image: Trained, dialect: names.Dialect, class_token: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (foreign name, array) of an image tower, of its class tokens (at most two) number `class_token` first."""
    encoder = image.module.encoder
    below, scales = _below_encoder(image), _layer_scales(encoder)
    others = {path: image.read(f"encoder/{path}") for path in below if path in names.OTHERS}
    if class_token:
        others["class_tokens"] = others["class_tokens"][::-1]
    yield from names.foreign_others(dialect, others).items()
    layers = {p: s for p, s in below.items() if p not in names.OTHERS} | scales

    def read(path: str) -> np.ndarray:
        return np.ones(scales[path], np.float32) if path in scales else image.read(f"encoder/{path}")

    yield from foreign_tensors(dialect.layers, layers, encoder.num_layers, read)


def text_tensors(text: Trained) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (foreign name, array) of TIPS' text tower in the names of its PyTorch code."""
    below, layers = _below_encoder(text), text.module.encoder.num_layers
    return foreign_tensors(names.ORIGINAL_TEXT, below, layers, lambda path: text.read(f"encoder/{path}"))


def _write_modules(folder: pathlib.Path, trained: Trained, dtype: str) -> None:
    """Writes modules.json and what its modules need."""
    image, text = trained.image, trained.text
    modules = [("", "transformer.Transformer")]
    for number in range(len(image.module.projection)):
        modules.append((write_dense(folder, image, number, dtype, first=1), "dense.Dense"))
    modules.append((f"{len(modules)}_Normalize", "normalize.Normalize"))
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": _SENTENCE + kind} for i, (path, kind) in enumerate(modules)
    ]
    files.write_atomic(folder / "modules.json", json.dumps(entries, indent=2) + "\n")
    length = {} if text is None else {"max_seq_length": text.max_length}
    files.write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction",
            "modality_config": sentence_folder.modality_config(text is not None),
            "module_output_name": "sentence_embedding",
            **length,
        },
    )
    if text is None:
        files.write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
