"""Arrays on disk in Orbax's format: read lazily, written block by block. Knows tensorstore, and neither jax nor Orbax.

A tool that only moves arrays starts at once this way, and holds a few blocks whatever the size of a model. What it writes
is read by Orbax like what Orbax wrote (tests restore it).
"""

import itertools
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import tensorstore

from embed import documents, files
from embed.errors import EmbedError, StorageError

PIECE = 1 << 22  # bytes of an array that are stored, and later read, in one piece
_LEAST = 4  # a piece may be as many times smaller, and is larger rather than smaller still
_LANES = 2  # blocks that are made and written at once
Block = tuple[slice, ...]


def unflatten(leaves: Mapping[str, Any]) -> dict:
    """Returns the nested dict of {path: leaf}, with paths like 'encoder/layers/mlp/gate/kernel' (`checkpoints.flatten`)."""
    tree: dict = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree


def spec_differences(found: Mapping[str, dict], wanted: Mapping[str, dict]) -> list[str]:
    """Returns one phrase per path that is missing, left over, or of another shape or dtype."""
    lines = [f"{p} is missing" for p in wanted if p not in found]
    lines += [f"{p} is not in the model" for p in found if p not in wanted]
    for p in wanted:
        if p in found and found[p] != wanted[p]:
            a, b = (f"{s['dtype']}{s['shape']}" for s in (found[p], wanted[p]))
            lines.append(f"{p} is {a}, the model has {b}")
    return lines


def blocks(shape: Sequence[int], piece: Sequence[int]) -> list[Block]:
    """Returns the blocks of the shape `piece` that cover an array; the last ones of a dimension may be smaller."""
    steps = [range(0, max(1, n), max(1, size)) for n, size in zip(shape, piece)]  # one empty block of an empty array
    return [
        tuple(slice(i, min(i + size, n)) for i, n, size in zip(corner, shape, piece))
        for corner in itertools.product(*steps)
    ]


def piece_of(shape: Sequence[int], dtype, divided: Sequence[bool] = ()) -> tuple[int, ...]:
    """Returns the piece of an array, about PIECE bytes large, that it is stored in.

    The largest dimension (of those that are `divided` over devices, as long as they can be) goes down to its next divisor,
    until the piece fits. This is Orbax's own rule, so that what a run saves and what is written here lie alike, and an average
    reads each piece of both once; pieces divide an array, so that none is filled up. Orbax ends with crumbs where a dimension
    has a large prime factor (30,522 words are 2 x 3 x 5,087): there the piece before is kept.
    """
    piece = [max(1, n) for n in shape]
    first = [bool(d) for d in divided] or [False] * len(piece)
    size = lambda p: math.prod(p) * np.dtype(dtype).itemsize  # noqa: E731
    while size(piece) > PIECE:
        axis = max((i for i in range(len(piece)) if first[i] and piece[i] > 1), key=lambda i: piece[i], default=None)
        if axis is None:
            if all(first):
                break
            first = [True] * len(piece)
            continue
        smaller = [*piece]
        smaller[axis] = next(d for d in range(piece[axis] - 1, 0, -1) if shape[axis] % d == 0)
        if size(smaller) * _LEAST < PIECE:
            break
        piece, first[axis] = smaller, True
    return tuple(piece)


def several(piece: Sequence[int], shape: Sequence[int], dtype) -> tuple[int, ...]:
    """Returns as many pieces, in one block, as have about PIECE bytes together: what is stored in crumbs is not read in crumbs."""
    found = [max(1, n) for n in piece]
    for axis in reversed(range(len(found))):
        room = PIECE // (math.prod(found) * np.dtype(dtype).itemsize)
        found[axis] = min(max(1, shape[axis]), found[axis] * max(1, room))
    return tuple(found)


def open_arrays(step_folder, item: str = "params") -> dict[str, tensorstore.TensorStore]:
    """Returns {path: lazily read array} of one item, so that a reader holds only the blocks it asks for."""
    step_folder = pathlib.Path(step_folder).absolute()
    paths = files.read_manifest(step_folder)["trees"][item]
    opened = {path: tensorstore.open(_store(step_folder / item, path), read=True, open=True) for path in paths}
    return {path: future.result() for path, future in opened.items()}


