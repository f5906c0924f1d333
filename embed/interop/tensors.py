"""Tensors by their foreign names: read from safetensors, laid out as our parameters, and back.

A family lists its tensors as data. Nothing is guessed: a tensor that is missing, left over or of another shape is an error
that lists them all. Foreign linear weights are [out, in]; our kernels are [in, out] with heads apart.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from embed.errors import DataError

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
_LISTED = 12  # names an error spells out; the rest is counted


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One foreign tensor and the parameters it holds, one after the other along its first axis.

    `name` has {} for the number of the layer when `paths` lie under the scanned layers. `inputs` counts the leading axes of
    a kernel that are summed over, and is None for what is not a kernel. Layers before `first_layer` have no such tensor and
    hold `fill`.
    """

    name: str
    paths: tuple[str, ...]
    inputs: int | None = None
    first_layer: int = 0
    fill: float = 0.0

    @property
    def by_layer(self) -> bool:
        return "{}" in self.name

    def foreign_shape(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """Returns the shape of the foreign tensor, from our parameters' shapes (of one layer)."""
        if self.inputs is not None:
            return sum(math.prod(s[self.inputs :]) for s in shapes), math.prod(shapes[0][: self.inputs])
        if self.name.endswith(".bias"):
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
        import safetensors

        self._open: dict[str, Any] = {}
        self.folder = folder
        self.files = _weight_files(folder)
        for path in self.files:
            try:
                handle = safetensors.safe_open(path, framework="numpy")
            except Exception as e:  # the library raises its own type for every kind of damage
                raise DataError(
                    f"{path}: not a whole safetensors file ({str(e)[:120]}); download or copy it again"
                ) from e
            for name in handle.keys():  # noqa: SIM118 - not a dict
                self._open[name] = handle

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


def _weight_files(folder: pathlib.Path) -> list[pathlib.Path]:
    if (folder / INDEX).is_file():
        try:
            names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
            if not all(isinstance(n, str) for n in names):
                raise ValueError("its files are not named")
        except (ValueError, KeyError, AttributeError, TypeError) as e:
            raise DataError(f"{folder / INDEX}: not an index of safetensors files; download it again") from e
        wrong = [n for n in names if pathlib.PurePath(n).name != n]
        missing = [n for n in names if n not in wrong and not (folder / n).is_file()]
        if wrong or missing:
            what = f"names files outside the folder: {wrong[0]}" if wrong else f"lacks {', '.join(missing)}"
            raise DataError(f"{folder / INDEX}: {what}; download the folder again")
        return [folder / n for n in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    pickles = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt"))
    if pickles:
        raise DataError(
            f"{folder}: only has {pickles[0]}, a pickle, which can run code when it is opened; where you trust it, "
            "convert it with transformers: AutoModel.from_pretrained(FOLDER).save_pretrained(NEW, safe_serialization=True)"
        )
    raise DataError(f"{folder}: holds no {WEIGHTS} or {INDEX}; point to a folder with safetensors weights")


def find_prefix(names: Sequence[str], tensors: Sequence[Tensor], prefixes: Sequence[str]) -> str:
    """Returns the prefix under which most of a family's tensors are found; the first one when none is."""
    found = set(names)
    count = lambda prefix: sum(prefix + t.name.format(t.first_layer) in found for t in tensors)  # noqa: E731
    return max(prefixes, key=lambda prefix: (count(prefix), -prefixes.index(prefix)))


def _foreign(tensor: Tensor, layers: int) -> Iterator[tuple[str, int | None]]:
    if not tensor.by_layer:
        yield tensor.name, None
    else:
        for layer in range(tensor.first_layer, layers):
            yield tensor.name.format(layer), layer


def _used(tensors: Sequence[Tensor], shapes: Mapping[str, tuple[int, ...]]) -> list[Tensor]:
    """Returns the tensors whose parameters this model has; a parameter no tensor holds is a fault of the family's file."""
    used = [t for t in tensors if all(p in shapes for p in t.paths)]
    unmapped = set(shapes) - {p for t in used for p in t.paths}
    if unmapped:
        raise ValueError(f"parameters without a foreign name: {sorted(unmapped)}")
    return used


def _layer_shapes(tensor: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [tuple(shapes[p][1:] if tensor.by_layer else shapes[p]) for p in tensor.paths]


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
    wanted = {prefix + name: t for t in used for name, _ in _foreign(t, layers)}
    _check_names(reader, wanted, shapes, prefix, ignored)
    out = {
        path: np.full(shape, next(t.fill for t in used if path in t.paths), np.float32)
        if any(t.first_layer and path in t.paths for t in used)
        else np.empty(shape, np.float32)
        for path, shape in shapes.items()
    }
    for number, tensor in enumerate(used):
        for name, layer in _foreign(tensor, layers):
            parts = tensor.split(reader.read(prefix + name), _layer_shapes(tensor, shapes))
            for path, part in zip(tensor.paths, parts):
                out[path][... if layer is None else layer] = part
        progress((number + 1) / len(used))
    return out


def _check_names(reader: Reader, wanted: Mapping[str, Tensor], shapes, prefix: str, ignored: Sequence[str]) -> None:
    names = set(reader.names())
    missing = sorted(n for n in wanted if n not in names)
    known = re.compile("|".join(f"(?:{p})" for p in ignored) or r"(?!)")
    extra = sorted(
        n for n in names - set(wanted) if not (known.fullmatch(n.removeprefix(prefix)) or known.fullmatch(n))
    )
    wrong = []
    for name, tensor in wanted.items():
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
        for name, _ in _foreign(t, layers)
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
        for name, layer in _foreign(tensor, layers):
            yield name, tensor.join(arrays if layer is None else [a[layer] for a in arrays])
