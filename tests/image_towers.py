"""Tiny TIPS and Dinov2 towers with drawn weights, and their arrays in foreign names."""

import jax
import numpy as np

from embed import trees
from embed.interop.tensors import foreign_tensors
from embed.models import api
from embed.models.dual_encoder import ImageEmbedder
from embed.models.embedder import Embedder
from embed.models.pooling import MeanPooling
from embed.models.tips_text import TipsText
from embed.models.vit import VisionTransformer
from embed.towers import names, scenic

WIDTH, HEADS, LAYERS = 16, 2, 2


def image_tower(**fields) -> ImageEmbedder:
    fields = {
        "patch_size": 4,
        "width": WIDTH,
        "num_layers": LAYERS,
        "num_heads": HEADS,
        "mlp_dim": 24,
        "position_grid": 3,
        **fields,
    }
    vit = VisionTransformer(**fields)
    return ImageEmbedder(vit, image_size=vit.position_grid * vit.patch_size)


def text_tower(vocab_size: int = 60, **fields) -> Embedder:
    fields = {"width": WIDTH, "num_layers": LAYERS, "num_heads": HEADS, "mlp_dim": 24, **fields}
    return Embedder(TipsText(vocab_size=vocab_size, **fields), MeanPooling())


def drawn(module, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns drawn parameters by their paths."""
    model, random = api.build(module), np.random.default_rng(seed)
    shapes = trees.flatten(jax.eval_shape(model.init, jax.random.key(0)))
    return {path: random.normal(size=s.shape).astype(np.float32) * 0.3 for path, s in shapes.items()}


def below(params: dict[str, np.ndarray], prefix: str = "encoder/") -> dict[str, np.ndarray]:
    return {path.removeprefix(prefix): x for path, x in params.items()}


def dialect_arrays(dialect: names.Dialect, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of an image tower in the names of a dialect."""
    own = below(params)
    others = names.foreign_others(dialect, own)
    listed = {path: x for path, x in own.items() if path not in names.OTHERS}
    shapes = {path: x.shape for path, x in listed.items()}
    return others | dict(foreign_tensors(dialect.layers, shapes, LAYERS, listed.__getitem__))


def text_arrays(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of a text tower in the names of TIPS' PyTorch code."""
    own = below(params)
    shapes = {path: x.shape for path, x in own.items()}
    return dict(foreign_tensors(names.ORIGINAL_TEXT, shapes, LAYERS, own.__getitem__))


def scenic_arrays(image: dict[str, np.ndarray], gated: bool = False) -> dict[str, np.ndarray]:
    """Returns the arrays of an image tower in the names of TIPS' JAX code."""
    return scenic.foreign(below(image), scenic.vision_names(LAYERS, gated))


def scenic_text_arrays(text: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return scenic.foreign(below(text), scenic.text_names(LAYERS))
