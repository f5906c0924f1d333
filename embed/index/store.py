"""An index on disk. `index.json`, written last, lists its segments; each is a job of encoding with its documents.

Documents are numbered through the segments in their order. Adding writes a segment, removing a list of numbers; neither touches a
segment that is there. Compaction (`compact`) writes what was not removed as one new segment. Vectors are float32 and exact search
is the default. With a graph (`nearest`) candidates are found without reading all vectors.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, TypedDict

import numpy as np
from msgspec import Meta

from embed import arrays, digests, documents, files, ranges
from embed.errors import DataError, EmbedError, InUse, StorageError, UsageError
from embed.index import nearest, rows
from embed.inference import bulk, search
from embed.text import content_id

INDEX = "index.json"
_VERIFIED = ".verified.json"
_AGAIN = "restore the index from its source, or make it again"
_FORMAT = 1
_QUERIES = 256  # whose candidates are in memory at once


SEGMENT = r"segment-\d{5,}"  # the name of a segment's folder
_HIDDEN = r"\.segment-\d{5,}\.(tmp|old)-\d+"  # of one that is being written or removed


class _Segment(TypedDict):
    folder: Annotated[str, Meta(pattern=f"^{SEGMENT}$")]
    texts: ranges.Count
    job: ranges.Text
    files: dict[str, digests.Entry]


class _Removed(TypedDict):
    file: ranges.Text
    entry: digests.Entry
    count: ranges.Count


class Description(TypedDict):
    """What index.json holds. `model` is a path, `model_digest` of the exact files; a text's prompt is a template."""

    format: Literal[1]
    model: ranges.Text
    model_digest: ranges.Text
    prompt: ranges.Text
    dims: ranges.Count
    dtype: ranges.Text
    max_length: ranges.Count | None
    segments: list[_Segment]
    removed: _Removed | None
    graph: nearest.Graph | None
    version: ranges.Count
    digest: ranges.Text


def is_index(folder) -> bool:
    """Returns whether a folder holds an index."""
    return (pathlib.Path(folder) / INDEX).is_file()


