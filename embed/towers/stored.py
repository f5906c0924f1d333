"""Arrays by name from the files that towers come in: safetensors, TIPS' .npz and ONNX. Nothing of a file is executed."""

import pathlib
import re
import zipfile
from collections.abc import Callable, Sequence

import numpy as np

from embed.errors import DataError, UsageError
from embed.interop.tensors import Reader


class Arrays:
    """Arrays that are read when they are asked for, with the interface of `tensors.Reader`."""

    def __init__(
        self, folder: pathlib.Path, files: Sequence[pathlib.Path], readers: dict[str, Callable[[], np.ndarray]]
    ):
        self.folder, self.files, self._readers = folder, list(files), readers
        self._shapes: dict[str, tuple[int, ...]] = {}

    def names(self) -> list[str]:
        return list(self._readers)

    def read(self, name: str) -> np.ndarray:
        """Returns an array in float32; values that are not finite are a DataError."""
        array = np.asarray(self._readers[name](), np.float32)
        if not np.isfinite(array).all():
            raise DataError(f"{self.folder}: {name} holds values that are not finite; restore it from its source")
        return array

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            self._shapes[name] = self.read(name).shape
        return self._shapes[name]


def of_safetensors(folder: pathlib.Path) -> Reader:
    """Returns the arrays of a folder's safetensors files."""
    return Reader(folder)


def of_npz(path: pathlib.Path) -> Arrays:
    """Returns the arrays of an .npz file, read whole."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        raise DataError(f"{path}: cannot be read ({str(e)[:80]}); download it again") from e
    return Arrays(path.parent, [path], {name: (lambda array=array: array) for name, array in arrays.items()})


_LINEAR = re.compile(r"/(?P<name>[^ ]+)/MatMul")


def of_onnx(path: pathlib.Path) -> Arrays:
    """Returns the arrays of a Dinov2 tower that torch wrote as ONNX, by the names that they have on the Hub.

    torch keeps the names of most arrays. The weights of linear maps have numbers for names; the node that multiplies by one is
    called after its module. The positions are cut into those of the class token and of the patches.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as e:
        raise UsageError("reading ONNX needs a package; run: pip install 'embed[export]'") from e
    try:
        graph = onnx.load(str(path)).graph
    except Exception as e:  # the library raises its own types for every kind of damage
        raise DataError(f"{path}: not a whole ONNX file ({str(e)[:80]}); download it again") from e
    held = {tensor.name: tensor for tensor in graph.initializer}
    named = {name: (tensor, False) for name, tensor in held.items() if not name.startswith("onnx::")}
    for node in graph.node:
        linear = _LINEAR.fullmatch(node.name) if node.op_type == "MatMul" else None
        if linear is not None and node.input[1] in held:
            named[f"{linear['name'].replace('/', '.')}.weight"] = held[node.input[1]], True
    readers = {
        name: (lambda tensor=tensor, turned=turned: _array(numpy_helper.to_array(tensor), turned))
        for name, (tensor, turned) in named.items()
    }
    tokens = [name for name in named if name.endswith("embeddings.cls_token")]
    if len(tokens) == 1:
        positions = _positions(graph, held, tokens[0])
        if positions:
            parts = [numpy_helper.to_array(tensor) for tensor in positions]
            readers[tokens[0].removesuffix("cls_token") + "position_embeddings"] = lambda: np.concatenate(parts, 1)
    return Arrays(path.parent, [path], readers)


def _array(array: np.ndarray, turned: bool) -> np.ndarray:
    return array.T if turned else array


def _positions(graph, held, token: str) -> list:
    """Returns the arrays of the class token's position and of the patches'; none where they are missing or several may be meant."""
    width = held[token].dims[-1]
    apart = [held[name] for node in graph.node for name in node.input if name.startswith("onnx::") and name in held]
    apart = [tensor for tensor in apart if len(tensor.dims) == 3 and tensor.dims[0] == 1 and tensor.dims[2] == width]
    lead = [tensor for tensor in apart if tensor.dims[1] == 1]
    patches = [tensor for tensor in apart if round(tensor.dims[1] ** 0.5) ** 2 == tensor.dims[1] > 1]
    return [lead[0], patches[0]] if len(lead) == len(patches) == 1 else []
