"""TIPS' objective on a tiny pair of towers, and batches of it."""

import functools

import numpy as np
from training_batches import examples, rows

from embed.losses.contrastive import Contrastive
from embed.losses.symmetric import Symmetric
from embed.models import api
from embed.models.dual_encoder import DualEncoder, ImageEmbedder
from embed.models.embedder import Embedder
from embed.models.heads import PrototypeHead
from embed.models.pooling import MeanPooling
from embed.models.tips_text import TipsText
from embed.models.vit import VisionTransformer
from embed.objectives.image_text import ImageText
from embed.types import Batch

SIZE, LOCAL, CROPS, PATCHES = 6, 4, 3, 9


def tower(stochastic_depth=0.0, **fields):
    image = VisionTransformer(2, 8, 1, 2, 12, position_grid=3, stochastic_depth=stochastic_depth, **fields)
    text = Embedder(TipsText(vocab_size=50, width=8, num_layers=1, num_heads=2, mlp_dim=12), MeanPooling())
    return api.build(DualEncoder(text, ImageEmbedder(image, image_size=SIZE)))


HEAD = PrototypeHead(num_prototypes=11, hidden=6, features=5)


@functools.cache
def whole_objective() -> ImageText:
    """Returns the objective with all its terms; made when a test asks for it, as building takes seconds."""
    loss = Symmetric(Contrastive(0.2, learn_temperature=True))
    return ImageText(loss, class_head=HEAD, patch_head=HEAD, model=tower(mask_token=True))


def batch(seed=0, size=8, shards=1, parts=1) -> Batch:
    """Returns a batch of images with two captions each."""
    arrays = rows(examples(seed, size, 0, 49), 0, shards=shards, parts=parts, max_segments=4)
    names = {"query": "caption", "target": "synthetic_caption"}
    renamed = {}
    for name, x in arrays.items():
        side = next((s for s in names if name.startswith(s)), None)
        renamed[name if side is None else names[side] + name.removeprefix(side)] = x
    random = np.random.default_rng(seed)
    images = {
        "image_global": random.integers(0, 256, (size, SIZE, SIZE, 3)).astype(np.uint8),
        "image_local": random.integers(0, 256, (size, CROPS, LOCAL, LOCAL, 3)).astype(np.uint8),
        "image_mask": random.uniform(size=(size, PATCHES)) < 0.75,
    }
    cut = {
        name: np.moveaxis(x.reshape(parts, shards, size // (shards * parts), *x.shape[1:]), 0, 1)
        for name, x in images.items()
    }
    return Batch({**renamed, **cut}, arrays.max_segments)
