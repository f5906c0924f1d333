"""Records of text files, each with its location: lines, JSON lines and arrays, tables with and without quotes.

A location is "file:line" (of an array "file[index]"), for errors. Forms are recognised, not assumed, and what is ambiguous
is refused. All files may be gzip, by the suffix .gz, and may begin with a byte-order mark.
"""

import csv
import gzip
import io
import itertools
import json
import pathlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from embed import documents
from embed.errors import ConfigError, DataError, did_you_mean

MAX_LINE = 256 << 20  # bytes
_MAX_RATIO, _MAX_UNCHECKED = 200, 1 << 30  # a gzip file that is not a bomb expands less, or is smaller
QUOTING = ("auto", "csv", "none")
_ADVICE = "correct or remove the line"
_LONE_CR = "holds a carriage return without a line feed; write the ends of lines as LF or CRLF, and write others out"


Refuse = Callable[[DataError], None]  # what is done with a record that cannot be read: raise it, or count it


def raise_it(error: DataError) -> None:
    """Raises the error: a record that cannot be read ends the reading."""
    raise error


def read_lines(path: str, refuse: Refuse = raise_it) -> Iterator[tuple[str, str]]:
    """Yields ("file:line", text without its end) of a UTF-8 text file. Bad bytes and cut streams are DataErrors.

    A line that is not a text is given to `refuse` and left out where that returns.
    """
    for number, line in enumerate(_raw_lines(str(path)), 1):
        try:
            text = _decoded(line, path, number).rstrip("\r\n")
            if "\r" in text:
                raise DataError(f"{path}:{number}: {_LONE_CR}")
        except DataError as e:
            refuse(e)
            continue
        yield f"{path}:{number}", text


def _decoded(line: bytes, path: str, number: int) -> str:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as e:
        raise DataError(
            f"{path}:{number}: not valid UTF-8 at byte {e.start} of the line; convert the file to UTF-8"
        ) from e
    if "\0" in text:
        raise DataError(
            f"{path}:{number}: holds a NUL character, as UTF-16 without a byte-order mark does; convert the file to UTF-8"
        )
    return text


def _raw_lines(path: str) -> Iterator[bytes]:
    """Yields the lines of a file with their ends; each, and of a gzip file all of them, only up to a size."""
    number, total, is_packed = 0, 0, path.endswith(".gz")
    try:
        with gzip.open(path, "rb") if is_packed else open(path, "rb") as f:
            max_total = max(_MAX_UNCHECKED, _MAX_RATIO * pathlib.Path(path).stat().st_size)
            while line := f.readline(MAX_LINE + 1):
                number += 1
                total += len(line)
                if len(line) > MAX_LINE:
                    raise DataError(
                        f"{path}:{number}: the line is longer than {MAX_LINE:,} bytes; split it, or remove it"
                    )
                if is_packed and total > max_total:
                    raise DataError(
                        f"{path}:{number}: expands to more than {_MAX_RATIO} times its size; unpack it to read it"
                    )
                yield line
    except FileNotFoundError as e:
        raise DataError(f"{path}: no such file; correct the path") from e
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise DataError(f"{path}:{number + 1}: the gzip stream is cut or damaged ({e}); fetch the file again") from e
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror or e})") from e


def read_json_lines(path: str, refuse: Refuse = raise_it) -> Iterator[tuple[str, dict]]:
    """Yields (location, object) of a file of one JSON object a line, or of one JSON array of objects; blank lines are
    passed over. What is no object, or has one key twice, is given to `refuse` and left out where that returns."""
    lines = read_lines(path, refuse)
    num_blank = 0
    for first in lines:
        if first[1].strip():
            break
        num_blank += 1
    else:
        return
    lines = itertools.chain([first], lines)
    if first[1].lstrip().startswith("["):
        text = "\n" * num_blank + "\n".join(line for _, line in lines)
        array = documents.parse_json(text, str(path), list, "correct the array")
        values = ((f"{path}[{i}]", value) for i, value in enumerate(array))
    else:
        values = _objects(lines, refuse)
    for location, value in values:
        if isinstance(value, dict):
            yield location, value
        else:
            refuse(DataError(f"{location}: a JSON {type(value).__name__}, expected an object with the mapped fields"))


def _objects(lines: Iterable[tuple[str, str]], refuse: Refuse) -> Iterator[tuple[str, Any]]:
    for location, line in lines:
        if not line.strip():
            continue
        try:
            value = _object_of(line, location)
        except DataError as e:
            refuse(e)
        else:
            yield location, value


def _object_of(line: str, location: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=documents.unique_keys)
    except (ValueError, RecursionError) as e:
        advice = "give each record a line of its own, or all in one array" if line.strip() in "{[" else _ADVICE
        raise DataError(f"{location}: not valid JSON ({documents.first_line(e)}); {advice}") from e


