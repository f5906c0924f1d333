"""Arrays on disk: in Orbax's format, read lazily and written block by block, and in .npy and .npz files.

Knows tensorstore, and neither jax nor Orbax. A tool that only moves arrays starts at once this way, and holds a few blocks
whatever the size of a model. What it writes is read by Orbax like what Orbax wrote (tests restore it).
"""

import io
import itertools
import json
import math
import pathlib
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import tensorstore

from embed import documents, files, packed_arrays, trees
from embed.buckets import copies
from embed.errors import DataError, EmbedError, StorageError, UsageError
from embed.packed_arrays import Packed
from embed.quantized_arrays import CODES, SCALES

PIECE = 1 << 22  # bytes of an array that are stored, and later read, in one piece
_LEAST = 4  # a piece may be as many times smaller, and is larger rather than smaller still
_LANES = 2  # blocks that are made and written at once
Block = tuple[slice, ...]
# The header that numpy writes, of an array of booleans, integers or floats; anything else, objects above all, is refused.
_NPY_HEADER = re.compile(
    rb"\{'descr': '([<>|][biuf]\d{1,2})', 'fortran_order': (True|False), 'shape': \(((?:\d{1,19}, ?)*(?:\d{1,19})?)\), \}[ ]*\n"
)
_MAX_NPY_HEADER = 10_000


def resolved(path, refused: str = "\\") -> pathlib.Path:
    """Returns a path as tensorstore takes it: absolute, without '..' and symbolic links.

    UsageError for a path that it would take for another one: it reads a backslash as a slash, and bytes that are not UTF-8 not
    at all. `refused` are the characters to refuse.
    """
    full = pathlib.Path(path).resolve()
    wrong = [mark for mark in refused if mark in str(full)]
    try:
        str(full).encode()
    except UnicodeEncodeError:
        wrong.append("bytes that are not UTF-8")
    if wrong:
        raise UsageError(
            f"{str(full)!r}: arrays cannot be stored below a folder with {wrong[0]} in its name; choose another"
        )
    return full


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
    lengths = [max(1, n) for n in piece]
    for axis in reversed(range(len(lengths))):
        room = PIECE // (math.prod(lengths) * np.dtype(dtype).itemsize)
        lengths[axis] = min(max(1, shape[axis]), lengths[axis] * max(1, room))
    return tuple(lengths)


def open_arrays(step_folder, item: str = "params") -> dict[str, tensorstore.TensorStore | Packed]:
    """Returns {path: lazily read array} of one item, so that a reader holds only the blocks it asks for.

    Packed arrays read as the float32 arrays that they stand for.
    """
    step_folder = resolved(step_folder)
    manifest = files.read_manifest(step_folder)
    copies.complete(step_folder, [name for name in manifest["files"] if name.startswith(f"{item}/")])
    schemes, tree = packed_arrays.schemes(manifest, item, step_folder / files.MANIFEST), manifest["trees"][item]
    names = [
        name
        for path in tree
        for name in ([path] if path not in schemes else [f"{path}/{part}" for part in (CODES, SCALES)])
    ]
    opening = {name: tensorstore.open(_store(step_folder / item, name), read=True, open=True) for name in names}
    try:
        opened = {name: future.result() for name, future in opening.items()}
    except ValueError as e:
        raise unreadable(step_folder / item, e) from e
    location = str(step_folder)
    return {
        path: packed_arrays.opened(opened, path, schemes[path], tree[path]["shape"], location)
        if path in schemes
        else opened[path]
        for path in tree
    }


def unreadable(folder, error: Exception) -> DataError:
    """Returns the DataError of arrays whose files match their manifest and are yet none that tensorstore or Orbax reads."""
    return DataError(
        f"{folder}: its arrays cannot be read ({documents.first_line(error)[:200]}); restore the folder from its source"
    )


