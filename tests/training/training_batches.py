"""Batches and the smallest of models for the tests of training steps."""

import jax
import jax.numpy as jnp
import numpy as np
from encoded_pairs import pair

from embed.data import packing, text_features
from embed.data.draws import Draws
from embed.data.examples import Chosen, lengths_of
from embed.data.loader import collate
from embed.data.text_features import Lengths
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
        return normalize(x if key is None or not dropout else x + 0.3 * jax.random.normal(key, x.shape))

    axes = {"table": ("vocab", "width"), "kernel": ("width", "embedding")}
    methods = {"text": Method(("tokens", "segment_ids"), lambda length: 1.0)}
    return Model(init, apply, axes, {}, 6, (6, 3), methods)


def examples(seed: int = 0, size: int = 8, negatives: int = 2, vocab: int = 49) -> list[dict[str, np.ndarray]]:
    """Returns pairs with hard negatives, some missing, and two pairs of duplicates."""
    random = np.random.default_rng(seed)

    def text():
        return random.integers(0, vocab, random.integers(1, 8)).astype(np.int32)

    made = []
    for i in range(size):
        own = [text() for _ in range(random.integers(0, negatives + 1))]
        ids = [1000 + 10 * i + k for k in range(len(own))]
        made.append(pair(text(), text(), own, query_id=i, target_id=i, negatives_id=ids))
    for name, (i, j) in {"query": (0, 3), "target": (5, 6)}.items():
        for field in (name, f"{name}_lengths", f"{name}_id"):
            made[j][field] = made[i][field]
    return made


def rows(pairs, negatives: int = 2, shards: int = 1, parts: int = 1, max_segments: int | None = None):
    """Returns the batch of some pairs, laid out as training lays it out."""
    unit = len(pairs) // (shards * parts)
    shape, features = (
        (unit * (2 + negatives), 24),
        text_features.pairs(Lengths(24, 24), negatives)[: 3 if negatives else 2],
    )
    units = []
    for s in range(shards):
        units.append([])
        for k in range(parts):
            start = k * len(pairs) // parts + s * unit
            own = pairs[start : start + unit]
            units[-1].append(unit_of(own, features, shape, max_segments or 1))
    return Batch(packing.stack(units), max_segments)


def unit_of(examples, features, shape, max_segments):
    """Returns the arrays of some encoded examples as one unit, whose packed rows have the `shape`."""
    zeros = np.zeros(len(examples), np.int64)
    draws, chosen = Draws(zeros, np.arange(len(examples)), zeros), []
    for f in features:
        sizes = [e[f"{f.name}_lengths"] for e in examples]
        table = np.zeros((len(examples), max(1, *map(len, sizes))), np.int64)
        for i, own in enumerate(sizes):
            table[i, : len(own)] = own
        columns = f.choose(table, draws)
        lengths = np.take_along_axis(table, np.maximum(columns, 0).reshape(len(examples), -1), 1).reshape(columns.shape)
        chosen.append(Chosen(f, columns, lengths))
    plan = packing.fill(lengths_of(chosen), shape[1], max_segments)
    return collate(examples, draws, features, chosen, plan, shape, max_segments, None)


def batch(seed: int = 0, negatives: int = 2, parts: int = 1, vocab: int = 49):
    return rows(examples(seed, 8, negatives, vocab), negatives, parts=parts)


def only(batch):
    """Returns the one micro-batch of a batch, as an objective sees it."""
    return jax.tree.map(lambda x: x[:, 0].reshape(-1, *x.shape[3:]), batch)