@dataclasses.dataclass(frozen=True)
class Index:
    """An index that is open for reading. What it reads has been verified."""

    folder: pathlib.Path
    description: dict[str, Any]

    def __len__(self) -> int:
        """How many documents it has, without those that were removed."""
        return len(self.vectors) - len(self.removed)

    @functools.cached_property
    def vectors(self) -> bulk.Vectors:
        """The vectors of all documents, on disk; removed ones are among them."""
        return bulk.Vectors(*(self.folder / s["folder"] for s in self.description["segments"]), verified=True)

    @functools.cached_property
    def removed(self) -> np.ndarray:
        """The numbers of the documents that were removed, in ascending order."""
        removed = self.description["removed"]
        return np.zeros(0, np.int64) if removed is None else arrays.read_npy(self.folder / removed["file"])

    @functools.cached_property
    def _rows(self) -> list[rows.Rows]:
        return [rows.Rows(self.folder / s["folder"]) for s in self.description["segments"]]

    def row(self, number: int) -> dict[str, Any]:
        """Returns a document by its number."""
        for part in self._rows:
            if number < len(part):
                return part[number]
            number -= len(part)
        raise IndexError(number)

    def documents(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields (number, document) in their order, without those that were removed."""
        is_removed = np.isin(np.arange(len(self.vectors)), self.removed)
        numbered = enumerate(itertools.chain.from_iterable(self._rows))
        return ((number, row) for number, row in numbered if not is_removed[number])

    def find(self, ids: Iterable[str]) -> dict[str, int]:
        """Returns {id: number} of the documents with these ids that the index has."""
        every = np.concatenate([part.ids for part in self._rows])
        wanted = {int(content_id(i)): i for i in ids}
        numbers = np.nonzero(np.isin(every, np.fromiter(wanted, np.int64, len(wanted))))[0]
        numbers = numbers[~np.isin(numbers, self.removed)]
        return {wanted[int(every[n])]: int(n) for n in numbers}

    def search(self, queries: np.ndarray, k: int, *, exact: bool | None = None) -> list[list[tuple[float, int]]]:
        """Returns for each query the (cosine, number) of the k nearest documents, best first.

        By default the graph finds the candidates, where there is one that has all documents; `exact` compares all vectors.
        """
        if exact is None:
            exact = self.lacks_graph
        if exact:
            scores, numbers = search.top_k(queries, self.vectors, k, without=self.removed)
            return [list(zip(s.tolist(), n.tolist())) for s, n in zip(scores, numbers)]
        if self.lacks_graph:
            raise UsageError(
                f"{self.folder}: has no graph of all documents; run: embed index {self.folder} --approximate"
            )
        wanted, count = min(k, len(self)), max(2 * k, k + 10)
        while True:
            near = nearest.candidates(self._graph, queries, count)
            ranked = self._ranked(queries, near, k)
            if all(len(best) >= wanted for best in ranked) or count >= len(self.vectors):
                return ranked
            count *= 4  # many of the nearest were removed

    @property
    def lacks_graph(self) -> bool:
        """Whether there is no graph, or one from before documents were added: a command was stopped between the two."""
        graph = self.description["graph"]
        return graph is None or graph["texts"] < len(self.vectors)

    @functools.cached_property
    def _graph(self) -> Any:
        graph = self.description["graph"]
        return nearest.opened(self.folder / graph["file"], graph, self.vectors.shape[1])

    def _ranked(self, queries: np.ndarray, near: np.ndarray, k: int) -> list[list[tuple[float, int]]]:
        """Returns the k best of the candidates of each query by their vectors, best first; equal ones by their number."""
        ranked = []
        for start in range(0, len(queries), _QUERIES):
            numbers = np.sort(near[start : start + _QUERIES], axis=1)
            is_document = (numbers >= 0) & ~np.isin(numbers, self.removed)
            different, where = np.unique(np.where(is_document, numbers, numbers.max(initial=0)), return_inverse=True)
            vectors = self.vectors.take(different)[where.reshape(numbers.shape)]
            scores = np.einsum("qd,qnd->qn", queries[start : start + _QUERIES], vectors)
            scores[~is_document] = -np.inf
            for row, best in enumerate(np.argsort(-scores, axis=1, kind="stable")[:, :k]):
                ranked.append([(float(scores[row, i]), int(numbers[row, i])) for i in best if is_document[row, i]])
        return ranked


def open_index(folder, say: Callable[[str], None] = lambda line: None) -> Index:
    """Returns an index, verified.

    Its files are hashed when they are opened first on a machine, and again when the size or the time of one has changed. `say`
    is called with a line before that.
    """
    folder = pathlib.Path(folder)
    if not is_index(folder):
        started = folder.is_dir() and any(folder.glob("segment-*"))
        what = "is not finished; run the command that makes it again" if started else "holds no index; run: embed index"
        raise DataError(f"{folder}: {what}")
    description = digests.read_sealed(folder / INDEX, Description, _AGAIN)
    index = Index(folder, description)
    with reading(index):
        _verify(index, say)
    return index


def _verify(index: Index, say: Callable[[str], None]) -> None:
    folder, entries = index.folder, dict(_entries(index.description))
    seen = _seen(folder, entries)
    if seen is None or seen != _verified(folder):
        size = sum(entry["size"] for entry in entries.values())
        if size > 100_000_000:
            say(f"{folder}: verifying {size / 1e9:.2f} GB, as this machine has not read them before")
        digests.check_files(folder, entries, _AGAIN)
        with contextlib.suppress(files.StorageError):  # a folder that is read only
            files.write_json(folder / _VERIFIED, {"files": _seen(folder, entries)})


def _entries(description: dict[str, Any]) -> Iterable[tuple[str, digests.Entry]]:
    """Yields (path from the index's folder, entry) of every file."""
    for segment in description["segments"]:
        yield from ((f"{segment['folder']}/{name}", entry) for name, entry in segment["files"].items())
    for part in (description["removed"], description["graph"]):
        if part is not None:
            yield part["file"], part["entry"]


def _seen(folder: pathlib.Path, entries: Iterable[str]) -> dict[str, list[int]] | None:
    """Returns what tells that a file was not touched; None where one is missing."""
    seen = {}
    for name in entries:
        try:
            status = (folder / name).stat()
        except OSError:
            return None
        seen[name] = [status.st_size, status.st_mtime_ns, status.st_ino]
    return seen


def _verified(folder: pathlib.Path) -> dict[str, list[int]] | None:
    """Returns `_seen` of the files as they were verified last."""
    try:
        return documents.read_json(folder / _VERIFIED).get("files")
    except DataError:
        return None


def segment_folder(folder: pathlib.Path, description: dict[str, Any] | None) -> pathlib.Path:
    """Returns the folder of the segment that comes next."""
    segments = [] if description is None else description["segments"]
    return folder / f"segment-{_number(segments[-1]['folder']) + 1 if segments else 0:05d}"


def _number(segment: str) -> int:
    """Returns the number of a segment's folder. The last one that is listed has the largest."""
    return int(segment.removeprefix("segment-"))


def segment_of(folder: pathlib.Path) -> _Segment:
    """Returns what index.json says of a segment that is finished."""
    shards = bulk.open_shards(folder)
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return {"folder": folder.name, "texts": shards.texts, "job": shards.job, "files": digests.entries_of(folder, names)}


def commit(folder: pathlib.Path, description: dict[str, Any]) -> dict[str, Any]:
    """Writes index.json from a description, and then removes the files that it no longer lists (`clean`).

    `description` must be made from the index.json that is there. If another command has written that meanwhile, it raises InUse, as
    the other command's changes would be lost. Call it only while holding the folder's lock.
    """
    before = description.get("version", 0)
    if before != _version(folder):
        raise InUse(f"{folder}: another command has changed it meanwhile; run the command again")
    written = digests.write_sealed(folder / INDEX, {**description, "format": _FORMAT, "version": before + 1})
    clean(folder, written)
    return written


def _version(folder: pathlib.Path) -> int:
    """Returns the version of the index that is in a folder now; 0 where there is none."""
    return digests.read_sealed(folder / INDEX, Description, _AGAIN)["version"] if is_index(folder) else 0


def clean(folder: pathlib.Path, description: dict[str, Any]) -> None:
    """Removes files that an index does not list: those that it listed before, and those that killed commands have left.

    Segments after the last listed one stay, because `embed index --add` may have begun them. A file that cannot be removed raises
    StorageError.
    """
    listed = {name for name, _ in _entries(description)}
    segments = [segment["folder"] for segment in description["segments"]]
    for path in sorted(folder.iterdir()):
        if re.fullmatch(r"removed-\d+\.npy|graph-\d+\.usearch", path.name) and path.name not in listed:
            path.unlink(missing_ok=True)
        is_segment = re.fullmatch(SEGMENT, path.name) and path.name not in segments
        if (is_segment and _number(path.name) < _number(segments[-1])) or re.fullmatch(_HIDDEN, path.name):
            remove_segment(path)


def remove_segment(path: pathlib.Path) -> None:
    """Removes the folder of a segment that the index does not list. It is renamed first, so that no part of it has its name."""
    hidden = path if path.name.startswith(".") else path.with_name(f".{path.name}.old-{os.getpid()}")
    try:
        if hidden != path:
            os.replace(path, hidden)
        shutil.rmtree(hidden)
    except OSError as e:
        raise StorageError(
            f"{hidden}: cannot be removed ({e.strerror or e}), though the index does not need it; run: embed index "
            f"{path.parent} --compact"
        ) from e


@contextlib.contextmanager
def reading(index: Index) -> Iterator[None]:
    """Raises InUse in place of an error in the block if another command has changed the index since it was opened."""
    try:
        yield
    except (EmbedError, OSError) as e:
        if _version(index.folder) == index.description["version"]:
            raise
        raise InUse(f"{index.folder}: another command has changed it while it was read; run the command again") from e


def with_removed(index: Index, numbers: Sequence[int]) -> dict[str, Any]:
    """Returns the description of an index without these documents too; the list of them is written."""
    every = np.union1d(index.removed, np.array(numbers, np.int64))
    name = f"removed-{index.description['version'] + 1:05d}.npy"
    files.write_atomic(index.folder / name, arrays.npy_bytes(every))
    entry = digests.entry_of(index.folder / name)
    return {**index.description, "removed": {"file": name, "entry": entry, "count": len(every)}}


def with_graph(
    index: Index,
    options: dict[str, int],
    progress: Callable[[int], None],
    queries: np.ndarray | None = None,
) -> dict[str, Any]:
    """Returns the description of an index with a graph of all its documents, which is written.

    A graph that is there with the same `options` (connectivity, expansion_add, expansion_search) takes in the documents that it
    lacks. Its recall of the 10 nearest is measured with `queries`, or else with documents that are spread over the corpus, each
    without itself.
    """
    before, dim = index.description["graph"], index.vectors.shape[1]
    same = before is not None and all(before[name] == value for name, value in options.items())
    graph = (
        nearest.opened(index.folder / before["file"], before, dim, to_change=True)
        if same
        else nearest.empty(dim, **options)
    )
    nearest.add(graph, index.vectors, before["texts"] if same else 0, progress)
    sampled = None
    if queries is None:
        live = np.setdiff1d(np.arange(len(index.vectors)), index.removed)
        sampled = live[np.linspace(0, len(live) - 1, min(nearest.MEASURED, len(live))).astype(int)]
        queries = index.vectors.take(sampled)
    recall = _recall(index, graph, queries, sampled)
    name = f"graph-{index.description['version'] + 1:05d}.usearch"
    nearest.write(graph, index.folder / name)
    entry = digests.entry_of(index.folder / name)
    about = {"texts": len(index.vectors), **options, "recall": recall, "queries": len(queries)}
    return {**index.description, "graph": {"file": name, "entry": entry, **about}}


def _recall(index: Index, graph: Any, queries: np.ndarray, sampled: np.ndarray | None, k: int = 10) -> float:
    """Returns which share of the exact k nearest documents the graph finds.

    With `sampled` the queries are the documents of these numbers, and none of them counts as its own neighbour.
    """
    exact = search.top_k(queries, index.vectors, k + 1, without=index.removed)[1]
    candidates = nearest.candidates(graph, queries, max(2 * k, k + 10))
    shares = []
    for row, (best, near) in enumerate(zip(exact, candidates)):
        best = best[:k] if sampled is None else best[best != sampled[row]][:k]
        shares.append(np.isin(best, near).mean() if len(best) else 1.0)
    return float(np.mean(shares))