def specs_of(opened: Mapping[str, tensorstore.TensorStore | Packed]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Returns the shape and the dtype of every array of `open_arrays`."""
    is_packed = lambda array: isinstance(array, Packed)  # noqa: E731
    return {
        path: (tuple(x.shape), np.dtype(np.float32) if is_packed(x) else x.dtype.numpy_dtype)
        for path, x in opened.items()
    }


def stored_piece(array: tensorstore.TensorStore | Packed) -> tuple[int, ...]:
    """Returns the shape of the pieces that an array of `open_arrays` is best read in; () of a number."""
    return array.piece if isinstance(array, Packed) else tuple(array.chunk_layout.read_chunk.shape or ())


def load_numpy(step_folder, item: str = "params") -> dict:
    """Returns an item as a nested dict of numpy arrays, after verifying its files."""
    files.verify_manifest(step_folder, item)
    reading = {path: array.read() for path, array in open_arrays(step_folder, item).items()}
    return trees.unflatten({path: np.asarray(future.result()) for path, future in reading.items()})


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
    tree: Mapping[str, Mapping[str, Any]] | None = None,
    **extra,
) -> pathlib.Path:
    """Writes a bundle whose parameters are never in memory whole: `values(path, block)` gives one block of one array.

    `specs` are the shape and the dtype of every array by its path, `blocks_of` the blocks that cover it, all of one size but
    the last ones; each is stored as a piece of its own. `values` is called by several threads; `check` at the end, to raise
    where what was given must not become a bundle. `contents` are the small files, `extra` goes into the manifest. `tree`
    is what the manifest says of the arrays where they are stored otherwise than they are read (`packed_arrays`). Whole or not
    at all.
    """
    path = pathlib.Path(path)
    resolved(path)
    stored = {p: {"shape": list(shape), "dtype": str(np.dtype(dtype))} for p, (shape, dtype) in specs.items()}
    with files.new_folder(path, overwrite) as temporary:
        try:
            _write_item(resolved(temporary) / "params", specs, blocks_of, values, progress)
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
        files.write_manifest(temporary, trees={"params": tree or stored}, **extra)
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
        value = values(p, block)
        opened[p][block].write(value, can_reference_source_data_indefinitely=True).result()

    with futures.ThreadPoolExecutor(_LANES) as pool:
        running = [pool.submit(one, p, block) for p in specs for block in blocks_of[p]]
        try:
            for number, done in enumerate(running, 1):
                done.result()
                progress(number / len(running))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    (folder / "_METADATA").write_text(json.dumps(_orbax_metadata(specs)))


def write_blocks(
    folder, stored: Mapping[str, tuple[tuple[int, ...], Any, Sequence[int], Sequence[tuple[Block, np.ndarray]]]]
) -> None:
    """Writes some blocks of the arrays of an item: what several writers write in folders of their own is the item, put together.

    `stored` are the shape, the dtype, the shape of the stored pieces and the (block, values) of every array by its path. No piece
    may lie in blocks of two writers.
    """
    folder = resolved(folder)
    writing = []
    for path, (shape, dtype, piece, blocks) in stored.items():
        opened = tensorstore.open(
            {**_plain_store(folder, path), "metadata": {"compressor": None}},
            create=True,
            delete_existing=True,  # what a killed process has left
            dtype=tensorstore.dtype(np.dtype(dtype)),
            shape=shape,
            chunk_layout=tensorstore.ChunkLayout(chunk_shape=[max(1, n) for n in piece]),
        ).result()
        writing += [
            opened[block].write(values, can_reference_source_data_indefinitely=True) for block, values in blocks
        ]
    for done in writing:
        done.result()
    (folder / "_METADATA").write_text(json.dumps(_orbax_metadata(stored, use_ocdbt=False)))


def _orbax_metadata(paths: Iterable[str], use_ocdbt: bool = True) -> dict:
    """Returns what Orbax keeps beside the arrays of an item: a tree of dicts with numpy arrays."""
    value = {"value_type": "np.ndarray", "skip_deserialize": False}
    tree_metadata = {
        str(tuple(path.split("/"))): {
            "key_metadata": [{"key": key, "key_type": 2} for key in path.split("/")],
            "value_metadata": value,
        }
        for path in paths
    }
    return {
        "tree_metadata": tree_metadata,
        "use_ocdbt": use_ocdbt,
        "use_zarr3": False,
        "store_array_data_equal_to_fill_value": True,
        "custom_metadata": None,
    }


def _store(folder: pathlib.Path, name: str) -> dict:
    """Returns where tensorstore finds the array `name` of an item."""
    if (folder / name.replace("/", ".") / ".zarray").is_file():
        return _plain_store(folder, name)
    base = {"driver": "file", "path": f"{folder}/"}
    return {
        "driver": "zarr",
        "kvstore": {"driver": "ocdbt", "base": base, "path": name.replace("/", ".") + "/"},
        "store_data_equal_to_fill_value": True,
    }


def _plain_store(folder: pathlib.Path, name: str) -> dict:
    """Returns where tensorstore finds an array whose pieces are files of their own, as `write_blocks` writes them."""
    kvstore = {"driver": "file", "path": f"{folder}/{name.replace('/', '.')}/"}
    return {"driver": "zarr", "kvstore": kvstore, "store_data_equal_to_fill_value": True}


def npy_bytes(values: np.ndarray) -> bytes:
    """Returns an array as the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def npz_bytes(**values: np.ndarray) -> bytes:
    """Returns named arrays as the bytes of a .npz file, which `read_npz` reads."""
    buffer = io.BytesIO()
    np.savez(buffer, **values)
    return buffer.getvalue()


def parse_npy(content: bytes, location: str) -> np.ndarray:
    """Returns the array of a .npy file's bytes, read-only. `location` is what errors call it."""
    dtype, order, shape, start = _npy_header(content[: _MAX_NPY_HEADER + 12], len(content), location)
    return np.frombuffer(content, dtype, math.prod(shape), start).reshape(shape, order=order)


def read_npy(path, *, mmap: bool = False) -> np.ndarray:
    """Returns the array of a .npy file, read-only; with `mmap` it stays on disk.

    The shape that the file declares must fit its size exactly, before anything is allocated. Arrays of Python objects are
    refused, so that reading never executes anything. What cannot be read is a DataError of one line.
    """
    path = pathlib.Path(path)
    try:
        if not mmap:
            return parse_npy(path.read_bytes(), str(path))
        size = path.stat().st_size
        with open(path, "rb") as f:
            dtype, order, shape, start = _npy_header(f.read(_MAX_NPY_HEADER + 12), size, str(path))
        if start == size:  # of an empty array there is nothing to map
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, "r", start, shape, order)
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror or e}); restore it, or make it again") from e


