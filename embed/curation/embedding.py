"""Texts into vectors by a model behind an endpoint: a few texts in each request, several requests at once, in order."""

from collections.abc import Callable, Sequence

import numpy as np

from embed.curation.asking import Asker, Rejected
from embed.curation.embedding_requests import Embeddings, vectors
from embed.errors import EndpointError
from embed.vectors import truncate_numpy


class TextEmbedder:
    """Embeds texts through one asker, `batch_size` of them in a request, with `dimensions` values where that is given.

    All vectors have the size of the first one. A reply of another size, or with another number of vectors, is asked for again.
    """

    def __init__(self, asker: Asker, batch_size: int, dimensions: int | None = None):
        self._asker, self._batch_size, self._dimensions = asker, batch_size, dimensions
        self._dim: int | None = None

    def __call__(
        self, texts: Sequence[str], locations: Sequence[str], progress: Callable[[int], None] = lambda texts: None
    ) -> np.ndarray:
        """Returns float32 unit vectors [n, dim]; `locations` say where the texts stand, for errors.

        Raises Spent where the budget ends, with every reply kept, and EndpointError where the endpoint refuses some texts.
        """
        starts = range(0, len(texts), self._batch_size)
        batches = [(tuple(texts[i : i + self._batch_size]), locations[i : i + self._batch_size]) for i in starts]
        rows: list[np.ndarray] = []

        def take(batch, embedded: np.ndarray) -> None:
            rows.append(embedded)
            progress(len(batch[0]))

        first = 1 if self._dim is None else 0  # alone: it says how large the vectors are
        for some in (batches[:first], batches[first:]):
            if some:
                self._asker.run(self._embed, some, take)
        return truncate_numpy(np.concatenate(rows), self._dim)

    async def _embed(self, batch: tuple[tuple[str, ...], Sequence[str]]) -> np.ndarray:
        texts, locations = batch
        try:
            reply = await self._asker.reply(Embeddings(texts, self._dimensions, self._dim))
        except Rejected as e:
            raise self._asker.stop(
                EndpointError(
                    f"{self._asker.last_refusal or e}; the request holds {len(texts):,} texts, from {locations[0]} to "
                    f"{locations[-1]}: shorten them, or give another --batch_size in another --output"
                )
            ) from None
        embedded = vectors(reply.text, len(texts))
        self._dim = self._dim or embedded.shape[1]
        if embedded.shape[1] != self._dim:
            raise self._asker.stop(
                EndpointError(
                    f"{self._asker.endpoint.base_url}: gave vectors of {self._dim:,} values, and others of {embedded.shape[1]:,}; "
                    "begin again in another --output"
                )
            )
        return embedded
