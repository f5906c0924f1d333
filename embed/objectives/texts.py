"""The texts of a batch to embeddings: from packed rows back to one vector a text, under the name of its feature."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from embed import sharding
from embed.types import Batch, Model, Params

INDEX = "_index"  # ends the names of the arrays that say at which place of the packed rows a feature's texts are


def embed_texts(model: Model, params: Params, batch: Batch, key=None) -> dict[str, Float[Array, "b *N E"]]:
    """Returns {feature: unit vectors in float32} for each text feature of a micro-batch (`types.Objective.forward`).

    [b, E] for a feature of one text, [b, N, E] for a list of texts. `key` draws dropout; None draws none.
    """
    tokens, segment_ids = batch["tokens"], batch["segment_ids"]
    if batch.max_segments is None:  # a row without a text gets one token, so that models need not think of empty texts
        segment_ids = (segment_ids > 0) | (jnp.arange(tokens.shape[1]) == 0)
    inputs = {"tokens": tokens, "segment_ids": segment_ids}
    found = model.apply(params, inputs, key=key, max_segments=batch.max_segments)
    shards = sharding.shards_here()
    # The rows of a shard hold the shard's own texts: looked up shard by shard, no vector leaves its device.
    vectors = found.reshape(shards, -1, found.shape[-1])

    def of(index):
        picked = jax.vmap(lambda rows, at: rows[at])(vectors, index.reshape(shards, -1, *index.shape[1:]))
        return sharding.constrain(picked.reshape(-1, *picked.shape[2:]), "batch", *(None,) * (picked.ndim - 2))

    return {name.removesuffix(INDEX): of(index) for name, index in batch.items() if name.endswith(INDEX)}
