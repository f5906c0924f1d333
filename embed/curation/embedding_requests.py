"""Texts to embed, as they go to an OpenAI-compatible embeddings endpoint, and how the vectors of a reply are read and kept."""

import base64
import dataclasses
import json
from typing import Any

import numpy as np

from embed import documents
from embed.curation.requests import Malformed

MAX_TEXTS = 512  # of one request, so that the line that keeps its reply stays far below the longest that a ledger reads
_MAX_DIM = 1 << 14
_MAX_VECTOR_BYTES = 1 << 19  # as JSON


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Texts whose vectors are asked for, with `dimensions` values each where that is given.

    `dim` is how many values a vector must have, as those of other requests have; it is no part of what is asked.
    """

    texts: tuple[str, ...]
    dimensions: int | None = None
    dim: int | None = None

    prompt = path = "embeddings"
    max_tokens = 0
    holds_text = False  # numbers alone are kept

    def max_tokens_in(self, body: bytes) -> int:
        """Returns the most tokens that the model can have read: no token is less than a byte."""
        return len(body)

    @property
    def max_reply_bytes(self) -> int:
        """The size that a reply may have."""
        return _MAX_VECTOR_BYTES * len(self.texts)

    def key(self, model: str, structured: bool) -> str:
        """Returns the digest of all that decides the reply, which it is kept by.

        Raises UnicodeEncodeError for a text that UTF-8 cannot hold, which could not be sent either.
        """
        del structured
        documents.json_bytes(self.texts)
        return documents.digest_json([model, self.path, list(self.texts), self.dimensions])

    def body(self, model: str, structured: bool) -> bytes:
        """Returns the JSON that is sent."""
        del structured
        body = {"model": model, "input": list(self.texts), "encoding_format": "float"}
        if self.dimensions is not None:
            body["dimensions"] = self.dimensions
        return json.dumps(body, ensure_ascii=False).encode()

    def reply_text(self, value: Any) -> str:
        """Returns the vectors in the JSON of a reply, in the order of the texts, as text (`vectors`).

        A server may list them in another order, with the `index` of each. Raises Malformed for another number of vectors, for
        vectors of another size, and for one that is zero or not finite.
        """
        data = value.get("data") if isinstance(value, dict) else None
        if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
            raise Malformed("a reply without vectors")
        if len(data) != len(self.texts):
            raise Malformed(f"{len(data):,} vectors for {len(self.texts):,} texts")
        rows: dict[Any, Any] = {}
        for position, item in enumerate(data):
            index = item.get("index", position)
            if type(index) is not int or not 0 <= index < len(data) or index in rows:
                raise Malformed("vectors whose numbers are not those of the texts")
            rows[index] = item.get("embedding")
        return base64.b64encode(self._array([rows[i] for i in range(len(rows))]).tobytes()).decode()

    def _array(self, rows: list[Any]) -> np.ndarray:
        """Returns the vectors as little-endian float32 [n, dim]."""
        if not all(isinstance(row, list) and all(type(x) in (int, float) for x in row) for row in rows):
            raise Malformed("a vector that is no list of numbers")
        dims = {len(row) for row in rows}
        dim = self.dimensions or self.dim
        if len(dims) > 1 or not 0 < max(dims) <= _MAX_DIM or (dim is not None and dims != {dim}):
            expected = (
                f", and {'those of other texts have' if self.dimensions is None else 'asked for were'} {dim:,}"
                if dim
                else ""
            )
            raise Malformed(f"vectors of {' and '.join(f'{d:,}' for d in sorted(dims))} values{expected}")
        try:
            with np.errstate(over="ignore"):
                vectors = np.array(rows, np.float64).astype("<f4")
        except OverflowError:  # an integer of hundreds of digits
            raise Malformed("a vector that is not finite") from None
        if not np.isfinite(vectors).all():
            raise Malformed("a vector that is not finite")
        if not np.linalg.norm(vectors.astype(np.float64), axis=1).all():
            raise Malformed("a vector of zeros")
        return vectors


def vectors(text: str, count: int) -> np.ndarray:
    """Returns float32 [count, dim], the vectors that `Embeddings.reply_text` made a text of."""
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(count, -1).astype(np.float32)
