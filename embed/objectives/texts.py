"""The texts of a batch to embeddings: from packed rows back to one vector a text, under the name of its feature."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from embed import sharding
from embed.types import EMBEDDINGS, INTERMEDIATE, Batch, Model, Params

# Suffix of the arrays that index the texts of a feature among the segments of the packed rows of their shard.
INDEX = "_index"


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
    vectors = model.apply(params, inputs, method=method, key=key, max_segments=batch.max_segments)
    final, intermediate = vectors if with_intermediate else (vectors, None)
    embeddings = _by_feature(final, batch)
    if with_intermediate:
        embeddings |= {name + INTERMEDIATE: x for name, x in _by_feature(intermediate, batch).items()}
    return embeddings


def _by_feature(vectors: Array, batch: Batch) -> dict[str, Array]:
    """Returns the vectors of each text feature, of those of the packed rows."""
    shards = sharding.shards_here()
    # The rows of a shard hold the texts of that shard. Looked up shard by shard, no vector leaves its device.
    vectors = vectors.reshape(shards, -1, vectors.shape[-1])

    def of(index):
        texts = jax.vmap(lambda shard, index: shard[index])(vectors, index.reshape(shards, -1, *index.shape[1:]))
        return sharding.constrain(texts.reshape(-1, *texts.shape[2:]), "batch", *(None,) * (texts.ndim - 2))

    return {name.removesuffix(INDEX): of(index) for name, index in batch.items() if name.endswith(INDEX)}
