"""An index of a corpus: made, added to, removed from, compacted, and given a graph for approximate search."""

import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from embed import console, files
from embed.buckets import addresses, copies
from embed.documents import read_json
from embed.errors import DataError, UsageError
from embed.index import compact as compaction
from embed.index import nearest, rows, store, tables
from embed.index.store import Index
from embed.inference import bulk
from embed.sources.corpus import Document, read_corpus
from embed.sources.input_texts import Text, image_digest
from embed.sources.lines import read_lines
from embed.workflows import encode

GRAPH = {"connectivity": 16, "expansion_add": 128, "expansion_search": 128}
_SHARD_SIZE = 8192
_PROMPT = "document"


def create(
    model,
    corpus,
    output,
    *,
    prompt: str = _PROMPT,
    dims: int | None = None,
    max_length: int | None = None,
    dtype: str | None = None,
) -> Index:
    """Encodes the documents of the file `corpus` by a MODEL into the folder `output`, an index; one that was stopped goes on.

    `prompt` is the documents' prompt, `dims` the Matryoshka size and `max_length` in tokens, as in `encode.run`. Documents are
    as in `sources.corpus.read_corpus`.
    """
    output = pathlib.Path(output)
    if store.is_index(output):
        raise UsageError(f"{output}: is an index already; add documents by --add, or choose another --output")
    opened = encode.Opened(model, dtype, max_length)
    opened.check(prompt, dims)
    with files.FolderLock(output):
        _begin(output)
        segment = _segment(opened, corpus, output, store.segment_folder(output, None), opened.template(prompt), dims)
        of_model = opened.identity(prompt, dims)
        description = {
            "model": addresses.restored(str(pathlib.Path(model).resolve())),
            "model_digest": of_model["model"],
            **{name: of_model[name] for name in ("prompt", "dims", "dtype", "max_length")},
            "segments": [segment],
            "removed": None,
            "graph": None,
        }
        store.commit(output, description)
    return _said(store.open_index(output, console.say))


def add(folder, corpus, *, replace: bool = False, model=None) -> Index:
    """Encodes further documents and adds them to an index. Ids that it has are a DataError, or `replace` their documents.

    `model` is where the index's model lies now, by default where it lay.
    """
    before = store.open_index(folder, console.say)
    opened = open_model(before, model)
    with files.FolderLock(before.folder):
        index = store.open_index(folder)  # as it is now
        described = index.description
        if described["model_digest"] != before.description["model_digest"]:
            raise DataError(f"{folder}: was made again with another model meanwhile; run the command again")
        known = index.find(document.id for document in read_corpus(corpus))
        nameless = next((d for d in read_corpus(corpus) if d.id in known and not d.has_id), None) if known else None
        if nameless is not None:
            raise DataError(
                f"{nameless.location}: has no id and is called {nameless.id!r} by its line, as another document of the index is; "
                "give each row an id"
            )
        if known and not replace:
            first = next(document for document in read_corpus(corpus) if document.id in known)
            raise DataError(
                f"{first.location}: the index has the document {first.id!r} already ({len(known):,} of the corpus in all); give "
                "--replace, or leave these out"
            )
        segment_path = store.segment_folder(index.folder, described)
        segment = _segment(opened, corpus, index.folder, segment_path, described["prompt"], described["dims"])
        description = store.with_removed(index, list(known.values())) if known else described
        store.commit(index.folder, {**description, "segments": [*described["segments"], segment]})
    return _with_graph_again(store.open_index(folder))


def remove(folder, ids: Sequence[str]) -> Index:
    """Removes the documents with these ids from an index; one that it does not have is a DataError, and nothing is removed."""
    with files.FolderLock(pathlib.Path(folder)):
        index = store.open_index(folder, console.say)
        known = index.find(ids)
        unknown = [i for i in ids if i not in known]
        if unknown:
            raise DataError(
                f"{folder}: has no document {unknown[0]!r}{f' and {len(unknown) - 1:,} others' if len(unknown) > 1 else ''}; "
                "correct the ids"
            )
        if len(known) == len(index):
            raise DataError(f"{folder}: these are all of its documents; remove the folder instead")
        store.commit(index.folder, store.with_removed(index, list(known.values())))
    return _said(store.open_index(folder))


def compact(folder) -> Index:
    """Writes an index's documents once more, without those that were removed, whose texts and vectors then leave the disk.

    It needs the room of the index a second time while it works. A graph is built again. Nothing is encoded.
    """
    with files.FolderLock(pathlib.Path(folder)):
        index = store.open_index(folder, console.say)
        graph = index.description["graph"]
        if not len(index.removed) and len(index.description["segments"]) == 1:
            store.clean(index.folder, index.description)
            console.say(f"{folder}: nothing was removed from it, and it has one segment; nothing was written")
            return index
        if graph is not None:
            nearest.check_available()
        with console.text_bar(len(index)) as progress:
            description = compaction.describe(index, progress)
        if graph is not None:
            options = {name: graph[name] for name in GRAPH}
            with console.text_bar(len(index)) as progress:
                description = store.with_graph(store.Index(index.folder, description), options, progress)
        store.commit(index.folder, description)
        count = len(index.description["segments"])
        console.say(
            f"{folder}: {len(index.removed):,} removed documents have left the disk; segments: {count:,} before, 1 now"
        )
    return _said(store.open_index(folder))


