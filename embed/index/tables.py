"""The documents and vectors of an index as files that viewers of embeddings open: a parquet table, and the TensorBoard projector's.

Documents that were removed are left out. Both forms keep the float32 values exactly.
"""

import importlib.util
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from embed import files
from embed.errors import DataError, UsageError
from embed.index.store import Index

FORMATS = ("parquet", "projector")
VECTOR = "vector"  # the parquet table's column of vectors
VECTORS, METADATA, CONFIG = "vectors.tsv", "metadata.tsv", "projector_config.pbtxt"
_BLOCK = 8192
_FIRST = ("id", "title", "text", "image")  # columns in this order, then the others as the documents have them
_INT64, _IN_FLOAT = range(-(2**63), 2**63), range(-(2**53), 2**53 + 1)


def write(
    index: Index, output: pathlib.Path, format: str, progress: Callable[[int], None] = lambda texts: None
) -> None:
    """Writes an index in one of `FORMATS`: 'parquet' is a file, 'projector' a folder. `progress` gets numbers of documents."""
    if format == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UsageError("--export=parquet needs pyarrow; run: pip install 'embed[parquet]'")
    kinds = _kinds(index)
    if format == "projector":
        with files.new_folder(output) as folder:
            _write_projector(index, folder, list(kinds), progress)
        return
    if VECTOR in kinds:
        raise DataError(
            f"{index.folder}: a document has the field {VECTOR!r}, which is the table's column of the vectors; make the index "
            "from a corpus that calls this field otherwise"
        )
    if output.is_dir():
        raise UsageError(f"{output}: a folder, and --export=parquet writes a file; name the file")
    files.check_new(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with files.new_file(output) as path:
        _write_parquet(index, path, kinds, progress)


def _blocks(index: Index) -> Iterator[tuple[list[dict[str, Any]], np.ndarray]]:
    """Yields (documents, vectors float32 [n, E]) in the order of the index, without those that were removed."""
    documents = index.documents()
    while block := list(itertools.islice(documents, _BLOCK)):
        yield [row for _, row in block], index.vectors.take(np.array([number for number, _ in block]))


def _kinds(index: Index) -> dict[str, str]:
    """Returns {field: 'bool', 'integer', 'large integer', 'float', 'string' or 'json'} of the documents' fields, `_FIRST` first.

    Integers among floats are floats, but for large ones, which float64 cannot hold. A field whose values are of several other
    kinds, lists or objects is 'json': each value as JSON. Fields that are always empty are left out, but for the id and the text.
    """
    kinds_of: dict[str, set[str]] = {"id": {"string"}, "text": {"string"}}
    for documents, _ in _blocks(index):
        for document in documents:
            for name, value in document.items():
                if value is not None and value != "":
                    kinds_of.setdefault(name, set()).add(_kind(value))
    kinds = {}
    for name, seen in kinds_of.items():
        if seen == {"integer", "float"}:
            seen = {"float"}
        if seen == {"integer", "large integer"}:
            seen = {"large integer"}
        kinds[name] = next(iter(seen)) if len(seen) == 1 else "json"
    order = [name for name in _FIRST if name in kinds]
    return {name: kinds[name] for name in [*order, *(name for name in kinds if name not in _FIRST)]}


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "integer" if value in _IN_FLOAT else "large integer" if value in _INT64 else "json"
    return {float: "float", str: "string"}.get(type(value), "json")


def _json(value: Any) -> str | None:
    return None if value in (None, "") else json.dumps(value, ensure_ascii=False)


def _write_parquet(index: Index, path: pathlib.Path, kinds: dict[str, str], progress) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    types = {
        "bool": arrow.bool_(),
        "integer": arrow.int64(),
        "large integer": arrow.int64(),
        "float": arrow.float64(),
    }
    dims = index.vectors.shape[1]
    columns = [arrow.field(name, types.get(kind, arrow.string())) for name, kind in kinds.items()]
    schema = arrow.schema([*columns, arrow.field(VECTOR, arrow.list_(arrow.float32(), dims))])
    with parquet.ParquetWriter(path, schema) as writer:
        for documents, vectors in _blocks(index):
            arrays = []
            for name, kind in kinds.items():
                values = [document.get(name) for document in documents]
                if kind == "json":
                    values = [_json(value) for value in values]
                elif kind != "string":  # "" stands for no value
                    values = [None if value == "" else value for value in values]
                arrays.append(arrow.array(values, schema.field(name).type))
            arrays.append(arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.reshape(-1)), dims))
            writer.write_table(arrow.table(arrays, schema))
            progress(len(documents))


def _write_projector(index: Index, folder: pathlib.Path, names: list[str], progress) -> None:
    """Writes the vectors and the documents, a line each, and the configuration by which TensorBoard finds both."""
    with (
        open(folder / VECTORS, "w", encoding="utf-8", newline="\n") as vectors_file,
        open(folder / METADATA, "w", encoding="utf-8", newline="\n") as metadata_file,
    ):
        # A table of one column has no line of names there; this one always has two, the id and the text.
        header = [_cell(name) for name in names]
        if len(set(header)) < len(header):
            raise DataError(
                f"{index.folder}: fields of its documents differ in white space alone: {sorted(names)}; rename one"
            )
        metadata_file.write("\t".join(header) + "\n")
        for documents, vectors in _blocks(index):
            # The shortest digits that give the same float32 again.
            vectors_file.writelines("\t".join(map(str, vector)) + "\n" for vector in vectors)
            for document in documents:
                cells = [document.get(name) for name in names]
                metadata_file.write("\t".join(_cell(c if isinstance(c, str) else _json(c) or "") for c in cells) + "\n")
            progress(len(documents))
    (folder / CONFIG).write_text(
        f'embeddings {{\n  tensor_name: "documents"\n  tensor_path: "{VECTORS}"\n  metadata_path: "{METADATA}"\n}}\n'
    )


def _cell(text: str) -> str:
    """Returns a text in one line without tabs: lines and cells of a tsv cannot hold either."""
    return " ".join(text.split())
