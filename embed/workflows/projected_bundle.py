"""A bundle whose embedding is projected on principal components of the model's own vectors, or truncated.

Embeddings are compared by inner products. The projection on the first N right singular vectors of a set of vectors approximates
their inner products best in the least squares sense (Eckart and Young, 1936). The vectors are therefore not centred. With all
components the projection is a rotation, and cosines do not change. The projection is a linear map after pooling; it is multiplied
into the last linear map of a model that has one.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from embed import arrays, bundles, files
from embed.data import vector_store
from embed.errors import DataError, UsageError
from embed.inference import bulk
from embed.interop import origin
from embed.interop.origin import Trained
from embed.models import api
from embed.models.embedder import output_dim

_PIECE = 1 << 16  # vectors that are read at once


@dataclasses.dataclass(frozen=True)
class _Set:
    """Some vectors of one model and one side. `identity` says what they are of."""

    folder: pathlib.Path
    identity: Mapping[str, Any]
    pieces: Iterator[np.ndarray]


def run(model, output, *, vectors=None, dims: int | None = None) -> None:
    """Writes the bundle `output`: `model` with its embedding projected on the first `dims` principal components of `vectors`.

    `vectors` is a folder that `embed encode MODEL` wrote, of a file or of the items of a recipe. Without `vectors` the embedding is
    truncated to its first `dims` values. Vectors of another model, truncated vectors, and fewer vectors than the embedding has
    values are DataErrors.
    """
    trained = origin.open_trained(model)
    size = _check(trained, dims)
    if vectors is None:
        projection = np.eye(size, dims)
        print(f"truncating {trained.folder} to the first {dims:,} of {size:,} values", flush=True)
    else:
        moment, count = second_moment(pathlib.Path(vectors), trained, size)
        projection = principal_components(moment)[:, :dims]
        print(f"projecting {trained.folder} on principal components of {count:,} vectors of {vectors}", flush=True)
        for line in _shares(moment, projection, _sizes(trained, projection.shape[1])):
            print(f"kept       {line}", flush=True)
    _write(output, trained, projection, vectors)
    for note in origin.decoder_notes(trained):
        print(f"note       {note}")
    print(f"wrote      {output}: digest {files.folder_digest(output)[:12]}")


def _check(trained: Trained, dims: int | None) -> int:
    """Returns the embedding size of a model that can be projected."""
    if trained.image is not None:
        raise UsageError(
            f"--dims and --principal_components are for models of texts, and {trained.folder} reads images"
        )
    if "quantization" in trained.description:
        raise UsageError(
            f"{trained.folder} is quantised, and the projection would not be; project the model that it was made of"
        )
    size = _last_size(trained)
    if dims is not None and dims > size:
        raise UsageError(f"--dims={dims}: the embedding of {trained.folder} has {size} values; give fewer")
    return size


def _last_size(trained: Trained) -> int:
    return (output_dim(trained.module.encoder), *trained.module.projection)[-1]


def second_moment(folder: pathlib.Path, trained: Trained, size: int) -> tuple[np.ndarray, int]:
    """Returns the mean of v v^T over vectors, float64 [size, size], and how many there are.

    Queries and targets, where they lie apart, count the same, however many there are of each.
    """
    moments, total = [], 0
    for one in _sets(folder):
        _check_set(one, trained, size)
        moment, count = np.zeros((size, size)), 0
        for piece in one.pieces:
            piece = piece.astype(np.float64)
            moment += piece.T @ piece
            count += len(piece)
        moments.append(moment / count)
        total += count
    if total < size:
        raise DataError(f"{folder}: holds {total:,} vectors, fewer than their {size:,} values; encode more texts")
    return sum(moments) / len(moments), total


def _sets(folder: pathlib.Path) -> Iterator[_Set]:
    """Yields the vectors of a job of encoding, or of each side of a recipe's items."""
    if (folder / bulk.JOB).is_file():
        shards = bulk.open_shards(folder)
        if shards.precision != "float32":
            raise DataError(f"{folder}: holds vectors of {shards.precision}; encode without --quantize")
        yield _Set(folder, bulk.describe(folder), (shards.read(number)[1] for number in range(len(shards))))
        return
    sides = sorted(path.parent for path in folder.glob(f"*/{files.MANIFEST}"))
    for side in [folder] if (folder / files.MANIFEST).is_file() or not sides else sides:
        store = vector_store.read(side)
        starts = range(0, len(store), _PIECE)
        pieces = (store.at(np.arange(at, min(at + _PIECE, len(store)))) for at in starts)
        yield _Set(side, store.identity, pieces)


