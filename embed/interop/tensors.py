"""Tensors by their foreign names: read from safetensors, laid out as our parameters, and back.

A family lists its tensors as data. Nothing is guessed: a tensor that is missing, left over or of another shape is an error
that lists them all. Foreign linear weights are [out, in]; our kernels are [in, out] with heads apart.
"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from embed import documents
from embed.errors import DataError

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
_LISTED = 12  # names an error spells out; the rest is counted


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One foreign tensor and the parameters it holds, one after the other along its first axis.

    `name` has {} for the number of the layer when `paths` lie under the scanned layers. `inputs` counts the leading axes of
    a kernel that are summed over, and is None for what is not a kernel. Layers before `first_layer` have no such tensor and
    hold `fill`. `layer_index` lists (number of the layer, its index in the stacked parameters) where the layers do not lie one
    after the other along the first axis.
    """

    name: str
    paths: tuple[str, ...]
    inputs: int | None = None
    first_layer: int = 0
    fill: float = 0.0
    layer_index: tuple[tuple[int, tuple[int, ...]], ...] | None = None

    @property
    def stacked_axes(self) -> int:
        """Returns how many leading axes of our parameters number the layers."""
        return len(self.layer_index[0][1]) if self.layer_index is not None else int("{}" in self.name)

    def foreign_names(self, layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yields the foreign name of every layer that has the tensor, and its index in our parameters."""
        if "{}" not in self.name:
            yield self.name, ()
            return
        for layer, index in self.layer_index or [(layer, (layer,)) for layer in range(self.first_layer, layers)]:
            yield self.name.format(layer), index

    def foreign_shape(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """Returns the shape of the foreign tensor, from our parameters' shapes (of one layer)."""
        if self.inputs is not None:
            return sum(math.prod(s[self.inputs :]) for s in shapes), math.prod(shapes[0][: self.inputs])
        if self.name.endswith("bias"):
            return (sum(math.prod(s) for s in shapes),)
        return shapes[0]

    def split(self, array: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """Returns our parameters, from the foreign tensor."""
        sizes = [math.prod(s[self.inputs or 0 :]) for s in shapes]
        parts = np.split(array, np.cumsum(sizes)[:-1]) if len(shapes) > 1 else [array]
        return [(p.T if self.inputs is not None else p).reshape(s) for p, s in zip(parts, shapes)]

    def join(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the foreign tensor, from our parameters; `split` undoes it to the bit."""
        shape = self.foreign_shape([a.shape for a in arrays])
        if self.inputs is None:
            return np.concatenate([a.reshape(-1, *shape[1:]) for a in arrays])
        return np.ascontiguousarray(np.concatenate([a.reshape(shape[1], -1).T for a in arrays]))


def linear(name: str, path: str, inputs: int = 1, **options) -> tuple[Tensor, Tensor]:
    """Returns the tensors of a linear map, whose bias may not be there."""
    return Tensor(f"{name}.weight", (f"{path}/kernel",), inputs, **options), Tensor(
        f"{name}.bias", (f"{path}/bias",), **options
    )


def norm(name: str, path: str, **options) -> tuple[Tensor, Tensor]:
    """Returns the tensors of a normalisation, whose bias may not be there."""
    return Tensor(f"{name}.weight", (f"{path}/scale",), **options), Tensor(f"{name}.bias", (f"{path}/bias",), **options)


class Reader:
    """The tensors of a folder's safetensors files, read one at a time. Opening checks that every file is whole."""

    def __init__(self, folder: pathlib.Path):
        self._open: dict[str, Any] = {}
        self._file_of: dict[str, str] = {}
        self.folder = folder
        self.files, _ = weight_files(folder)
        for path in self.files:
            handle = _opened(path)
            for name in handle.keys():  # noqa: SIM118 - not a dict
                if name in self._open:
                    raise DataError(
                        f"{path}: holds {name}, which another file of the index holds too; download them again"
                    )
                self._open[name] = handle
                self._file_of[name] = path.name
        _check_index(self.folder / INDEX, self.files, self._file_of)

    def names(self) -> list[str]:
        return list(self._open)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._open[name].get_slice(name).get_shape())

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor in float32. Values that are not finite, and types that are not floats, are DataErrors."""
        import ml_dtypes  # noqa: F401 - registers bfloat16 with numpy

        dtype = self._open[name].get_slice(name).get_dtype()
        if dtype not in ("F32", "BF16", "F16", "F64"):
            raise DataError(
                f"{self.folder}: {name} is stored as {dtype}; quantised weights cannot be trained, get the float ones"
            )
        with np.errstate(over="ignore"):  # what overflows is found below
            array = self._open[name].get_tensor(name).astype(np.float32)
        if not np.all(np.isfinite(array)):
            why = "float16 overflowed when they were saved; get" if dtype == "F16" else "get"
            raise DataError(
                f"{self.folder}: {name} holds values that are not finite; {why} the float32 or bfloat16 weights"
            )
        return array


def _opened(path: pathlib.Path) -> Any:
    import safetensors

    try:
        return safetensors.safe_open(path, framework="numpy")
    except Exception as e:  # the library raises its own type for every kind of damage
        raise DataError(f"{path}: not a whole safetensors file ({str(e)[:120]}); download or copy it again") from e


def stored_dtypes(path: pathlib.Path) -> set[str]:
    """Returns the types of the arrays of a safetensors file, by the names of that format: F32, BF16, F16."""
    handle = _opened(path)
    return {handle.get_slice(name).get_dtype() for name in handle.keys()}  # noqa: SIM118 - not a dict


def weight_files(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[str]]:
    """Returns the safetensors files of a folder that transformers reads, and notes of weights that are left out.

    One whole file comes before an index of several.
    """
    pickles = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt"))
    if (folder / WEIGHTS).is_file():
        used = [folder / WEIGHTS]
    elif (folder / INDEX).is_file():
        used = [folder / name for name in sorted(set(_weight_map(folder / INDEX).values()))]
    elif pickles:
        raise DataError(
            f"{folder}: only has {pickles[0]}, a pickle, which can run code when it is opened; where you trust it, "
            "convert it with transformers: AutoModel.from_pretrained(FOLDER).save_pretrained(NEW, safe_serialization=True)"
        )
    else:
        raise DataError(f"{folder}: holds no {WEIGHTS} or {INDEX}; point to a folder with safetensors weights")
    others = [
        p.name for p in sorted(folder.glob("*.safetensors")) if p not in used and p.name != "adapter_model.safetensors"
    ]
    if (folder / "adapter_config.json").is_file():
        raise DataError(
            f"{folder}: has an adapter (adapter_config.json), which sentence-transformers would add; merge it into the "
            "weights: merge_and_unload() of peft"
        )
    if (folder / INDEX).is_file() and used == [folder / WEIGHTS]:
        others.insert(0, INDEX)
    return used, [f"{folder}: {', '.join(u.name for u in used[:3])} is read, not {_some(others)}"] if others else []


def _weight_map(path: pathlib.Path) -> dict[str, str]:
    """Returns which file an index says that each tensor is in, after checking that those files are there."""
    weight_map = documents.read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(n, str) for n in weight_map.values()):
        raise DataError(f"{path}: not an index of safetensors files; download it again")
    names = sorted(set(weight_map.values()))
    wrong = [n for n in names if pathlib.PurePath(n).name != n]
    missing = [n for n in names if n not in wrong and not (path.parent / n).is_file()]
    if wrong or missing:
        what = f"names files outside the folder: {wrong[0]}" if wrong else f"lacks {', '.join(missing)}"
        raise DataError(f"{path}: {what}; download the folder again")
    return weight_map


def _check_index(path: pathlib.Path, used: Sequence[pathlib.Path], file_of: Mapping[str, str]) -> None:
    """Raises DataError when an index that is used is not what its files hold."""
    if not path.is_file() or used[0].name == WEIGHTS:
        return
    weight_map = _weight_map(path)
    for name in sorted({*weight_map, *file_of}):
        if weight_map.get(name) != file_of.get(name):
            raise DataError(
                f"{path}: says that {name} is in {weight_map.get(name, 'no file')}, but it is in "
                f"{file_of.get(name, 'no file')}; download the folder again"
            )


def find_prefix(names: Sequence[str], tensors: Sequence[Tensor], prefixes: Sequence[str]) -> str:
    """Returns the prefix under which most of a family's tensors are found; the first one when none is."""
    present = set(names)
    names = [next(t.foreign_names(t.first_layer + 1))[0] for t in tensors]
    count = lambda prefix: sum(prefix + name in present for name in names)  # noqa: E731
    return max(prefixes, key=lambda prefix: (count(prefix), -prefixes.index(prefix)))


def _used(tensors: Sequence[Tensor], shapes: Mapping[str, tuple[int, ...]]) -> list[Tensor]:
    """Returns the tensors whose parameters this model has; a parameter no tensor holds is a fault of the family's file."""
    used = [t for t in tensors if all(p in shapes for p in t.paths)]
    unmapped = set(shapes) - {p for t in used for p in t.paths}
    if unmapped:
        raise ValueError(f"parameters without a foreign name: {sorted(unmapped)}")
    return used


def _layer_shapes(tensor: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [tuple(shapes[p][tensor.stacked_axes :]) for p in tensor.paths]


def read_all(
    reader: Reader,
    tensors: Sequence[Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    layers: int,
    prefixes: Sequence[str] = ("",),
    ignored: Sequence[str] = (),
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, np.ndarray]:
    """Returns {path: float32 array} for every path of `shapes`. Tensors matching `ignored` (regular expressions, after the
    prefix) may be left over; any other difference is one DataError that lists them all."""
    used = _used(tensors, shapes)
    prefix = find_prefix(reader.names(), used, prefixes)
    expected_names = {prefix + name: t for t in used for name, _ in t.foreign_names(layers)}
    _check_names(reader, expected_names, shapes, prefix, ignored)
    out = {
        path: np.full(shape, next(t.fill for t in used if path in t.paths), np.float32)
        if any(t.first_layer and path in t.paths for t in used)
        else np.empty(shape, np.float32)
        for path, shape in shapes.items()
    }
    for number, tensor in enumerate(used):
        for name, index in tensor.foreign_names(layers):
            parts = tensor.split(reader.read(prefix + name), _layer_shapes(tensor, shapes))
            for path, part in zip(tensor.paths, parts):
                out[path][index] = part
        progress((number + 1) / len(used))
    return out


def _check_names(
    reader: Reader, expected_names: Mapping[str, Tensor], shapes, prefix: str, ignored: Sequence[str]
) -> None:
    names = set(reader.names())
    missing = sorted(n for n in expected_names if n not in names)
    known = re.compile("|".join(f"(?:{p})" for p in ignored) or r"(?!)")
    extra = sorted(
        n for n in names - set(expected_names) if not (known.fullmatch(n.removeprefix(prefix)) or known.fullmatch(n))
    )
    wrong = []
    for name, tensor in expected_names.items():
        expected = tensor.foreign_shape(_layer_shapes(tensor, shapes))
        if name in names and reader.shape(name) != expected:
            wrong.append(f"{name} is {list(reader.shape(name))}, the configuration says {list(expected)}")
    parts = [
        f"{word} {_some(items)}"
        for word, items in (("missing", missing), ("unknown", extra), ("shapes", wrong))
        if items
    ]
    if parts:
        raise DataError(
            f"{reader.folder}: its tensors are not those of its configuration: {'; '.join(parts)}; "
            "get the whole checkpoint, with its own config.json"
        )


def _some(items: Sequence[str]) -> str:
    return ", ".join(items[:_LISTED]) + (f" and {len(items) - _LISTED} more" if len(items) > _LISTED else "")


def foreign_shapes(
    tensors: Sequence[Tensor], shapes: Mapping[str, tuple[int, ...]], layers: int
) -> dict[str, tuple[int, ...]]:
    """Returns {foreign name: shape} in the order in which `foreign_tensors` gives them."""
    return {
        name: t.foreign_shape(_layer_shapes(t, shapes))
        for t in _used(tensors, shapes)
        for name, _ in t.foreign_names(layers)
    }


def foreign_tensors(
    tensors: Sequence[Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    layers: int,
    read: Callable[[str], np.ndarray],
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (foreign name, array) for every foreign tensor of a model; `read(path)` gives one of our parameters."""
    for tensor in _used(tensors, shapes):
        arrays = [read(path) for path in tensor.paths]
        for name, index in tensor.foreign_names(layers):
            yield name, tensor.join([a[index] for a in arrays])