def read_table(path: str, quoting: str = "auto", refuse: Refuse = raise_it) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields ("file:line", {column: cell}) of a table with a header line: .csv or .tsv, each also .gz.

    A row with another number of cells than the header is given to `refuse` and left out where that returns.

    `quoting` 'csv' takes quotes as pandas, Excel and RFC 4180 write them: around a cell, doubled inside it; such a cell may
    hold separators and ends of lines. 'none' takes quotes as any other character. 'auto' takes .csv as 'csv', and tells by
    the whole of a .tsv whether its quotes are those of a writer of tables; where they may be either, it is a DataError.
    """
    if quoting not in QUOTING:
        raise ConfigError(f"quoting = {quoting!r}{did_you_mean(quoting, QUOTING)}")
    path = str(path)
    separator = _separator(path)
    if quoting == "auto":
        is_csv = path.removesuffix(".gz").endswith(".csv")
        quoting = "csv" if is_csv or _has_quoted_cells(path, separator) else "none"
    header: Sequence[str] | None = None
    blank: str | None = None
    for location, text, cells in _rows(path, separator, quoting == "csv"):
        if not text.strip() and len(header or ()) != 1:
            blank = blank or location
        elif blank is not None:
            raise DataError(f"{blank}: a blank line inside the table; remove it")
        elif header is None:
            header = _header(cells, location)
        elif len(cells) != len(header):
            refuse(
                DataError(
                    f"{location}: {len(cells)} columns, the header has {len(header)}; put the cell that holds a separator in "
                    "quotes, or remove the separator"
                )
            )
        else:
            yield location, dict(zip(header, cells))


def _separator(path: str) -> str:
    """Returns what separates the cells: of a .csv the first of , ; and tab that its header has, else a tab."""
    if not path.removesuffix(".gz").endswith(".csv"):
        return "\t"
    header = next((line for _, line in read_lines(path)), "")
    unquoted = re.sub(r'"[^"]*"', "", header)
    return next((mark for mark in ",;\t" if mark in unquoted), ",")


def _header(cells: Sequence[str], location: str) -> Sequence[str]:
    for name in cells:
        if cells.count(name) > 1:
            raise DataError(f"{location}: two columns are called {name!r}; give each its own name")
    return cells


def _rows(path: str, separator: str, is_quoted: bool) -> Iterator[tuple[str, str, list[str]]]:
    """Yields (location of its first line, text, cells) of each row; a broken quote is a DataError."""
    if not is_quoted:
        for location, line in read_lines(path):
            yield location, line, line.split(separator)
        return
    csv.field_size_limit(MAX_LINE)
    pending: list[str] = []

    def lines() -> Iterator[str]:
        for number, line in enumerate(_raw_lines(path), 1):
            pending.append(_decoded(line, path, number))
            yield pending[-1]

    number = 1
    reader = csv.reader(lines(), delimiter=separator, strict=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as e:
            if "new-line" in str(e):
                raise DataError(f"{path}:{number}: {_LONE_CR}") from e
            raise DataError(
                f"{path}:{number}: a quote of the table is not closed or not doubled ({e}); correct it"
            ) from e
        if cells is None:
            return
        yield f"{path}:{number}", "".join(pending).rstrip("\r\n"), cells
        number += len(pending)
        pending.clear()


def _has_quoted_cells(path: str, separator: str) -> bool:
    """Returns whether the quotes of a table are those that a writer of tables puts around cells.

    They are where each row is as a writer writes it that quotes what needs it, all cells, or all but numbers. They are not
    where they do not pair up, leave rows of different numbers of cells, or stand around cells that need none. A table with
    both kinds is a DataError.
    """
    plain = [(location, cells) for location, text, cells in _rows(path, separator, False) if text.strip()]
    quoted = next((location for location, cells in plain if any(c.startswith('"') for c in cells)), None)
    if quoted is None:
        return False
    is_plain = len({len(cells) for _, cells in plain}) == 1
    try:
        rows = [(text, cells) for _, text, cells in _rows(path, separator, True) if text.strip()]
    except DataError:
        return False
    if len({len(cells) for _, cells in rows}) > 1:
        return False
    if any(all(text == write(cells, separator) for text, cells in rows) for write in _WRITERS):
        return True
    if is_plain and not any(mark in cell for _, cells in rows for cell in cells for mark in ('"', separator, "\n")):
        return False
    if is_plain:
        raise DataError(
            f"{quoted}: quotes that may be part of the text, or of the table; say which with "
            "TabSeparated.quoting = 'none' or 'csv', or write the table as JSON lines"
        )
    return True


def _written(cells: Sequence[str], separator: str, quoting: int) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="", quoting=quoting).writerow(cells)
    return text.getvalue()


def _written_but_numbers(cells: Sequence[str], separator: str) -> str:
    return separator.join(c if _is_number(c) else _written([c], separator, csv.QUOTE_ALL) for c in cells)


def _written_by_excel(cells: Sequence[str], separator: str) -> str:
    """Excel quotes a cell with a comma in a table of tabs too."""
    return separator.join(
        _written([c], separator, csv.QUOTE_ALL) if any(mark in c for mark in '",\t\n') else c for c in cells
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == ""
    return True


_WRITERS = (
    lambda cells, separator: _written(cells, separator, csv.QUOTE_MINIMAL),
    lambda cells, separator: _written(cells, separator, csv.QUOTE_ALL),
    _written_but_numbers,
    _written_by_excel,
)
