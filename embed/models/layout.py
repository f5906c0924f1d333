"""How parameters lie while a model is only served by a CPU: each layer's apart, the maps into attention as one.

XLA copies a layer out of the stacked arrays before it multiplies with it, in every call, and three narrow products take
longer than a wide one: together a third of the time of a small model. A stack runs the layers as it finds them; checkpoints
and training know the stacked arrays alone.
"""

import jax
import jax.numpy as jnp

from embed.types import Params

INPUTS = ("query", "key", "value")
FUSED = "query_key_value"


def layer(number: int) -> str:
    """Returns the name of one layer's parameters."""
    return f"layer_{number}"


def apart(params: Params) -> Params:
    """Returns the parameters of an embedder with its encoder's layers apart; whatever else there is stays as it is."""
    encoder = params["encoder"]
    return {**params, "encoder": {**encoder, "stack": _layers(encoder["stack"]["layers"])}}


@jax.jit
def _layers(stacked: Params) -> Params:
    depth = len(jax.tree.leaves(stacked)[0])
    return {layer(i): _fused(jax.tree.map(lambda x, i=i: x[i], stacked)) for i in range(depth)}


def _fused(block: Params) -> Params:
    """Returns a layer's parameters with its maps into attention side by side: [D, (H + 2G) K], and such a bias."""
    attention = block["attention"]
    kept = {name: x for name, x in attention.items() if name not in INPUTS}
    flat = {"kernel": lambda x: x.reshape(x.shape[0], -1), "bias": lambda x: x.reshape(-1)}
    maps = {
        part: jnp.concatenate([flat[part](attention[name][part]) for name in INPUTS], -1) for part in attention["query"]
    }
    return {**block, "attention": {**kept, FUSED: maps}}
