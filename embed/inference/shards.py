"""The shards of an encoding job on disk: their files in three formats, and the sealed records that make them finished.

Shard 12 has the record `part-00012.json`, written last, which lists its other files with their sizes and digests. Nothing of
a shard is used before its files were verified.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from embed import arrays, digests, documents, files, ranges
from embed.errors import DataError
from embed.vectors import quantize_binary, quantize_int8

FORMATS = ("parquet", "npy", "jsonl")
PRECISIONS = ("float32", "int8", "binary")
_SUFFIXES = {"parquet": (".parquet",), "npy": (".npy", ".ids.txt"), "jsonl": (".jsonl",)}
_SCALES = ".scales.npy"
_DTYPES = {"float32": np.float32, "int8": np.int8, "binary": np.uint8}
_NAME = re.compile(r"part-([0-9]{5,12})(\..+)")
AGAIN = "run the encoding again to make it anew"
# Ends of lines to some readers, which JSON does not escape by itself.
_ESCAPED = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


class Record(TypedDict):
    """What the record of a shard holds."""

    job: ranges.Text
    number: ranges.Natural
    records: ranges.Count
    input: ranges.Text
    cut: ranges.Natural
    files: dict[str, digests.Entry]
    digest: ranges.Text


@dataclasses.dataclass(frozen=True)
class Shards:
    """The shards of one job in a folder. `job` is the digest of the job's description, which every record repeats."""

    folder: pathlib.Path
    format: str
    precision: str
    shard_size: int
    texts: int
    job: str

    def __len__(self) -> int:
        return math.ceil(self.texts / self.shard_size)

    def size_of(self, number: int) -> int:
        """Returns how many texts a shard has."""
        return min(self.shard_size, self.texts - number * self.shard_size)

    def path(self, number: int, suffix: str) -> pathlib.Path:
        """Returns the path of one file of a shard."""
        return self.folder / f"part-{number:05d}{suffix}"

    @property
    def _suffixes(self) -> tuple[str, ...]:
        has_scales = self.format == "npy" and self.precision == "int8"
        return (*_SUFFIXES[self.format], *([_SCALES] if has_scales else []))

    def check_names(self) -> None:
        """Raises DataError for a file that is named like one of a shard and belongs to none of this job."""
        for path in self.folder.iterdir():
            if not path.name.startswith("part-"):
                continue
            match = _NAME.fullmatch(path.name)
            belongs = (
                match is not None
                and f"{int(match[1]):05d}" == match[1]
                and int(match[1]) < len(self)
                and match[2] in (".json", *self._suffixes)
            )
            if not belongs:
                raise DataError(
                    f"{path}: belongs to no shard of this job, which has {len(self):,} of format {self.format}; remove it"
                )

    def write(self, number: int, ids: Sequence[str], vectors: np.ndarray, input_digest: str, cut: int) -> None:
        """Writes a shard; its record comes last, and without it the shard is not there."""
        scales = None
        if self.precision == "int8":
            vectors, scales = quantize_int8(vectors)
        elif self.precision == "binary":
            vectors = quantize_binary(vectors)
        for suffix, content in _contents(self.format, ids, vectors, scales).items():
            files.write_atomic(self.path(number, suffix), content)
        files.failpoint(f"encode.before_commit_{number}")
        names = [self.path(number, suffix).name for suffix in self._suffixes]
        record = {"job": self.job, "number": number, "records": len(ids), "input": input_digest, "cut": cut}
        entries = digests.entries_of(self.folder, names)
        digests.write_sealed(self.path(number, ".json"), {**record, "files": entries})
        files.failpoint(f"encode.after_commit_{number}")

    def record(self, number: int) -> dict[str, Any]:
        """Returns the record of a finished shard, without a look at its files. DataError for one that is missing or wrong."""
        path = self.path(number, ".json")
        if not path.exists():
            raise DataError(f"{path}: is missing, so the shard is not finished; run the encoding again")
        record = digests.read_sealed(path, Record, AGAIN)
        names = {self.path(number, suffix).name for suffix in self._suffixes}
        if record["job"] != self.job:
            raise DataError(f"{path}: belongs to another job; remove it, and {AGAIN}")
        if record["number"] != number or record["records"] != self.size_of(number) or set(record["files"]) != names:
            raise DataError(f"{path}: is the record of shard {record['number']}, not of this one; {AGAIN}")
        return record

    def verify(self, number: int) -> dict[str, Any]:
        """Returns the record of a shard after checking its files. DataError for the first that is missing or damaged."""
        record = self.record(number)
        digests.check_files(self.folder, record["files"], AGAIN)
        return record

    def belongs_to_another_job(self, number: int) -> bool:
        """Returns whether a shard has a whole record that another job wrote."""
        try:
            return digests.read_sealed(self.path(number, ".json"), Record)["job"] != self.job
        except DataError:
            return False

    def map_vectors(self, number: int, *, verified: bool = False) -> np.ndarray:
        """Returns the vectors of a shard of format npy, left on disk; its files are verified unless the caller has done so."""
        if not verified:
            self.verify(number)
        return self._checked(number, arrays.read_npy(self.path(number, ".npy"), mmap=True))

    def read(self, number: int) -> tuple[list[str], np.ndarray, np.ndarray | None]:
        """Returns the ids of a shard, its vectors as they are stored, and their scales, after verifying its files."""
        self.verify(number)
        path = self.path(number, _SUFFIXES[self.format][0])
        scales = None
        if self.format == "npy":
            ids = _ids(self.path(number, ".ids.txt"))
            vectors = arrays.read_npy(path)
            scales = arrays.read_npy(self.path(number, _SCALES)) if self.precision == "int8" else None
        else:
            ids, vectors, scales = (_read_jsonl if self.format == "jsonl" else _read_parquet)(path, self.precision)
        if len(ids) != self.size_of(number) or (scales is not None and scales.shape != (len(ids),)):
            raise DataError(f"{path}: does not hold one id and one vector for each of its texts; {AGAIN}")
        return ids, self._checked(number, vectors), scales

    def _checked(self, number: int, vectors: np.ndarray) -> np.ndarray:
        if vectors.ndim != 2 or len(vectors) != self.size_of(number) or vectors.dtype != _DTYPES[self.precision]:
            raise DataError(
                f"{self.path(number, _SUFFIXES[self.format][0])}: holds {vectors.dtype}{list(vectors.shape)} instead of "
                f"{self.size_of(number)} vectors of {self.precision}; {AGAIN}"
            )
        return vectors


