"""The texts and images of a corpus nearest to queries."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from embed.data import image_values
from embed.errors import DataError, UsageError, did_you_mean
from embed.inference import model as inference
from embed.inference import search
from embed.sources.fields import checked_text
from embed.sources.lines import read_json_lines
from embed.types import Item


@dataclasses.dataclass(frozen=True)
class Result:
    """A text or image of the corpus: its cosine with the query, where it is, and its row of the corpus."""

    score: float
    location: str
    row: dict[str, Any]


def run(
    model,
    queries: Sequence[str],
    corpus,
    *,
    images: Sequence[Any] = (),
    prompt: str = "query",
    top: int = 5,
    dims: int | None = None,
) -> list[list[Result]]:
    """Returns for each query the `top` nearest texts and images of a jsonl file, best first.

    Rows of `corpus` have a field `text`, `image` (a path, from the file's folder) or both, and may have `id`, `title`, `file` and
    `line`. A query that is the path of an image is that image, where the model takes images. `images` are added to every
    query, after its own; for a model that reads images in texts, `[MASK_k]` in the text marks image k. `dims` is the Matryoshka
    size to use.
    """
    for number, query in enumerate(queries, 1):
        if not query.strip():
            raise UsageError(f"query {number} of {len(queries)} is empty; say what to look for")
    rows = [(location, _checked(row, location)) for location, row in read_json_lines(corpus)]
    if not rows:
        raise DataError(f"{corpus}: no texts in it; give a corpus")
    items = [_item(row, pathlib.Path(corpus).parent, location) for location, row in rows]
    opened = inference.open_model(model)
    opened.check_dims(dims)
    with_image = next((location for (location, _), item in zip(rows, items) if item.images), None)
    if with_image is not None and not opened.takes_images:
        raise UsageError(f"{with_image}: has an image, and {opened.folder} embeds texts only; take a model of both")
    if images and not opened.takes_images:
        raise UsageError(f"the query has an image, and {opened.folder} embeds texts only; take a model of both")
    asked = [_asked(query, tuple(images)) for query in queries] if images else queries
    query_vectors = opened.encode(asked, prompt=prompt, dims=dims)
    print(f"{opened.folder}: encoding {len(rows)} items", file=sys.stderr, flush=True)
    corpus_vectors = opened.encode(items, prompt="document", dims=dims)
    scores, indices = search.top_k(query_vectors, corpus_vectors, top)
    return [
        [Result(float(score), *_located(*rows[index])) for score, index in zip(*ranked)]
        for ranked in zip(scores, indices)
    ]


def _checked(row: dict, location: str) -> dict:
    """Returns a row of the corpus with a text or an image, and a title or ""; what is neither is a DataError."""
    if "text" not in row and "image" not in row:
        raise DataError(f"{location}: no field 'text'{did_you_mean('text', row)}")
    title, has_image = row.get("title"), row.get("image") is not None
    is_titled = title is not None and not (isinstance(title, str) and not title.strip())
    text = None if has_image and row.get("text") is None else checked_text(row.get("text"), "text", location)
    return {**row, "text": text, "title": checked_text(title, "title", location) if is_titled else ""}


def _item(row: dict, folder: pathlib.Path, location: str) -> Item:
    """Returns the item of a row; an image that is not there is a DataError."""
    if row.get("image") is None:
        return Item(row["text"], row["title"])
    path = folder / checked_text(row["image"], "image", location)
    if not path.is_file():
        raise DataError(f"{location}: the image {path} is not there; correct the path, or remove the line")
    return Item(row["text"], row["title"] or None, (path,))


def _asked(query: str, images: tuple[Any, ...]) -> Item:
    """Returns the item of a query with further images; the path of an image is the first of them."""
    return Item(images=(query, *images)) if image_values.is_image(query) else Item(query, images=images)


def _located(location: str, row: dict) -> tuple[str, dict]:
    """Returns where an item is for people, "file:line" of what it was harvested from or its id, and its row."""
    return f"{row['file']}:{row['line']}" if "file" in row and "line" in row else str(row.get("id", location)), row
