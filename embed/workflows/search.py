"""The documents, texts and images, of an index or a corpus nearest to queries."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from embed import console
from embed.data import image_values
from embed.errors import DataError, UsageError
from embed.index import store
from embed.inference import model as inference
from embed.inference import search
from embed.sources.corpus import read_corpus
from embed.types import Item
from embed.workflows import index as indexes


@dataclasses.dataclass(frozen=True)
class Result:
    """A document: its cosine with the query, its id, and its row of the corpus."""

    score: float
    id: str
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
    """Returns for each query the `top` nearest documents of a jsonl file, best first, after encoding all of them.

    Documents are as in `sources.corpus.read_corpus`. A query that is the path of an image is that image, where the model takes
    images. `images` are added to every query, after its own; for a model that reads images in texts, `[MASK_k]` in the text marks
    image k. `dims` is the Matryoshka size to use.
    """
    _check(queries)
    documents = list(read_corpus(corpus))
    if not documents:
        raise DataError(f"{corpus}: no texts in it; give a corpus")
    opened = inference.open_model(model)
    opened.check_dims(dims)
    with_image = next((document.location for document in documents if document.image is not None), None)
    if with_image is not None and not opened.takes_images:
        raise UsageError(f"{with_image}: has an image, and {opened.folder} embeds texts only; take a model of both")
    query_vectors = _encoded(opened, queries, images, prompt, dims)
    print(f"{opened.folder}: encoding {len(documents)} items", file=sys.stderr, flush=True)
    corpus_vectors = opened.encode([document.item for document in documents], prompt="document", dims=dims)
    scores, numbers = search.top_k(query_vectors, corpus_vectors, top)
    return [
        [Result(float(score), documents[number].id, documents[number].row) for score, number in zip(*ranked)]
        for ranked in zip(scores, numbers)
    ]


def run_index(
    folder,
    queries: Sequence[str],
    *,
    images: Sequence[Any] = (),
    prompt: str = "query",
    top: int = 5,
    exact: bool = False,
    model=None,
) -> list[list[Result]]:
    """Returns for each query the `top` nearest documents of an index, best first; queries are as in `run`.

    Where the index has a graph, it finds the candidates; with `exact` all documents are compared. `model` is where the index's
    model lies now, by default where it lay.
    """
    _check(queries)
    opened_index = store.open_index(folder, console.say)
    opened = indexes.open_model(opened_index, model).model
    vectors = _encoded(opened, queries, images, prompt, opened_index.description["dims"])
    with store.reading(opened_index):
        ranked = opened_index.search(vectors, top, exact=exact or None)
        rows = [[(score, opened_index.row(number)) for score, number in best] for best in ranked]
    return [[Result(score, row["id"], row) for score, row in best] for best in rows]


def _check(queries: Sequence[str]) -> None:
    for number, query in enumerate(queries, 1):
        if not query.strip():
            raise UsageError(f"query {number} of {len(queries)} is empty; say what to look for")


def _encoded(opened, queries: Sequence[str], images: Sequence[Any], prompt: str, dims: int | None):
    if images and not opened.takes_images:
        raise UsageError(f"the query has an image, and {opened.folder} embeds texts only; take a model of both")
    asked = [_asked(query, tuple(images)) for query in queries] if images else queries
    return opened.encode(asked, prompt=prompt, dims=dims)


def _asked(query: str, images: tuple[Any, ...]) -> Item:
    """Returns the item of a query with further images; the path of an image is the first of them."""
    return Item(images=(query, *images)) if image_values.is_image(query) else Item(query, images=images)