def _check_set(one: _Set, trained: Trained, size: int) -> None:
    """Raises DataError for vectors of another model, and for truncated vectors."""
    of = one.identity.get("model")
    if of != trained.digest:
        raise DataError(
            f"{one.folder}: holds vectors of another model ({str(of)[:12]}) than {trained.folder} ({trained.digest[:12]}); "
            f"write its own: embed encode {trained.folder}"
        )
    if one.identity.get("dims") != size:
        raise DataError(
            f"{one.folder}: holds the first {one.identity.get('dims')} of {size} values; encode without --dims"
        )


def principal_components(moment: np.ndarray) -> np.ndarray:
    """Returns the eigenvectors of a second moment [E, E] as columns, that of the largest eigenvalue first.

    The value of largest magnitude of each is positive, so that the result does not depend on the library.
    """
    components = np.linalg.eigh(moment)[1][:, ::-1]
    largest = components[np.argmax(np.abs(components), axis=0), np.arange(len(components))]
    return components * np.where(largest < 0, -1.0, 1.0)


def _sizes(trained: Trained, size: int) -> list[int]:
    """Returns the Matryoshka sizes up to `size`, the largest first."""
    return [size, *sorted((d for d in trained.matryoshka_dims if d < size), reverse=True)]


def _shares(moment: np.ndarray, projection: np.ndarray, sizes: list[int]) -> Iterator[str]:
    """Yields the share of the squared length in the first values of each size, before and after the projection."""
    whole, before = np.trace(moment), np.cumsum(np.diag(moment))
    after = np.cumsum(np.einsum("ij,ik,kj->j", projection, moment, projection, optimize=True))
    for size in sizes:
        yield (
            f"{after[size - 1] / whole:.1%} of the squared length in the first {size:,} values, "
            f"{before[size - 1] / whole:.1%} before"
        )


def _write(output, trained: Trained, projection: np.ndarray, vectors) -> None:
    """Writes the bundle; whole or not at all."""
    module = trained.module
    last = len(module.projection) - 1
    path = f"projection_{max(last, 0)}/kernel"
    kernel = trained.read(path).astype(np.float64) @ projection if last >= 0 else projection
    params = {name: trained.read(name) for name in trained.shapes} | {path: kernel.astype(np.float32)}
    sizes = _sizes(trained, projection.shape[1])
    module = module.clone(projection=(*module.projection[:-1], projection.shape[1]), matryoshka_dims=tuple(sizes))
    basis = "first values" if vectors is None else "principal components"
    # The lineage names no ancestor, so that `embed average` refuses the average with a model of another basis.
    lineage = {"projected": {"model": trained.digest, "on": basis, "lineage": trained.description["lineage"]}}
    description = {
        **trained.description,
        "architecture": api.describe(module),
        "matryoshka_dims": sizes,
        "lineage": lineage,
    }
    tokenizer = bundles.tokenizer_file(trained.folder)
    arrays.write_bundle_by_blocks(
        output,
        {name: (x.shape, x.dtype) for name, x in params.items()},
        {name: arrays.blocks(x.shape, arrays.piece_of(x.shape, x.dtype)) for name, x in params.items()},
        lambda name, block: params[name][block],
        bundles.contents(description, tokenizer.name, tokenizer.read_bytes()),
    )
