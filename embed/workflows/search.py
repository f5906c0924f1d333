"""The texts of a corpus nearest to queries."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from embed.errors import DataError, UsageError, did_you_mean
from embed.inference import model as inference
from embed.inference import search
from embed.sources.fields import checked_text
from embed.sources.lines import read_json_lines
from embed.types import Item


@dataclasses.dataclass(frozen=True)
class Result:
    """A text of the corpus: its cosine with the query, where it is, and its row of the corpus."""

    score: float
    location: str
    row: dict[str, Any]


def run(
    model, queries: Sequence[str], corpus, *, prompt: str = "query", top: int = 5, dims: int | None = None
) -> list[list[Result]]:
    """Returns for each query the `top` nearest texts of a jsonl file, best first.

    Rows of `corpus` have a field `text` and may have `id`, `title`, `file` and `line`. `dims` is the Matryoshka size to use.
    """
    for number, query in enumerate(queries, 1):
        if not query.strip():
            raise UsageError(f"query {number} of {len(queries)} is empty; say what to look for")
    rows = [(location, _checked(row, location)) for location, row in read_json_lines(corpus)]
    if not rows:
        raise DataError(f"{corpus}: no texts in it; give a corpus")
    opened = inference.open_model(model)
    opened.check_dims(dims)
    query_vectors = opened.encode(queries, prompt=prompt, dims=dims)
    print(f"{opened.folder}: encoding {len(rows)} texts", file=sys.stderr, flush=True)
    items = [Item(row["text"], row["title"]) for _, row in rows]
    corpus_vectors = opened.encode(items, prompt="document", dims=dims)
    scores, indices = search.top_k(query_vectors, corpus_vectors, top)
    return [
        [Result(float(score), *_located(*rows[index])) for score, index in zip(*ranked)]
        for ranked in zip(scores, indices)
    ]


def _checked(row: dict, location: str) -> dict:
    """Returns a row of the corpus with a text, and a title or ""; what is neither is a DataError."""
    if "text" not in row:
        raise DataError(f"{location}: no field 'text'{did_you_mean('text', row)}")
    title = row.get("title")
    is_titled = title is not None and not (isinstance(title, str) and not title.strip())
    return {
        **row,
        "text": checked_text(row.get("text"), "text", location),
        "title": checked_text(title, "title", location) if is_titled else "",
    }


def _located(location: str, row: dict) -> tuple[str, dict]:
    """Returns where a text is for people, "file:line" of what it was harvested from or its id, and its row."""
    return f"{row['file']}:{row['line']}" if "file" in row and "line" in row else str(row.get("id", location)), row
