"""Texts with images in them to unit vectors: the images first, then the texts with the images' vectors in their places."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from embed.data.interleaved import Slots, check_masks, encode_texts
from embed.inference.encoder import Encoder
from embed.inference.image_encoder import ImageEncoder
from embed.inference.plan import MAX_SEGMENTS, Batch
from embed.inference.program import Function, Program, check_finite, shared
from embed.text import prompted, template
from embed.types import Item, Params


def _embed_mixed(apply: Callable[..., jax.Array], packs: bool) -> Function:
    def run(params, arrays):
        tokens, segment_ids = arrays["tokens"], arrays["segment_ids"]
        inserted = jnp.take_along_axis(arrays["vectors"], arrays["slot"][..., None], axis=1)
        inputs = {"tokens": tokens, "segment_ids": segment_ids if packs else segment_ids > 0, "inserted": inserted}
        vectors = apply(params, inputs, method="mixed", max_segments=MAX_SEGMENTS if packs else None)
        return vectors.reshape(-1, vectors.shape[-1])

    return run


@dataclasses.dataclass(frozen=True)
class MixedEncoder:
    """Encodes texts with images in them, with any parameters of the model of `texts` and `images`."""

    texts: Encoder
    images: ImageEncoder
    slots: Slots

    @functools.cached_property
    def _program(self) -> Program:
        model = self.texts.model
        return Program(
            shared(_embed_mixed, model.apply, model.methods["mixed"].packs), self.texts.mesh, "texts with images"
        )

    def __call__(
        self,
        params: Params,
        items: Sequence[Item],
        locations: Sequence[str],
        *,
        prompt: str,
        progress: Callable[[int], None] = lambda items: None,
    ) -> np.ndarray:
        """Returns float32 unit vectors [n, E] of items with a text and at least one image each.

        The text names each image (`interleaved.check_masks`), which is looked for in the text with its prompt.
        """
        out = [np.empty((0, self.texts.model.embedding_dim), np.float32)]
        for rows in _parts([len(item.images) for item in items]):
            out.append(self._encoded(params, items[rows], locations[rows], prompt, progress))
        return np.concatenate(out)

    def _encoded(self, params: Params, items: Sequence[Item], locations: Sequence[str], prompt: str, progress):
        """Returns the vectors of items whose images' vectors are held at once."""
        prompt_template = template(prompt, dict(self.texts.prompts))
        read = functools.partial(prompted, prompt_template, normalization=self.texts.text_normalization)
        inputs = [read(item.text, item.title or "") for item in items]
        for text, item, location in zip(inputs, items, locations):
            check_masks(text, len(item.images), location, self.slots.max_images)
        rows, cut = encode_texts(self.texts.tokenizer, inputs, self.texts.max_length, self.slots, locations)
        self.texts.overflow(sum(cut), len(cut))
        values = [image for item in items for image in item.images]
        of_images = [
            f"image {k} of {location}" for item, location in zip(items, locations) for k in range(len(item.images))
        ]
        vectors = self.images.inserted(params, values, of_images)
        first = np.cumsum([0, *(len(item.images) for item in items)])
        # Token -1 - i of a text stands for row i of its entry of `inserted`.
        inserted = [_in_text(vectors[first[i] : first[i + 1]]) for i in range(len(items))]
        batches = self.texts.plan(rows)
        out = np.empty((len(items), self.texts.model.embedding_dim), np.float32)

        def done(number: int, embedded: np.ndarray) -> None:
            out[batches[number].texts] = embedded[batches[number].segment_index]

        arrays = (_arrays(batch, rows, inserted, self.texts.tokenizer.pad_id) for batch in batches)
        self._program.run(params, arrays, done, lambda number: progress(len(batches[number].texts)))
        check_finite(out, "text")
        return out


_IMAGES = 512  # of items whose images' vectors are held at once: 268 MB of an EmbeddingGemma 2


def _parts(counts: Sequence[int]) -> list[slice]:
    """Returns slices of items with these numbers of images, each slice of up to _IMAGES images or of one item."""
    starts, total = [0], 0
    for row, count in enumerate(counts):
        if total + count > _IMAGES and row > starts[-1]:
            starts.append(row)
            total = 0
        total += count
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(counts)])]


def _in_text(vectors: np.ndarray) -> np.ndarray:
    """Returns the vectors [K * T, D] of the K images of a text from [K, N, T, D]: image k takes entry k of N, or the only one."""
    count, numbers = vectors.shape[:2]
    return vectors[np.arange(count), np.arange(count) % numbers].reshape(-1, vectors.shape[-1])


def _arrays(
    batch: Batch, rows: Sequence[np.ndarray], inserted: Sequence[np.ndarray], pad_id: int
) -> dict[str, np.ndarray]:
    """Returns the arrays of a batch: tokens and segment ids, `vectors` and `slot`.

    `vectors` [height, M, D] are the image vectors of each row. `slot` int32 [height, length] is the row of `vectors` for an image
    token, else 0.
    """
    tokens, segment_ids = batch.arrays(rows, pad_id)
    needed = max(sum(len(inserted[i]) for i in row) for row in batch.rows)
    room = 1 << (needed - 1).bit_length()  # few shapes
    vectors = np.zeros((batch.height, room, inserted[0].shape[-1]), np.float32)
    slot = np.zeros(tokens.shape, np.int32)
    for r, row in enumerate(batch.rows):
        start = 0
        for s, i in enumerate(row):
            vectors[r, start : start + len(inserted[i])] = inserted[i]
            is_image = (segment_ids[r] == s + 1) & (tokens[r] < 0)
            slot[r, is_image] = start - 1 - tokens[r, is_image]
            start += len(inserted[i])
    return {"tokens": tokens, "segment_ids": segment_ids, "vectors": vectors, "slot": slot}
