"""Sources that read files of records: JSON lines, tables, parquet."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from embed import ranges
from embed.documents import first_line
from embed.errors import DataError
from embed.ranges import Share
from embed.sources.fields import DEFAULT_BAD_SHARE, DEFAULT_FIELDS, BadRecords, Record, map_records
from embed.sources.lines import raw_lines, read_json_lines
from embed.sources.paths import expand_paths, source_digest
from embed.sources.tables import read_table, text_of_bytes


class Mapped:
    """Base of sources with raw() whose rows are mapped by `fields`; they have `optional`, `on_bad_record` and `max_bad_share`.

    A source that `is_table` has cells of text, in which a list is JSON.
    """

    is_table: ClassVar[bool] = False

    def __post_init__(self):
        ranges.check_fields(self)
        _ = self.bad_records  # refuses a policy that is none

    @functools.cached_property
    def bad_records(self) -> BadRecords:
        """The records that the last `examples` left out."""
        return BadRecords(self.on_bad_record, self.max_bad_share, type(self).__name__)

    def examples(self) -> Iterator[tuple[str, Record]]:
        """Yields (location, record) of all rows in order."""
        self.__dict__.pop("bad_records", None)  # counted anew
        return map_records(
            self.raw(), self.fields, self.optional, type(self).__name__, self.bad_records, is_table=self.is_table
        )


@dataclasses.dataclass(frozen=True)
class Files(Mapped):
    """Base of sources that read files. `path` is one path or several; they are read in sorted order.

    `fields` maps our roles to the files' fields, which may be paths into nested ones (`fields.value_at`). Roles in `optional`
    may be mapped to a field that no record has, and may be left unused by a recipe. With `on_bad_record` 'skip' a record that
    cannot be read or mapped is left out and counted, up to the share `max_bad_share` of all; with 'error' it ends the reading.
    """

    path: str | Sequence[str]
    fields: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(DEFAULT_FIELDS))
    optional: Sequence[str] = ()
    on_bad_record: str = "error"
    max_bad_share: Share = DEFAULT_BAD_SHARE

    def paths(self) -> list[str]:
        """Returns the files, sorted; a path with * is a pattern. None found is a DataError."""
        return expand_paths(self.path, f"{type(self).__name__}.path")

    def fingerprint(self) -> dict[str, str]:
        """Returns {file: sha256}, which decides whether a token cache is still of these files."""
        return {path: source_digest(path) for path in self.paths()}

    def rows(self, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields ("file:line", raw record)."""
        raise NotImplementedError

    def count(self) -> int:
        """Returns about how many records the files have, judged by their lines."""
        return sum(sum(1 for _ in raw_lines(path)) for path in self.paths())

    def raw(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields ("file:line", raw record) of all files in order."""
        for path in self.paths():
            yield from self.rows(path)


@dataclasses.dataclass(frozen=True)
class JsonLines(Files):
    """One JSON object a line, or one array of objects; also .gz. `fields` maps our roles to the file's field names."""

    def rows(self, path):
        return read_json_lines(path, self.bad_records.refuse)


@dataclasses.dataclass(frozen=True)
class TabSeparated(Files):
    """Tables with a header line, .tsv or .csv, also .gz; `fields` maps our roles to column names.

    `quoting` is 'csv', 'none' or 'auto' (`tables.read_table`). With `python_bytes` cells such as b'caf\\xc3\\xa9' are
    decoded, as MMIR's files need.
    """

    is_table: ClassVar[bool] = True
    quoting: str = "auto"
    python_bytes: bool = False

    def rows(self, path):
        for location, row in read_table(path, self.quoting, self.bad_records.refuse):
            if self.python_bytes:
                try:
                    row = {name: text_of_bytes(cell, location) for name, cell in row.items()}
                except DataError as e:
                    self.bad_records.refuse(e)
                    continue
            yield location, row


@dataclasses.dataclass(frozen=True)
class Parquet(Files):
    """Parquet files; `fields` maps our roles to column names. Needs the extra [parquet]."""

    def rows(self, path):
        with _opened_table(path) as table:
            number = 0
            for batch in table.iter_batches(1024):
                for raw in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", raw

    def count(self) -> int:
        """Returns how many records the files say that they have."""
        total = 0
        for path in self.paths():
            with _opened_table(path) as table:
                total += table.metadata.num_rows
        return total


@contextlib.contextmanager
def _opened_table(path: str):
    """Yields a parquet file; what cannot be read of it is a DataError."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as e:
        raise DataError("parquet files need pyarrow; run: pip install 'embed[parquet]'") from e
    try:
        table = parquet.ParquetFile(path)
        names = table.schema_arrow.names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{path}: two columns are called {twice!r}; give each its own name")
        yield table
    except (OSError, ValueError) as e:
        raise DataError(f"{path}: not a readable parquet file ({first_line(e)}); fetch it again") from e
