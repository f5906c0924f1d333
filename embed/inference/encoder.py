"""Texts to unit vectors: prompted, tokenised, packed into rows of few shapes, run, put back in order."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from embed import sharding
from embed.data.tokenizers import Tokenizer
from embed.errors import DataError
from embed.inference import arguments, forks
from embed.inference.items import check_filled, check_texts, items_of
from embed.inference.plan import MAX_SEGMENTS, Batch, plan
from embed.inference.program import Function, Program, check_finite, shared
from embed.text import DEFAULT_NORMALIZATION, prompted, template
from embed.types import Item, Method, Model, Params

_ARRAYS = ("tokens", "segment_ids")


def _embed_texts(apply: Callable[..., jax.Array], packs: bool) -> Function:
    def run(params, arrays):
        if not packs:
            return apply(params, {**arrays, "segment_ids": arrays["segment_ids"] > 0})
        vectors = apply(params, arrays, max_segments=MAX_SEGMENTS)
        return vectors.reshape(-1, vectors.shape[-1])

    return run


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Encodes texts with any parameters of one model. `overflow(cut, total)` is called for texts cut at `max_length`.

    `text_normalization` is a name of `text.NORMALIZATIONS`: what is done to texts and titles before their prompt.
    `tokens_per_batch` is per shard of the batch; None is 1,024 on CPU, where the caches hold no more, and 16,384 elsewhere.
    """

    model: Model
    tokenizer: Tokenizer
    prompts: Mapping[str, str]
    max_length: int
    mesh: Mesh
    tokens_per_batch: int | None = None
    overflow: Callable[[int, int], None] = lambda cut, total: None
    text_normalization: str = DEFAULT_NORMALIZATION

    @property
    def batch_tokens(self) -> int:
        """Tokens of a batch on all devices."""
        per_shard = self.tokens_per_batch or (1024 if self._platform == "cpu" else 16_384)
        return per_shard * sharding.batch_shards(self.mesh)

    @property
    def _text(self) -> Method:
        return self.model.methods["text"]

    @property
    def _platform(self) -> str:
        return self.mesh.devices.flat[0].platform

    @functools.cached_property
    def _attention(self) -> float:
        """How many others a token attends to that cost as much as the rest of it: `plan.plan`'s `attention`.

        Attention takes longer than products of weights with as many FLOPs, by far on a CPU (measured). Lengths are short, so
        that windows leave nothing out: XLA leaves nothing out either.
        """
        short, long = (self._text.flops(n) / n for n in (16, 32))
        slope = (long - short) / 16
        if slope <= 0:
            return float("inf")
        return max(1.0, (short - 16 * slope) / slope / (7.0 if self._platform == "cpu" else 1.5))

    @functools.cached_property
    def _program(self) -> Program:
        return Program(shared(_embed_texts, self.model.apply, self._text.packs), self.mesh, "texts")

    def tokens(
        self,
        items: Sequence[str | Item],
        prompt: str,
        allow_empty: bool = False,
    ) -> list[np.ndarray]:
        """Returns the token ids of prompted texts. An empty text is a DataError that names its position; with `allow_empty`
        it is its prompt, its title and the special tokens alone."""
        rows, cut = self.tokens_and_cuts(items, prompt, allow_empty)
        self.overflow(sum(cut), len(cut))
        return rows

    def tokens_and_cuts(
        self, items: Sequence[str | Item], prompt: str, allow_empty: bool = False
    ) -> tuple[list[np.ndarray], list[bool]]:
        """Returns `tokens`, and of each text whether it was cut; `overflow` is not called."""
        prompt_template = template(arguments.text(prompt, "prompt"), dict(self.prompts))
        listed = items_of(items)
        check_texts(listed)
        if not arguments.truth(allow_empty, "allow_empty"):
            check_filled(listed)
        if not listed:
            return [], []
        read = functools.partial(prompted, prompt_template, normalization=self.text_normalization)
        inputs = [read(item.text, item.title or "") for item in listed]
        rows, cut = self.tokenizer.encode_batch(inputs, self.max_length)
        for position, row in enumerate(rows):
            if not len(row):
                raise DataError(f"text {position} of {len(rows)} gives no token; remove it, or give it a prompt")
        return rows, cut

    def __call__(
        self,
        params: Params,
        items: Sequence[str | Item],
        *,
        prompt: str,
        progress: Callable[[int], None] = lambda texts: None,
        allow_empty: bool = False,
    ) -> np.ndarray:
        """Returns float32 unit vectors [n, E] in the order of `items`. `progress` is called with each batch's number of texts.

        What is no item is a DataError with its position, and so is an empty text unless `allow_empty`. A vector that is not
        finite is a NumericError.
        """
        forks.check()
        rows = self.tokens(items, prompt, allow_empty)
        out = np.empty((len(rows), self.model.embedding_dim), np.float32)
        if not rows:
            return out
        batches = self.plan(rows)

        def done(number: int, embedded: np.ndarray) -> None:
            out[batches[number].texts] = embedded[batches[number].segment_index]

        arrays = (dict(zip(_ARRAYS, batch.arrays(rows, self.tokenizer.pad_id))) for batch in batches)
        self._program.run(params, arrays, done, lambda number: progress(len(batches[number].texts)))
        check_finite(out, "text")
        return out

    def plan(self, rows: Sequence[np.ndarray]) -> list[Batch]:
        """Returns the batches in which tokenised texts are run."""
        shards = sharding.batch_shards(self.mesh)
        max_segments = MAX_SEGMENTS if self._text.packs else 1
        lengths = np.array([len(r) for r in rows])
        # A CPU's caches do not hold the attention of long rows: 1.2 times slower at 256 tokens, from 1,024 a batch on.
        max_attention = 128 * self.batch_tokens if self._platform == "cpu" else None
        attention = self._attention if self._text.packs else float("inf")  # of one text a row, all is its own
        return plan(lengths, self.batch_tokens, shards, max_segments, attention=attention, max_attention=max_attention)

    def lowered(self, params, batch: Batch):
        """Returns the program for such batches, lowered and not compiled; of the parameters shapes and layout are enough."""
        rows = jax.ShapeDtypeStruct(batch.shape, np.int32)
        return self._program.lowered(params, dict.fromkeys(_ARRAYS, rows))
