"""The items of a batch to embeddings, under the names of their features: texts from packed rows, images, and texts with images."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from embed import sharding
from embed.errors import ConfigError
from embed.types import EMBEDDINGS, INTERMEDIATE, Batch, Model, Params

# Suffixes of the arrays of a feature: those that index its texts among the segments of the packed rows of their shard, and the
# images in its texts (`data.interleaved`).
INDEX, IMAGES = "_index", "_images"


def embed_items(
    model: Model, params: Params, batch: Batch, names: Sequence[str], key=None, with_intermediate: bool = False
) -> dict[str, Float[Array, "b *N _"]]:
    """Returns `embed_texts` of the batch, and unit vectors [b, E] of those of `names` that are images, uint8 [b, S, S, 3]."""
    images = [name for name in names if name in batch and batch[name].ndim == 4]
    keys = [key] * (1 + len(images)) if key is None or not images else list(jax.random.split(key, 1 + len(images)))
    embeddings = embed_texts(model, params, batch, keys[0], with_intermediate) if "tokens" in batch else {}
    for name, image_key in zip(images, keys[1:]):
        embeddings[name] = model.apply(params, {"pixels": batch[name]}, method="image", key=image_key)
    return embeddings


def embed_texts(
    model: Model, params: Params, batch: Batch, key=None, with_intermediate: bool = False
) -> dict[str, Float[Array, "b *N _"]]:
    """Returns {feature: unit vectors in float32} for each text feature of a micro-batch (`types.Objective.forward`).

    [b, E] for a feature of one text, [b, N, E] for a list of texts. `with_intermediate` adds the intermediate embeddings of the
    same forward pass as `<feature>_intermediate`. `key` draws dropout; None draws none. The mesh that the batch was laid out for
    must be set (`jax.set_mesh`).
    """
    tokens, segment_ids = batch["tokens"], batch["segment_ids"]
    if batch.max_segments is None:  # a row without a text gets one token, so that models need not think of empty texts
        segment_ids = (segment_ids > 0) | (jnp.arange(tokens.shape[1]) == 0)
    inputs = {"tokens": tokens, "segment_ids": segment_ids}
    method = EMBEDDINGS if with_intermediate else "text"
    names = [name.removesuffix(INDEX) for name in batch if name.endswith(INDEX)]
    mixed = [name for name in names if name + IMAGES in batch]
    if mixed:
        method = _mixed_method(model, with_intermediate)
        image_keys = [key] * len(mixed)
        if key is not None:
            key, *image_keys = jax.random.split(key, 1 + len(mixed))
        inputs["inserted"] = sum(_inserted(model, params, batch, name, k) for name, k in zip(mixed, image_keys))
    vectors = model.apply(params, inputs, method=method, key=key, max_segments=batch.max_segments)
    final, intermediate = vectors if with_intermediate else (vectors, None)
    embeddings = _by_feature(final, batch)
    if with_intermediate:
        embeddings |= {name + INTERMEDIATE: x for name, x in _by_feature(intermediate, batch).items()}
    return embeddings


def _mixed_method(model: Model, with_intermediate: bool) -> str:
    if with_intermediate:
        raise ConfigError(
            "a loss needs the intermediate embedding, which texts with images do not have; remove that loss"
        )
    if "mixed" not in model.methods:
        raise ConfigError(
            "the data has images in its texts, and the model does not read them; set DualEncoder.max_images to as many as a text "
            "may have"
        )
    return "mixed"


def _by_feature(vectors: Array, batch: Batch) -> dict[str, Array]:
    """Returns the vectors of each text feature, of those of the packed rows."""
    shards = sharding.shards_here()
    # The rows of a shard hold the texts of that shard. Looked up shard by shard, no vector leaves its device.
    vectors = vectors.reshape(shards, -1, vectors.shape[-1])

    def of(index):
        texts = jax.vmap(lambda shard, index: shard[index])(vectors, index.reshape(shards, -1, *index.shape[1:]))
        return sharding.constrain(texts.reshape(-1, *texts.shape[2:]), "batch", *(None,) * (texts.ndim - 2))

    return {name.removesuffix(INDEX): of(index) for name, index in batch.items() if name.endswith(INDEX)}


def _inserted(model: Model, params: Params, batch: Batch, name: str, key) -> Float[Array, "R L D"]:
    """Returns the vectors of a feature's images at their tokens in the packed rows, and zeros elsewhere."""
    pixels, shards = batch[name + IMAGES], sharding.shards_here()
    n, count = pixels.shape[:2]
    vectors = model.apply(params, {"pixels": pixels.reshape(-1, *pixels.shape[2:])}, method="inserted", key=key)
    _, numbers, slots, width = vectors.shape
    max_images = model.description["max_images"]
    if count > max_images:
        raise ConfigError(
            f"{name!r} has up to {count} images in a text, and the model reads {max_images}; set max_images of both to the same"
        )
    # For image k take the vectors of number k, or the only ones.
    vectors = vectors.reshape(n, count, numbers, slots, width)
    vectors = vectors[:, jnp.arange(count), jnp.arange(count) % numbers]

    def of_shard(tokens, segment_ids, index, vectors):
        return scatter_images(tokens, segment_ids, index, vectors, batch.max_segments or 1)

    split = lambda x: x.reshape(shards, -1, *x.shape[1:])  # noqa: E731
    tokens, segment_ids = batch["tokens"], batch["segment_ids"].astype(jnp.int32)
    scattered = jax.vmap(of_shard)(split(tokens), split(segment_ids), split(batch[name + INDEX]), split(vectors))
    return sharding.constrain(scattered.reshape(*tokens.shape, width), "batch", "length", None)


def scatter_images(
    tokens: Int[Array, "R L"],
    segment_ids: Int[Array, "R L"],
    index: Int[Array, " n"],
    vectors: Float[Array, "n K T D"],
    max_segments: int,
) -> Float[Array, "R L D"]:
    """Returns the vectors of the tokens below 0, and zeros elsewhere.

    Token -1 - (k * T + t) of text i stands for `vectors[i, k, t]`. `index` says which segment, among those of all rows, text i is;
    tokens of other segments get zeros.
    """
    rows, (n, count, slots, width) = tokens.shape[0], vectors.shape
    segment = jnp.arange(rows)[:, None] * max_segments + jnp.maximum(segment_ids, 1) - 1
    text_of = jnp.full(rows * max_segments, n, jnp.int32).at[index].set(jnp.arange(n, dtype=jnp.int32))
    text = text_of[segment]
    slot = jnp.clip(-1 - tokens, 0, count * slots - 1)
    scattered = vectors.reshape(n, count * slots, width)[jnp.minimum(text, n - 1), slot]
    return jnp.where(((tokens < 0) & (text < n))[..., None], scattered, 0.0)
