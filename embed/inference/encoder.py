"""Texts to unit vectors: prompted, tokenised, sorted by length, run in few compiled shapes, put back in order."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from embed import sharding
from embed.data.loader import pad
from embed.data.text import apply_prompt, clean, template
from embed.data.tokenizers import Tokenizer
from embed.errors import DataError
from embed.types import Model, Params

# Lengths a batch may be padded to: multiples of 8, of 16 from 128, then four to an octave. Few shapes, little padding.
_LENGTHS = (
    *range(8, 128, 8),
    *range(128, 257, 16),
    *(step << shift for shift in range(2, 7) for step in (80, 96, 112, 128)),
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How texts of given token counts are batched: index groups with their padded length and rows."""

    groups: tuple[tuple[np.ndarray, int, int], ...]  # (indices, padded length, padded rows)

    @property
    def padded_tokens(self) -> int:
        return sum(length * rows for _, length, rows in self.groups)

    @property
    def shapes(self) -> set[tuple[int, int]]:
        return {(rows, length) for _, length, rows in self.groups}


def plan(lengths: np.ndarray, tokens_per_batch: int, row_multiple: int = 1) -> Plan:
    """Returns the batches for texts of these token counts: longest first, each about `tokens_per_batch` padded tokens.

    The rows of a group are a power of two times `row_multiple`, so that few shapes are ever compiled.
    """
    order = np.argsort(-lengths, kind="stable")
    groups, start = [], 0
    while start < len(order):
        longest = int(lengths[order[start]])
        length = next((x for x in _LENGTHS if x >= longest), longest)
        fit = max(1, tokens_per_batch // length // row_multiple)
        rows = row_multiple * (1 << (fit.bit_length() - 1))
        left = len(order) - start
        while rows // 2 >= max(left, row_multiple):
            rows //= 2
        groups.append((order[start : start + rows], length, rows))
        start += rows
    return Plan(tuple(groups))


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Encodes texts with any parameters of one model. `overflow` is told how many texts were cut at `max_length` tokens."""

    model: Model
    tokenizer: Tokenizer
    prompts: Mapping[str, str]
    max_length: int
    mesh: Mesh
    tokens_per_batch: int = 8192
    overflow: Callable[[int, int], None] = lambda cut, total: None

    @functools.cached_property
    def _apply(self):
        def run(params, tokens, lengths):
            mask = jnp.arange(tokens.shape[1]) < lengths[:, None]
            return self.model.apply(params, tokens, mask)

        return jax.jit(run, out_shardings=sharding.replicated(self.mesh))

    def tokens(self, texts: Sequence[str], prompt: str, titles: Sequence[str] | None = None) -> list[np.ndarray]:
        """Returns the token ids of prompted texts. An empty text is a DataError that names its place."""
        words = template(prompt, dict(self.prompts))
        titles = titles if titles is not None else [""] * len(texts)
        if len(titles) != len(texts):
            raise DataError(f"{len(texts)} texts came with {len(titles)} titles; give one title per text, or none")
        prompted = []
        for i, (text, title) in enumerate(zip(texts, titles, strict=True)):
            content = clean(text)
            if not content:
                raise DataError(f"text {i} of {len(texts)} is empty; remove it or fill it")
            prompted.append(apply_prompt(words, content, clean(title or "")))
        rows, cut = self.tokenizer.encode_batch(prompted, self.max_length)
        self.overflow(sum(cut), len(cut))
        return rows

    def __call__(
        self,
        params: Params,
        texts: Sequence[str],
        *,
        prompt: str,
        titles: Sequence[str] | None = None,
        progress: Callable[[int], None] = lambda texts: None,
    ) -> np.ndarray:
        """Returns float32 unit vectors [n, E] in the order of `texts`. `progress` is told each batch's number of texts."""
        if not len(texts):
            return np.zeros((0, self.model.embedding_dim), np.float32)
        rows = self.tokens(texts, prompt, titles)
        shards = sharding.batch_shards(self.mesh)
        batches = plan(np.array([len(r) for r in rows]), self.tokens_per_batch * shards, shards)
        out = np.empty((len(rows), self.model.embedding_dim), np.float32)
        waiting: list[tuple[np.ndarray, jax.Array]] = []
        with jax.set_mesh(self.mesh):
            for indices, length, size in batches.groups:
                waiting.append((indices, self._run(params, [rows[i] for i in indices], length, size)))
                if len(waiting) > 2:  # keep the device busy without queueing everything
                    _collect(out, *waiting.pop(0))
                progress(len(indices))
            for item in waiting:
                _collect(out, *item)
        return out

    def _run(self, params, rows, length: int, size: int):
        tokens, lengths = pad(rows + [rows[0][:1]] * (size - len(rows)), length, self.tokenizer.pad_id)
        start, stop = sharding.process_rows(size, self.mesh)
        local = {"tokens": tokens[start:stop], "lengths": lengths[start:stop]}
        batch = sharding.to_global(local, self.mesh, size)
        result = self._apply(params, batch["tokens"], batch["lengths"])
        if jax.default_backend() == "cpu":
            result.block_until_ready()
        return result


def _collect(out: np.ndarray, indices: np.ndarray, embedded: jax.Array) -> None:
    out[indices] = np.asarray(embedded)[: len(indices)]
