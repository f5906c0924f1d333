"""EmbeddingGemma 2 with its tower of images: folders of transformers in, and out again.

The text tower alone is a family of `interop`. Audio is left out.
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from embed import documents, files, trees
from embed.data.tokenizers import Tokenizer
from embed.errors import ConfigError, DataError
from embed.interop import convert, entries, families
from embed.interop import safetensors_writer as safetensors
from embed.interop import sentence_transformers as sentence
from embed.interop import source as sources
from embed.interop.entries import only
from embed.interop.family import epsilon, flag, positive, size, write_fields
from embed.interop.known_entries import CONFIG
from embed.interop.origin import Trained
from embed.interop.tensors import Reader, Tensor, foreign_shapes, foreign_tensors, linear, norm, read_all
from embed.models import api
from embed.models.gemma_vision import GemmaVision
from embed.models.mixed_embedder import ImageTokens, MixedEmbedder
from embed.towers.towers import ImageSource

KIND = "embedding_gemma2"
_VISION = "gemma4_vision"
_SIZES = {
    "patch_size": "patch_size",
    "width": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "mlp_dim": "intermediate_size",
    "pooling": "pooling_kernel_size",
    "max_positions": "position_embedding_size",
}
_SOFT_TOKENS = 280  # of an image at most, where no file says it
_KNOWN_SOFT_TOKENS = (70, 140, 280, 560, 1120)  # what the processor of transformers takes
_ENTRIES = CONFIG | entries.table(
    honoured=(*_SIZES.values(), "rms_norm_eps", "standardize", "rope_parameters"),
    no_effect=("attention_dropout", "default_output_length", "global_head_dim", "max_position_embeddings"),
    refused={
        "hidden_activation": only("gelu_pytorch_tanh"),
        "attention_bias": only(False, None),
        "use_clipped_linears": only(False, advice="linear maps that cut their values are not supported"),
    },
)
_TEXT, _TOWER, _INPUT = "language_model.", "vision_tower.", "embed_vision."
_LAYER, _OURS = "encoder.layers.{}", "stack/layers"


@dataclasses.dataclass(frozen=True)
class Axial(Tensor):
    """A tensor of heads [..., K] with rotary positions of two axes, the column and the row of a patch.

    transformers rotates each half of a head by itself: the first half by the column, the second by the row. Here value i is rotated
    with value i + K / 2, so the second and the third quarter of each head are exchanged.
    """

    def split(self, array, shapes):
        """Returns our parameters, from the foreign tensor."""
        return [_exchanged(part) for part in super().split(array, shapes)]

    def join(self, arrays):
        """Returns the foreign tensor, from our parameters."""
        return super().join([_exchanged(array) for array in arrays])


def _exchanged(array: np.ndarray) -> np.ndarray:
    """Returns an array [..., K] with the second and the third quarter of its last axis exchanged."""
    quarters = array.reshape(*array.shape[:-1], 4, -1)
    return np.ascontiguousarray(quarters[..., [0, 2, 1, 3], :]).reshape(array.shape)


def _map(theirs: str, ours: str, inputs: int = 1) -> tuple[Tensor, Tensor]:
    return linear(f"{_LAYER}.{theirs}.linear", f"{_OURS}/{ours}", inputs)


TENSORS = (
    Tensor("patch_embedder.input_proj.weight", ("patches/kernel",), inputs=3),
    Tensor("patch_embedder.position_embedding_table", ("positions",)),
    Axial(f"{_LAYER}.self_attn.q_proj.linear.weight", (f"{_OURS}/attention/query/kernel",), inputs=1),
    Axial(f"{_LAYER}.self_attn.k_proj.linear.weight", (f"{_OURS}/attention/key/kernel",), inputs=1),
    Axial(f"{_LAYER}.self_attn.q_norm.weight", (f"{_OURS}/attention/query_norm/scale",)),
    Axial(f"{_LAYER}.self_attn.k_norm.weight", (f"{_OURS}/attention/key_norm/scale",)),
    *_map("self_attn.v_proj", "attention/value"),
    *_map("self_attn.o_proj", "attention/output", inputs=2),
    *(_tensor for part in ("gate", "up", "down") for _tensor in _map(f"mlp.{part}_proj", f"mlp/{part}")),
    *norm(f"{_LAYER}.input_layernorm", f"{_OURS}/attention_norm"),
    *norm(f"{_LAYER}.post_attention_layernorm", f"{_OURS}/attention_post_norm"),
    *norm(f"{_LAYER}.pre_feedforward_layernorm", f"{_OURS}/mlp_norm"),
    *norm(f"{_LAYER}.post_feedforward_layernorm", f"{_OURS}/mlp_post_norm"),
    Tensor("std_bias", ("mean",)),
    Tensor("std_scale", ("inverse_deviation",)),
)
_IMAGE_INPUT = Tensor(f"{_INPUT}embedding_projection.weight", ("image_input/kernel",), inputs=1)
_PREFIXES = ("", "model.")


def is_one(folder: pathlib.Path) -> bool:
    """Returns whether a folder holds an EmbeddingGemma 2 with a tower of images."""
    config = documents.read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    return config.get("model_type") == KIND and config.get("vision_config") is not None


def read(folder: pathlib.Path, **options: Any) -> ImageSource:
    """Returns what a folder holds. `options` are those of `interop.source.read`, for the text model."""
    text = sources.read(folder, parts=("vision_config",), **options)
    location = text.weights / "config.json"
    config = documents.read_json(location)
    vision = config["vision_config"]
    if not isinstance(vision, dict) or vision.get("model_type", _VISION) != _VISION:
        raise DataError(
            f"{location}: vision_config is no object of the kind {_VISION}; restore the file from its source"
        )
    notes = entries.check(location, vision, _ENTRIES, "vision_config.")
    try:
        encoder = GemmaVision(**_fields(vision))
    except KeyError as e:
        raise DataError(f"{location}: vision_config lacks {e.args[0]!r}; complete it") from e
    except DataError as e:
        raise DataError(f"{text.weights}/{e}") from e
    side = _image_size(text.weights, encoder)
    try:
        resizing = _resizing(side, encoder)
    except ConfigError as e:
        raise DataError(f"{text.weights}: its image processor does not fit its tower: {e}") from e
    module = MixedEmbedder(
        text=text.module,
        image=ImageTokens(encoder, side),
        **{field: _piece(text.tokenizer, config, entry, default) for field, (entry, default) in _PIECES.items()},
    )
    reader = Reader(text.weights)

    def params() -> dict[str, np.ndarray]:
        of_text = trees.flatten(convert.load_params(text))
        return {f"text/{path}": array for path, array in of_text.items()} | _image_params(reader, module)

    return ImageSource(
        folder,
        KIND,
        tuple(reader.files),
        module,
        params,
        tokenizer=text.tokenizer,
        max_length=text.max_length,
        prompts=text.prompts,
        default_prompt_name=text.default_prompt_name,
        notes=(*text.notes, *notes, resizing),
    )


# Our field, the entry of config.json, and its default in transformers.
_PIECES = {
    "before": ("boi_token_id", 255_999),
    "after": ("eoi_token_id", 258_882),
    "placeholder": ("image_token_id", 258_880),
}


def _fields(vision: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {"pooling_kernel_size": 3, "patch_size": 16, "position_embedding_size": 10_240, "head_dim": 64}
    rope = vision.get("rope_parameters") or {}
    if not isinstance(rope, dict) or rope.get("rope_type", "axial") != "axial":
        raise DataError("config.json: vision_config.rope_parameters are not axial; get a checkpoint of Gemma 4's tower")
    return {
        **{ours: size(vision, theirs, defaults.get(theirs)) for ours, theirs in _SIZES.items()},
        "norm_eps": epsilon(vision, "rms_norm_eps", 1e-6),
        "rope_base": positive(rope, "rope_theta", 100.0),
        "standardize": flag(vision, "standardize"),
    }


def _image_size(folder: pathlib.Path, encoder: GemmaVision) -> int:
    """Returns the side of the largest square image that the folder's image processor makes."""
    names = ("processor_config.json", "preprocessor_config.json")
    path = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    given = documents.read_json(path) if path.is_file() else {}
    given = given.get("image_processor", given)
    for entry, field in (("patch_size", "patch_size"), ("pooling_kernel_size", "pooling")):
        if given.get(entry, getattr(encoder, field)) != getattr(encoder, field):
            raise DataError(
                f"{path}: {entry} = {given[entry]!r}, and config.json says {getattr(encoder, field)}; restore the files from "
                "their source"
            )
    tokens = entries.whole_number(path, given, "max_soft_tokens", 1, 1 << 16, _SOFT_TOKENS)
    side = math.isqrt(tokens) * encoder.patch_size * encoder.pooling
    size_entry = given.get("size")  # written by `write`; transformers' own folders have none
    if isinstance(size_entry, dict) and isinstance(size_entry.get("height"), int):
        side = size_entry["height"]
    return side