def _contents(format: str, ids: Sequence[str], vectors: np.ndarray, scales: np.ndarray | None) -> dict[str, bytes]:
    """Returns the contents of a shard's files by suffix."""
    if format == "npy":
        lines = "".join(_json_line(i) for i in ids).encode()
        contents = {".npy": arrays.npy_bytes(vectors), ".ids.txt": lines}
        return contents if scales is None else {**contents, _SCALES: arrays.npy_bytes(scales)}
    if format == "jsonl":
        rows = [{"id": i, "embedding": v.tolist()} for i, v in zip(ids, vectors)]
        if scales is not None:
            rows = [{**row, "scale": float(scale)} for row, scale in zip(rows, scales)]
        return {".jsonl": "".join(map(_json_line, rows)).encode()}
    return {".parquet": _parquet_bytes(ids, vectors, scales)}


def _json_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).translate(_ESCAPED) + "\n"


def _lines(path: pathlib.Path) -> list[str]:
    """Returns the lines of a file, which end with a line feed and nothing else."""
    return path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")


def _ids(path: pathlib.Path) -> list[str]:
    return [documents.parse_json(line, str(path), str) for line in _lines(path)]


def _read_jsonl(path: pathlib.Path, precision: str):
    rows = [documents.parse_json(line, str(path)) for line in _lines(path)]
    scales = np.array([row["scale"] for row in rows], np.float32) if precision == "int8" else None
    return [row["id"] for row in rows], np.array([row["embedding"] for row in rows], _DTYPES[precision]), scales


def _parquet_bytes(ids: Sequence[str], vectors: np.ndarray, scales: np.ndarray | None) -> bytes:
    import io

    import pyarrow as arrow
    import pyarrow.parquet as parquet

    columns = {
        "id": arrow.array(ids, arrow.string()),
        "embedding": arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.reshape(-1)), vectors.shape[1]),
    }
    if scales is not None:
        columns["scale"] = arrow.array(scales)
    buffer = io.BytesIO()
    parquet.write_table(arrow.table(columns), buffer, compression="none", use_dictionary=False)
    return buffer.getvalue()


def _read_parquet(path: pathlib.Path, precision: str):
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as e:
        raise DataError(f"{path}: reading parquet needs pyarrow; run: pip install 'embed[parquet]'") from e
    try:
        with arrow.OSFile(str(path)) as f:  # `read_table` takes a path for a URI or a pattern in some forms
            table = parquet.read_table(f)
    except (OSError, ValueError) as e:
        raise DataError(f"{path}: not a readable parquet file ({documents.first_line(e)}); {AGAIN}") from e
    column = table.column("embedding").combine_chunks()
    vectors = column.flatten().to_numpy().reshape(len(table), -1)
    scales = table.column("scale").to_numpy() if precision == "int8" else None
    return table.column("id").to_pylist(), vectors, scales