def load_numpy(step_folder, item: str = "params") -> dict:
    """Returns an item as a nested dict of numpy arrays, after verifying its files."""
    files.verify_manifest(step_folder, item)
    reading = {path: array.read() for path, array in open_arrays(step_folder, item).items()}
    return unflatten({path: np.asarray(future.result()) for path, future in reading.items()})


def write_bundle_by_blocks(
    path,
    specs: Mapping[str, tuple[tuple[int, ...], Any]],
    blocks_of: Mapping[str, Sequence[Block]],
    values: Callable[[str, Block], np.ndarray],
    contents: Mapping[str, bytes],
    *,
    overwrite: bool = False,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[float], None] = lambda share: None,
    **extra,
) -> pathlib.Path:
    """Writes a bundle whose parameters are never in memory whole: `values(path, block)` gives one block of one array.

    `specs` are the shape and the dtype of every array by its path, `blocks_of` the blocks that cover it, all of one size but
    the last ones; each is stored as a piece of its own. `values` is called by several threads; `check` at the end, to raise
    where what was given must not become a bundle. `contents` are the small files, `extra` goes into the manifest. Whole or
    not at all.
    """
    path = pathlib.Path(path)
    tree = {p: {"shape": list(shape), "dtype": str(np.dtype(dtype))} for p, (shape, dtype) in specs.items()}
    with files.new_folder(path, overwrite) as temporary:
        try:
            _write_item(temporary.absolute() / "params", specs, blocks_of, values, progress)
        except EmbedError:
            raise
        except Exception as e:  # tensorstore wraps storage faults in many types
            raise StorageError(
                f"{path}: could not be written ({documents.first_line(e)}); free space or repair the disk"
            ) from e
        check()
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        files.sync(temporary)
        files.write_manifest(temporary, trees={"params": tree}, **extra)
    return path


def _write_item(folder: pathlib.Path, specs, blocks_of, values, progress) -> None:
    """Writes the arrays of an item in lanes, each of which makes one block while another is written."""
    created = {
        p: tensorstore.open(
            {**_store(folder, p), "metadata": {"compressor": None}},
            create=True,
            dtype=tensorstore.dtype(np.dtype(dtype)),
            shape=shape,
            chunk_layout=tensorstore.ChunkLayout(chunk_shape=[max(1, s.stop - s.start) for s in blocks_of[p][0]]),
        )
        for p, (shape, dtype) in specs.items()
    }
    opened = {p: future.result() for p, future in created.items()}

    def one(p: str, block: Block) -> None:
        made = values(p, block)
        opened[p][block].write(made, can_reference_source_data_indefinitely=True).result()

    with futures.ThreadPoolExecutor(_LANES) as pool:
        running = [pool.submit(one, p, block) for p in specs for block in blocks_of[p]]
        try:
            for number, done in enumerate(running, 1):
                done.result()
                progress(number / len(running))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    (folder / "_METADATA").write_text(json.dumps(_orbax_metadata(specs)))


def _orbax_metadata(paths: Iterable[str]) -> dict:
    """Returns what Orbax keeps beside the arrays of an item: a tree of dicts with numpy arrays."""
    value = {"value_type": "np.ndarray", "skip_deserialize": False}
    trees = {
        str(tuple(path.split("/"))): {
            "key_metadata": [{"key": key, "key_type": 2} for key in path.split("/")],
            "value_metadata": value,
        }
        for path in paths
    }
    return {
        "tree_metadata": trees,
        "use_ocdbt": True,
        "use_zarr3": False,
        "store_array_data_equal_to_fill_value": True,
        "custom_metadata": None,
    }


def _store(folder: pathlib.Path, name: str) -> dict:
    """Returns where tensorstore finds the array `name` of an item."""
    base = {"driver": "file", "path": f"{folder}/"}
    return {
        "driver": "zarr",
        "kvstore": {"driver": "ocdbt", "base": base, "path": name.replace("/", ".") + "/"},
        "store_data_equal_to_fill_value": True,
    }
