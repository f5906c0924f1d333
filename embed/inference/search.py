"""Exact nearest neighbours by inner product, in two levels and block by block: queries x corpus is never held."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from embed.errors import DataError
from embed.inference import arguments, forks

_QUERIES = 256  # at once: their scores of a block are all that is held of queries x corpus
_MOST = 32_768  # documents of a block
# Of a block on a CPU: a larger piece of memory the C library gives back each time and clears anew, 2.5 times slower.
_BLOCK_BYTES = 24 << 20
_FEW = (8, 16, 32)  # numbers of groups that a block is looked into, where no more hold anything better


def block_size(documents: int, dim: int) -> int:
    """Returns how many documents a block has: a power of two, so that groups divide it."""
    fits = min(_MOST, max(1, _BLOCK_BYTES // (4 * dim))) if jax.default_backend() == "cpu" else _MOST
    return min(1 << (fits.bit_length() - 1), 1 << (documents - 1).bit_length())


def _group_size(block: int, k: int) -> int:
    """Returns the power of two for which the block's groups and the members of the k best ones are fewest together."""
    return min((1 << n for n in range(block.bit_length())), key=lambda size: block // size + k * size)


@functools.partial(jax.jit, static_argnames="k")
def _block_top_k(queries, block, valid, offset, best_scores, best_indices, k: int):
    """Returns the running top k after one corpus block; `valid` says which of its rows are documents.

    First level: the maximum of each group. The k best documents lie in the k best groups, so the second level looks into
    those alone: several times faster than top_k over all scores. After some blocks only a few groups hold anything better
    than the worst of the best so far, and only those are sorted. The members of a group lie a number of groups apart, which
    makes its maximum one of whole rows.
    """
    size = _group_size(len(block), k)
    count = len(block) // size
    columns, valid = jnp.arange(len(block)).reshape(size, count), valid.reshape(size, count)

    scores = jnp.matmul(queries, block.T, precision="highest")  # exact: no TF32 or bfloat16 on accelerators
    scores = scores.reshape(-1, size, count)
    largest = jnp.max(jnp.where(valid, scores, -jnp.inf), 1)

    def merge(few: int):
        """Returns the best when at most `few` groups of each query hold any of them."""
        groups = jax.lax.top_k(largest, few)[1]
        # Documents are told from padding once more, of the few: it would be a copy of all scores.
        inside, positions, real = (
            jnp.take_along_axis(x, groups[:, None], 2) for x in (scores, columns[None], valid[None])
        )
        inside = jnp.where(real, inside, -jnp.inf)
        merged_scores = jnp.concatenate([best_scores, inside.reshape(len(queries), -1)], 1)
        indices = jnp.concatenate([best_indices, (offset + positions).reshape(len(queries), -1).astype(jnp.int32)], 1)
        merged_scores, kept = jax.lax.top_k(merged_scores, k)
        return merged_scores, jnp.take_along_axis(indices, kept, 1)

    # A score that is not a number counts as better, so that it comes first and is found in the end.
    better = jnp.max(jnp.sum(~(largest <= best_scores[:, -1:]), 1))
    steps = [n for n in _FEW if n < min(k, count)]
    branches = [functools.partial(merge, n) for n in (*steps, min(k, count))]
    return jax.lax.switch(jnp.searchsorted(jnp.array([*steps, count]), better), branches)


def top_k(
    queries: np.ndarray, corpus: np.ndarray, k: int, *, without: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (scores [Q, k], indices [Q, k]) of the k largest inner products, best first; k is cut to the number of documents.

    `corpus` is an array, or anything that has its length, ndim and shape and can be cut in rows. `without` are the numbers of
    rows that are no documents, each once. A row of queries or corpus that is not finite is a DataError that names it: NaN has no
    rank.
    """
    forks.check()
    k = arguments.integer(k, "k", 0)
    queries, corpus = _numbers(queries, "queries"), _numbers(corpus, "corpus")
    if queries.ndim != 2 or corpus.ndim != 2 or queries.shape[1] != corpus.shape[1]:
        raise DataError(f"search: queries {queries.shape} and corpus {corpus.shape} do not have the same dimension")
    queries = _finite(queries, "queries", 0)
    valid = np.ones(len(corpus), bool)
    if without is not None:
        valid[without] = False
    k = min(k, int(valid.sum()))
    if k < 1 or not len(queries):
        return np.zeros((len(queries), max(k, 0)), np.float32), np.zeros((len(queries), max(k, 0)), np.int32)
    size = block_size(len(corpus), corpus.shape[1])
    rows = min(_QUERIES, len(queries))
    parts = [jnp.asarray(_padded(queries[i : i + rows], rows)) for i in range(0, len(queries), rows)]
    nothing = jnp.full((rows, k), -jnp.inf, jnp.float32), jnp.full((rows, k), -1, jnp.int32)
    best = [nothing] * len(parts)
    for offset in range(0, len(corpus), size):  # the corpus, which may lie on disk, is read once
        block = _finite(np.asarray(corpus[offset : offset + size]), "corpus", offset)
        padded = _padded(block, size)
        if len(parts) > 1:
            padded = jnp.asarray(padded)  # a copy, which for one part would take as long as the search
        mask = np.zeros(size, bool)
        mask[: len(block)] = valid[offset : offset + size]
        best = [_block_top_k(p, padded, mask, offset, *b, k=k) for p, b in zip(parts, best)]
        jax.block_until_ready(best)
    scores, indices = (np.concatenate([np.asarray(b[i]) for b in best])[: len(queries)] for i in (0, 1))
    finite = np.isfinite(scores).all(axis=1)
    if not finite.all():
        raise DataError(
            f"search: scores of query {int(np.argmin(finite))} exceed what float32 holds; scale the vectors to unit length"
        )
    return scores, indices


def _numbers(values: Any, name: str) -> Any:
    """Returns `values`, or the array of a list; DataError for what holds no real numbers."""
    if not hasattr(values, "shape"):
        try:
            values = np.asarray(values)
        except ValueError as e:
            raise DataError(f"search: the {name} are rows of different lengths; give an array [n, E]") from e
    dtype = getattr(values, "dtype", np.dtype(np.float32))
    if dtype != jnp.bfloat16 and np.dtype(dtype).kind not in "biuf":
        raise DataError(f"search: the {name} are of type {dtype}, expected numbers")
    return values


def _finite(rows: np.ndarray, name: str, offset: int) -> np.ndarray:
    """Returns rows as float32; one that is not finite is a DataError with its number from `offset` on."""
    with np.errstate(over="ignore", invalid="ignore"):
        rows = np.ascontiguousarray(rows, np.float32)
        if not np.isfinite(np.sum(rows)):  # one pass that writes nothing; the rows are looked at only when it fails
            finite = np.isfinite(rows).all(axis=1)
            if not finite.all():
                raise DataError(
                    f"search: row {offset + int(np.argmin(finite))} of the {name} is not finite; correct or remove it"
                )
    return rows


def _padded(x: np.ndarray, rows: int) -> np.ndarray:
    return x if len(x) == rows else np.concatenate([x, np.zeros((rows - len(x), x.shape[1]), np.float32)])