def _resizing(side: int, encoder: GemmaVision) -> str:
    return (
        f"images are resized to squares of {side} x {side} pixels, {encoder.tokens(side, side)} vectors each; the processor of "
        "transformers keeps the ratio of an image's sides and resizes by another filter, so that its vectors differ"
    )


def _piece(tokenizer: Tokenizer, config: Mapping[str, Any], entry: str, default: int) -> str:
    """Returns the piece of the vocabulary that an entry of config.json numbers."""
    number = config.get(entry, default)
    piece = tokenizer.token(number) if isinstance(number, int) and not isinstance(number, bool) else None
    if piece is None:
        raise DataError(
            f"{tokenizer.path}: has no token {number!r}, which config.json names as {entry}; get the tokenizer of this checkpoint"
        )
    return piece


def _image_params(reader: Reader, module: MixedEmbedder) -> dict[str, np.ndarray]:
    """Returns the parameters of the tower of images, and of the map into the text, by their paths."""
    shapes = _shapes(module)
    below = {path.removeprefix("image/encoder/"): s for path, s in shapes.items() if path.startswith("image/")}
    # A name is matched with the prefix and without it.
    others = [rf"(model\.)?{part}\..*" for part in ("language_model", "audio_tower", "embed_audio")]
    of_tower = read_all(
        reader,
        TENSORS,
        below,
        layers=module.image.encoder.num_layers,
        prefixes=tuple(prefix + _TOWER for prefix in _PREFIXES),
        ignored=(*others, r"(model\.)?embed_vision\..*"),
    )
    of_input = read_all(
        reader,
        (_IMAGE_INPUT,),
        {"image_input/kernel": shapes["image_input/kernel"]},
        layers=0,
        prefixes=_PREFIXES,
        ignored=(*others, r"(model\.)?vision_tower\..*"),
    )
    return {**{f"image/encoder/{path}": array for path, array in of_tower.items()}, **of_input}


