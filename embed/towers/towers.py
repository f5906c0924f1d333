"""The fields and parameters of towers from foreign arrays, and what a foreign folder or file is read as."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from embed import trees
from embed.data import tokenizers
from embed.errors import DataError
from embed.interop.tensors import Tensor, read_all
from embed.models import api
from embed.models.dual_encoder import DualEncoder, ImageEmbedder
from embed.models.embedder import Embedder
from embed.models.mixed_embedder import MixedEmbedder
from embed.towers import names
from embed.towers.names import Dialect

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of colours
# How a grid of positions is resized, and how many class tokens there are.
KINDS: dict[str, dict[str, Any]] = {
    "tipsv2": {"position_resize": "linear_antialias", "num_class_tokens": 2, "class_position": False},
    "tipsv2_vision_model": {"position_resize": "linear_antialias", "num_class_tokens": 2, "class_position": False},
    "dinov2": {"position_resize": "cubic", "num_class_tokens": 1, "class_position": True},
    "dinov2_with_registers": {"position_resize": "cubic_antialias", "num_class_tokens": 1, "class_position": True},
}
TIPS = ("tipsv2", "tipsv2_vision_model")  # both towers, and the image tower alone
PLAIN = {"query": "{content}", "document": "{content}", "none": "{content}"}


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """What a foreign folder or file holds. `params()` reads its weights; `tokenizer` is None of images alone."""

    location: pathlib.Path
    kind: str
    files: tuple[pathlib.Path, ...]
    module: DualEncoder | ImageEmbedder | MixedEmbedder
    params: Callable[[], dict[str, np.ndarray]]
    tokenizer: tokenizers.Tokenizer | None = None
    max_length: int | None = None
    prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    default_prompt_name: str | None = None
    notes: tuple[str, ...] = ()


def _shapes(module) -> dict[str, tuple[int, ...]]:
    model = api.build(module)
    return {p: tuple(s.shape) for p, s in trees.flatten(jax.eval_shape(model.init, jax.random.key(0))).items()}


def image_params(reader, dialect: Dialect, image: ImageEmbedder, prefix: str, ignored) -> dict[str, np.ndarray]:
    """Returns the parameters of an image tower by their paths."""
    encoder = image.encoder
    shapes = {p.removeprefix("encoder/"): s for p, s in _shapes(image).items()}
    others = [prefix + name for name in dialect.others]
    # A prefix that is no name of a module is matched as it is.
    leaves = read_all(
        reader,
        dialect.layers,
        {p: s for p, s in shapes.items() if p not in names.OTHERS},
        layers=encoder.num_layers,
        prefixes=(prefix,),
        ignored=(*(name.replace(".", r"\.") for name in (*dialect.others, *others)), *ignored),
    )
    needed = [dialect.class_token, dialect.positions, dialect.patches]
    needed += [dialect.registers] if encoder.num_registers or not encoder.class_position else []
    needed += [dialect.mask] if encoder.mask_token else []
    missing = [prefix + name for name in needed if prefix + name not in reader.names()]
    if missing:
        raise DataError(
            f"{reader.folder}: its tensors are not those of its configuration: missing {', '.join(missing)}"
        )
    try:
        leaves |= names.other_arrays(dialect, {name: reader.read(prefix + name) for name in needed}, encoder)
    except (DataError, ValueError, IndexError) as e:
        raise DataError(f"{reader.folder}: {e}; get the whole checkpoint, with its own config.json") from e
    for path, shape in shapes.items():
        if leaves[path].shape != shape:
            raise DataError(
                f"{reader.folder}: {path} is {list(leaves[path].shape)}, the configuration says {list(shape)}; get the whole "
                "checkpoint, with its own config.json"
            )
    return {f"encoder/{path}": leaves[path] for path in shapes}


def text_params(reader, tensors: tuple[Tensor, ...], text: Embedder, prefix: str, ignored) -> dict[str, np.ndarray]:
    """Returns the parameters of a text tower by their paths."""
    shapes = {p.removeprefix("encoder/"): s for p, s in _shapes(text).items()}
    leaves = read_all(
        reader,
        tensors,
        shapes,
        layers=text.encoder.num_layers,
        prefixes=(prefix,),
        ignored=(r".*position_ids", *ignored),
    )
    return {f"encoder/{path}": x for path, x in leaves.items()}


_HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16, 1536: 24}  # of TIPS' and Dinov2's published widths


def heads(width: int, location) -> int:
    """Returns the number of attention heads of a published tower of this width; another width is a DataError."""
    if width not in _HEADS:
        known = ", ".join(map(str, _HEADS))
        raise DataError(
            f"{location}: width {width} is none of a published tower ({known}), and the file does not say its heads"
        )
    return _HEADS[width]


def layers(reader, pattern: str, prefix: str) -> int:
    """Returns how many layers have a tensor whose name is `pattern` with the number of the layer."""
    count = 0
    present = set(reader.names())
    while prefix + pattern.format(count) in present:
        count += 1
    return count


def fields_of(reader, dialect: Dialect, prefix: str, kind: str, location) -> dict[str, Any]:
    """Returns the fields of a vision transformer from the shapes of its arrays."""
    width, _, patch, _ = reader.shape(prefix + dialect.patches)
    side = round((reader.shape(prefix + dialect.positions)[1] - 1) ** 0.5)
    by_path = {tensor.paths[0].removeprefix("stack/layers/"): tensor.name for tensor in dialect.layers}
    gated = "mlp/gate/kernel" in by_path
    first = by_path["mlp/gate/kernel" if gated else "mlp/up/kernel"].format(0)
    hidden = reader.shape(prefix + first)[0]
    has_scale = prefix + by_path["attention_layer_scale/scale"].format(0) in reader.names()
    return {
        "patch_size": patch,
        "width": width,
        "num_layers": layers(reader, by_path["attention_norm/scale"], prefix),
        "num_heads": heads(width, location),
        "mlp_dim": hidden // 2 if gated and "w12" in first else hidden,
        "gated": gated,
        "activation": "silu" if gated else "gelu",
        "position_grid": side,
        "mask_token": prefix + dialect.mask in reader.names(),
        "layer_scale": 1.0 if has_scale else None,
        **KINDS[kind],
    }


def dialect(reader, prefix: str, location) -> Dialect:
    """Returns the dialect of a tower's arrays; none is a DataError that begins with `location`."""
    try:
        return names.dialect_of(reader.names(), prefix)
    except DataError as e:
        raise DataError(f"{location}: {e}") from e
