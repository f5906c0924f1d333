"""Batches and the smallest of models for the tests of training steps."""

import jax
import jax.numpy as jnp
import numpy as np

from embed.data import packing
from embed.types import Batch, Method, Model
from embed.vectors import normalize

POISON = 49  # a token whose embedding is not a number


def fast(function, **options):
    """Returns `function` compiled with little optimisation: most of these tests' time is compiling."""
    little = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function, compiler_options=little, **options)


def bag_of_words(dropout: bool = False) -> Model:
    """Returns the smallest model there is: the mean of its tokens' rows, times a matrix; with `dropout` it adds noise."""

    def init(key):
        first, second = jax.random.split(key)
        return {"table": jax.random.normal(first, (50, 4)), "kernel": jax.random.normal(second, (4, 6))}

    def apply(params, inputs, *, method="text", key=None, max_segments=None):
        tokens, mask = inputs["tokens"], inputs["segment_ids"]
        x = params["table"][tokens] * mask[..., None]
        x = x.sum(1) / mask.sum(1, keepdims=True) @ params["kernel"]
        x = jnp.where((tokens == POISON).any(1, keepdims=True), jnp.nan, x)
        return normalize(x if key is None else x + 0.3 * jax.random.normal(key, x.shape))

    axes = {"table": ("vocab", "width"), "kernel": ("width", "embedding")}
    methods = {"text": Method(("tokens", "segment_ids"), lambda length: 1.0)}
    return Model(init, apply, axes, {}, 6, (6, 3), methods, dropout)


def examples(seed: int = 0, size: int = 8, negatives: int = 2, vocab: int = 49) -> list[dict[str, np.ndarray]]:
    """Returns pairs with hard negatives, some missing, and two pairs of duplicates."""
    random = np.random.default_rng(seed)

    def text():
        return random.integers(0, vocab, random.integers(1, 8)).astype(np.int32)

    made = []
    for i in range(size):
        own = [text() for _ in range(random.integers(0, negatives + 1))]
        made.append(
            {
                "query": text(),
                "target": text(),
                "negatives": np.concatenate([*own, np.zeros(0, np.int32)]),
                "negatives_lengths": np.array([len(n) for n in own], np.int32),
                "negatives_id": np.array([1000 + 10 * i + k for k in range(len(own))], np.int64),
                "query_id": i,
                "target_id": i,
            }
        )
    for name, (i, j) in {"query": (0, 3), "target": (5, 6)}.items():
        for field in (name, f"{name}_id"):
            made[j][field] = made[i][field]
    return made


def rows(pairs, negatives: int = 2, shards: int = 1, parts: int = 1, max_segments: int | None = None):
    """Returns the batch of some pairs, laid out as training lays it out."""
    unit = len(pairs) // (shards * parts)
    layout = packing.Layout(24, max_segments or 1, (unit * (2 + negatives),))
    units = []
    for s in range(shards):
        units.append([])
        for k in range(parts):
            start = k * len(pairs) // parts + s * unit
            own = pairs[start : start + unit]
            plan = packing.fill([len(x) for x in packing.texts(own, negatives)], layout.length, layout.max_segments)
            units[-1].append(packing.collate(own, plan, layout, layout.heights[0], negatives, 0))
    return Batch(packing.stack(units), max_segments)


def batch(seed: int = 0, negatives: int = 2, parts: int = 1, vocab: int = 49):
    return rows(examples(seed, 8, negatives, vocab), negatives, parts=parts)


def only(batch):
    """Returns the one micro-batch of a batch, as an objective sees it."""
    return jax.tree.map(lambda x: x[:, 0].reshape(-1, *x.shape[3:]), batch)
