"""A small image-text objective with all that an objective may have: a learned temperature, a masked-image term in sums, a
moving-average teacher with a centre, a frozen offset, and noise from the key. For tests of the trainer."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from embed.objectives.moving_average import moving_average
from embed.types import Batch, Outputs, Variables
from embed.vectors import normalize

PATCHES, PATCH, EMBEDDING, PROTOTYPES, WORDS = 9, 12, 8, 16, 50


@dataclasses.dataclass(frozen=True)
class ImageText:
    """Images and captions. The trainer sets `model`, which is not used: the parameters are the objective's own."""

    decay: float = 0.9
    model: Any = None

    def init(self, key, start=None) -> Variables:
        keys = jax.random.split(key, 4)
        params = {
            "image": jax.random.normal(keys[0], (PATCH, EMBEDDING)),
            "text": jax.random.normal(keys[1], (WORDS, EMBEDDING)),
            "head": jax.random.normal(keys[2], (EMBEDDING, PROTOTYPES)),
            "temperature": jnp.float32(0.5),
        }
        params = params if start is None else start
        teacher = jax.tree.map(jnp.copy, {name: params[name] for name in ("image", "head")})
        moving = {"teacher": teacher, "centre": jnp.zeros(PROTOTYPES)}
        return Variables(params, moving, {"offset": jax.random.normal(keys[3], (PATCH,))})

    def axes(self) -> Variables:
        image, head = (None, "width"), ("width", "hidden")
        params = {"image": image, "text": ("vocab", "width"), "head": head, "temperature": ()}
        moving = {"teacher": {"image": image, "head": head}, "centre": ("hidden",)}
        return Variables(params, moving, {"offset": (None,)})

    def forward(self, variables: Variables, batch: Batch, key, step) -> Outputs:
        params, moving = variables.params, variables.moving
        x = batch["patches"] + variables.frozen["offset"]
        seen = jnp.where(batch["mask"][..., None], 0.0, x) + 0.01 * jax.random.normal(key, x.shape, x.dtype)
        student = jnp.tanh(seen @ params["image"])
        target = jnp.tanh(x @ moving["teacher"]["image"]) @ moving["teacher"]["head"]
        target = jax.lax.stop_gradient(target)
        probabilities = jax.nn.softmax((target - moving["centre"]) / 0.2)
        entropy = -jnp.sum(probabilities * jax.nn.log_softmax(student @ params["head"]), -1)
        rows = {
            "image": normalize(jnp.mean(student, 1)),
            "caption": normalize(jnp.mean(params["text"][batch["caption"]], 1)),
        }
        sums = {
            "masked_image": jnp.sum(entropy * batch["mask"]),
            "masked": jnp.sum(batch["mask"], dtype=x.dtype),
            "centre": jnp.sum(target, (0, 1)),
            "patches": jnp.asarray(target.shape[0] * PATCHES, x.dtype),
        }
        return Outputs(rows, sums)

    def loss(self, params, outputs: Outputs, batch: Batch, step):
        logits = outputs.rows["image"] @ outputs.rows["caption"].T / params["temperature"]
        both = jnp.diag(jax.nn.log_softmax(logits, 0)) + jnp.diag(jax.nn.log_softmax(logits, 1))
        masked_image = outputs.sums["masked_image"] / outputs.sums["masked"]
        contrastive = -jnp.mean(both) / 2
        return contrastive + 2 * masked_image, {"contrastive": contrastive, "masked_image": masked_image}

    def update(self, variables: Variables, outputs: Outputs, step):
        moving, params = variables.moving, variables.params
        centre = outputs.sums["centre"] / outputs.sums["patches"]
        teacher = {name: params[name] for name in ("image", "head")}
        return {
            "teacher": moving_average(moving["teacher"], teacher, self.decay, step),
            "centre": self.decay * moving["centre"] + (1 - self.decay) * centre,
        }

    def served(self, variables):
        return variables

    def export(self, variables: Variables):
        return variables.params


def batch(seed: int = 0, size: int = 16, shards: int = 1, micro_batches: int = 1) -> Batch:
    """Returns a batch of images and captions, laid out as training lays it out."""
    random = np.random.default_rng(seed)
    arrays = {
        "patches": random.normal(size=(size, PATCHES, PATCH)).astype(np.float32),
        "caption": random.integers(0, WORDS, (size, 5)).astype(np.int32),
        "mask": random.random((size, PATCHES)) < 0.75,
    }

    def cut(x):
        # Micro-batch k holds the rows k * B/micro_batches and after, whatever the mesh.
        parts = x.reshape(micro_batches, shards, -1, *x.shape[1:])
        return np.moveaxis(parts, 0, 1)

    return Batch({name: cut(x) for name, x in arrays.items()})