def approximate(folder, options: dict[str, int] | None = None, queries: Sequence[str] = (), model=None) -> Index:
    """Gives an index a graph, by which search finds candidates without reading all vectors, and says its recall.

    `options` replaces some of `GRAPH`. The recall is measured with the texts `queries` in the prompt 'query', or else with
    documents.
    """
    with files.FolderLock(pathlib.Path(folder)):
        index = store.open_index(folder, console.say)
        before = index.description["graph"] or GRAPH
        options = {name: (options or {}).get(name, before[name]) for name in GRAPH}
        vectors = None
        if queries:
            vectors = open_model(index, model).model.encode(queries, prompt="query", dims=index.description["dims"])
        with console.text_bar(len(index.vectors)) as progress:
            description = store.with_graph(index, options, progress, vectors)
        store.commit(index.folder, description)
    return _said(store.open_index(folder))


def export(folder, output, format: str) -> None:
    """Writes the documents and vectors of an index in one of `tables.FORMATS`, and says what opens the result."""
    output = pathlib.Path(output)
    files.check_new(output)
    index = store.open_index(folder, console.say)
    with console.text_bar(len(index)) as progress, store.reading(index):
        tables.write(index, output, format, progress)
    opens = {
        "parquet": f"embedding-atlas {output} --text=text --vector={tables.VECTOR}",
        "projector": f"tensorboard --logdir={output}, or load {tables.VECTORS} and {tables.METADATA} on projector.tensorflow.org",
    }[format]
    console.say(f"{output}: {len(index):,} documents of {index.vectors.shape[1]} values; open: {opens}")


def lines_of(path) -> list[str]:
    """Returns the lines of a file of ids or queries, without empty ones."""
    lines = [line.strip() for _, line in read_lines(str(path)) if line.strip()]
    if not lines:
        raise DataError(f"{path}: has no line with anything in it; give one a line")
    return lines


def open_model(index: Index, model=None) -> encode.Opened:
    """Returns the open model of an index, from where it lies; another one is a DataError."""
    described = index.description
    path = copies.local(described["model"] if model is None else model)
    if model is None and not pathlib.Path(path).exists():
        raise DataError(f"{index.folder}: its model is not at {path} any more; say where it is by --model")
    opened = encode.Opened(path, described["dtype"], described["max_length"])
    if opened.model.digest != described["model_digest"]:
        raise DataError(
            f"{path}: is not the model that {index.folder} was made with (digest {opened.model.digest[:12]}, not "
            f"{described['model_digest'][:12]}); give that one by --model, or make the index again"
        )
    return opened


def summary(index: Index) -> str:
    """Returns what there is to say of an index in one line."""
    described = index.description
    removed, graph = described["removed"], described["graph"]
    parts = [f"{len(index):,} documents of {described['dims']} values by {described['model']}"]
    parts += [f"{removed['count']:,} removed ones still on disk until --compact"] if removed else []
    if graph and index.lacks_graph:
        missing = len(index.vectors) - graph["texts"]
        parts.append(
            f"exact search, as the graph lacks {missing:,} documents; run: embed index {index.folder} --approximate"
        )
    elif graph:
        parts.append(f"approximate search with recall@10 {graph['recall']:.3f} on {graph['queries']} queries")
    else:
        parts.append("exact search")
    return f"{index.folder}: {'; '.join(parts)}"


def show(folder) -> None:
    """Says what an index holds, after verifying it."""
    _said(store.open_index(folder, console.say))


def _said(index: Index) -> Index:
    console.say(summary(index))
    return index


def _with_graph_again(index: Index) -> Index:
    """Returns the index, with a graph of the new documents too where it has one."""
    return _said(index) if index.description["graph"] is None else approximate(index.folder)


def _begin(output: pathlib.Path) -> None:
    """Raises a StorageError unless the folder is empty or holds an index that is not finished."""
    if any(not p.name.startswith((".", "segment-00000")) for p in output.iterdir()):
        files.check_new(output)


def _segment(
    opened: encode.Opened, corpus, folder: pathlib.Path, segment_path: pathlib.Path, prompt: str, dims: int | None
) -> dict[str, Any]:
    """Returns the description of a segment of the corpus, which is encoded into the folder `segment_path`, or finished there."""
    documents = functools.partial(read_corpus, corpus)
    with_image = next((d.location for d in documents() if d.image is not None), None)
    if with_image is not None and not opened.model.takes_images:
        raise UsageError(
            f"{with_image}: has an image, and {opened.model.folder} embeds texts only; take a model of both"
        )
    read = functools.partial(_texts, documents)
    scanned = bulk.scan(read, _SHARD_SIZE)
    if not scanned.texts:
        raise DataError(f"{corpus}: no texts in it; give a corpus")
    compaction.remove_unused(segment_path)
    begun = segment_path / bulk.JOB
    if begun.is_file() and read_json(begun).get("input") != scanned.digest:
        raise DataError(
            f"{segment_path}: another corpus was begun there and not finished; finish it with that corpus, or remove the folder"
        )
    opened.announce(scanned.texts, prompt, _SHARD_SIZE)
    opened.encode(read, scanned, segment_path, prompt, "npy", "float32", dims, _SHARD_SIZE, {})
    rows.write(segment_path, _rows(documents))
    return store.segment_of(segment_path)


def _texts(documents: Callable[[], Iterable[Document]]) -> Iterator[Text]:
    for document in documents():
        images = () if document.image is None else (document.image,)
        digests = tuple(image_digest(image, document.location) for image in images)
        row = document.row
        yield Text(document.id, row["text"], row["title"], document.location, images, digests)


def _rows(documents: Callable[[], Iterable[Document]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (id, row) of the documents; the path of an image is made absolute, as the index may lie elsewhere."""
    for document in documents():
        image = {} if document.image is None else {"image": addresses.restored(str(document.image.resolve()))}
        yield document.id, {**document.row, **image}
