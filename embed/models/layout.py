"""How parameters lie while a model is only served by a CPU: each layer's apart, the maps into attention as one.

XLA copies a layer out of the stacked arrays before it multiplies with it, in every call, and three narrow products take
longer than a wide one: together a third of the time of a small model. A stack runs the layers as it finds them; checkpoints
and training know the stacked arrays alone.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from embed.types import Params

INPUTS = ("query", "key", "value")
FUSED = "query_key_value"
LAYERS, PERIODS, LAST = "layers", "periods", "last"  # of `transformer.Stack`, and of `periods.PeriodStack`
LOCAL, GLOBAL = "local", "global"  # in a period


def layer(number: int) -> str:
    """Returns the name of one layer's parameters."""
    return f"layer_{number}"


def is_known(stack: Mapping[str, Any]) -> bool:
    """Returns whether `apart` knows how the layers of a stack of parameters lie."""
    return not {LAYERS, PERIODS, LAST}.isdisjoint(stack)


def apart(params: Params) -> Params:
    """Returns the parameters of an embedder with its encoder's layers apart; whatever else there is stays as it is."""
    encoder = params["encoder"]
    layers = {name: x for name, x in encoder["stack"].items() if name in (LAYERS, PERIODS, LAST)}
    others = {name: x for name, x in encoder["stack"].items() if name not in layers}
    return {**params, "encoder": {**encoder, "stack": {**others, **_layers(layers)}}}


@jax.jit
def _layers(stack: Params) -> Params:
    return {layer(i): _fused(block) for i, block in enumerate(_blocks(stack))}


def _blocks(stack: Params) -> Iterator[Params]:
    """Yields the layers in their order."""
    yield from _unstacked(stack.get(LAYERS, {}))
    periods = [*_unstacked(stack.get(PERIODS, {})), *([stack[LAST]] if LAST in stack else [])]
    for period in periods:
        yield from _unstacked(period.get(LOCAL, {}))
        yield period[GLOBAL]


def _unstacked(stacked: Params) -> Iterator[Params]:
    leaves = jax.tree.leaves(stacked)
    for i in range(len(leaves[0]) if leaves else 0):
        yield jax.tree.map(lambda x, i=i: x[i], stacked)


def _fused(block: Params) -> Params:
    """Returns a layer's parameters with its maps into attention side by side: [D, (H + 2G) K], and such a bias."""
    attention = block["attention"]
    kept = {name: x for name, x in attention.items() if name not in INPUTS}
    flat = {"kernel": lambda x: x.reshape(x.shape[0], -1), "bias": lambda x: x.reshape(-1)}
    maps = {
        part: jnp.concatenate([flat[part](attention[name][part]) for name in INPUTS], -1) for part in attention["query"]
    }
    return {**block, "attention": {**kept, FUSED: maps}}