def _shapes(module: MixedEmbedder) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all parameters by their paths."""
    shapes = jax.eval_shape(api.build(module).init, jax.random.key(0))
    return {path: tuple(x.shape) for path, x in trees.flatten(shapes).items()}


def write(folder: pathlib.Path, trained: Trained, dtype: str = "float32") -> None:
    """Writes a folder that transformers reads as EmbeddingGemma 2; `dtype` is the type of the weights."""
    module, text = trained.module, trained.text
    family = families.of_encoder(module.text.encoder)
    if family.model_type != "embedding_gemma2_text":
        raise DataError(
            f"{trained.folder}: its texts are read by {type(module.text.encoder).__name__}; transformers has no such model with a "
            "tower of images"
        )
    if module.text.projection:
        raise DataError(
            f"{trained.folder}: has linear maps after pooling, which an EmbeddingGemma 2 with images does not have"
        )
    numbers = {entry: _token_id(trained, field) for field, (entry, _) in _PIECES.items()}
    sentence.write(folder, text, dtype)
    config = documents.read_json(folder / "config.json")
    outer = {name: config.pop(name) for name in ("torch_dtype", "is_matryoshka", "matryoshka_dimensions")}
    files.write_json(
        folder / "config.json",
        {
            "architectures": ["EmbeddingGemma2Model"],
            "model_type": KIND,
            "text_config": {name: value for name, value in config.items() if name != "architectures"},
            "vision_config": _config(module.image.encoder),
            "audio_config": None,
            **numbers,
            **outer,
        },
    )
    _write_tensors(folder / "model.safetensors", trained, family, dtype)
    files.write_json(folder / "processor_config.json", _processor(module.image))


def _config(encoder: GemmaVision) -> dict[str, Any]:
    return {
        "model_type": _VISION,
        **write_fields(encoder, _SIZES),
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": encoder.norm_eps,
        "rope_parameters": {"rope_type": "axial", "rope_theta": encoder.rope_base},
        "standardize": encoder.standardize,
        "use_clipped_linears": False,
    }


def _processor(image: ImageTokens) -> dict[str, Any]:
    encoder = image.encoder
    return {
        "processor_class": "EmbeddingGemma2Processor",
        "image_seq_length": image.tokens(),
        "feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor"},
        "video_processor": {"video_processor_type": "EmbeddingGemma2VideoProcessor"},
        "image_processor": {
            "image_processor_type": "Gemma4ImageProcessor",
            "patch_size": encoder.patch_size,
            "pooling_kernel_size": encoder.pooling,
            "max_soft_tokens": next((n for n in _KNOWN_SOFT_TOKENS if n >= image.tokens()), _KNOWN_SOFT_TOKENS[-1]),
            "size": {"height": image.image_size, "width": image.image_size},
            "do_convert_rgb": True,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
        },
    }


def _write_tensors(path: pathlib.Path, trained: Trained, family, dtype: str) -> None:
    """Writes the weights of both towers over the file that `sentence.write` wrote for the text tower."""
    encoder, vision = trained.module.text.encoder, trained.module.image.encoder
    table = family.tensors_of(encoder)
    parts: Sequence[tuple[str, str, Sequence[Tensor], int]] = (
        ("text/encoder/", _TEXT, table, encoder.num_layers),
        ("image/encoder/", _TOWER, TENSORS, vision.num_layers),
        ("", "", (_IMAGE_INPUT,), 0),
    )
    below = {
        head: {
            p.removeprefix(head): s
            for p, s in trained.shapes.items()
            if p.startswith(head) and (head or p.startswith("image_input/"))
        }
        for head, *_ in parts
    }
    shapes = {
        prefix + name: shape
        for head, prefix, tensors, layers in parts
        for name, shape in foreign_shapes(tensors, below[head], layers).items()
    }

    def arrays() -> Iterator[tuple[str, np.ndarray]]:
        for head, prefix, tensors, layers in parts:
            read = lambda path, head=head: trained.read(head + path)  # noqa: E731
            for name, array in foreign_tensors(tensors, below[head], layers, read):
                yield prefix + name, array

    safetensors.write(path, shapes, arrays(), dtype)


def _token_id(trained: Trained, field: str) -> int:
    """Returns the id of the token that stands before, after or for an image; a DataError without one."""
    piece = getattr(trained.module, field)
    number = None if piece is None else trained.text.tokenizer.token_id(piece)
    if number is None:
        raise DataError(
            f"{trained.folder}: MixedEmbedder.{field} = {piece!r} is no token of the vocabulary, and an EmbeddingGemma 2 has one; "
            "train with a token for it"
        )
    return number