def _npy_header(head: bytes, size: int, location: str) -> tuple[np.dtype, str, tuple[int, ...], int]:
    """Returns dtype, order, shape and the offset of the values of a .npy file of `size` bytes that begins with `head`."""

    def refused(reason: str) -> DataError:
        return DataError(f"{location}: not a .npy file of numbers ({reason}); restore it, or make it again")

    if head[:6] != b"\x93NUMPY" or head[6:8] not in (b"\x01\x00", b"\x02\x00"):
        raise refused("its first bytes are others")
    begin = 10 if head[6] == 1 else 12
    stop = begin + int.from_bytes(head[8:begin], "little")
    match = _NPY_HEADER.fullmatch(head[begin:stop]) if stop <= len(head) else None
    if match is None:
        raise refused("its header declares no array of numbers")
    try:
        dtype = np.dtype(match[1].decode())
    except TypeError as e:
        raise refused(f"the type {match[1].decode()} is unknown") from e
    shape = tuple(int(n) for n in match[3].decode().split(",") if n.strip())
    if len(shape) > 32 or max(shape, default=0) > size:
        raise refused(f"its shape is {shape}")
    if stop + math.prod(shape) * dtype.itemsize != size:
        raise refused(f"{size - stop:,} bytes of values do not make {dtype}{list(shape)}")
    return dtype, "F" if match[2] == b"True" else "C", shape, stop


def read_npz(path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Returns {name: array} of a .npz file, each checked as `read_npy` checks; with `names` it must hold exactly these.

    Members must be stored as they are: a compressed one may expand without bound, and members that overlap share bytes.
    """
    path = pathlib.Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members)
            arrays = {
                m.filename.removesuffix(".npy"): parse_npy(archive.read(m), f"{path}[{m.filename}]") for m in members
            }
    except DataError:
        raise
    except (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile) as e:
        raise DataError(
            f"{path}: not a readable .npz file ({documents.first_line(e)}); restore it, or make it again"
        ) from e
    if names is not None and set(arrays) != set(names):
        raise DataError(f"{path}: holds {', '.join(arrays) or 'no array'} instead of {', '.join(names)}; make it again")
    return arrays


def _check_members(path: pathlib.Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Raises DataError unless all members together are stored as they are within the file's own size, each once."""
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise DataError(f"{path}: the member {member.filename!r} is compressed; write it with numpy.savez")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise DataError(f"{path}: its members overlap; restore it, or make it again")
    if len({member.filename for member in members}) < len(members):
        raise DataError(f"{path}: two members have one name; restore it, or make it again")
