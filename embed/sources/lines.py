"""Lines and JSON records of text files, each with its location; and the same files written.

A location is "file:line" (of an array "file[index]"), for errors. Forms are recognised, not assumed, and what is ambiguous
is refused. All files may be gzip, by the suffix .gz, and may begin with a byte-order mark.
"""

import gzip
import io
import itertools
import json
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from embed import documents
from embed.errors import DataError

MAX_LINE = 256 << 20  # bytes
_MAX_RATIO, _MAX_UNCHECKED = 200, 1 << 30  # a gzip file that is not a bomb expands less, or is smaller
_ADVICE = "correct or remove the line"
LONE_CR = "holds a carriage return without a line feed; write the ends of lines as LF or CRLF, and write others out"

Refuse = Callable[[DataError], None]  # what is done with a record that cannot be read: raise it, or count it


def raise_it(error: DataError) -> None:
    """Raises the error: a record that cannot be read ends the reading."""
    raise error


def read_lines(path: str, refuse: Refuse = raise_it) -> Iterator[tuple[str, str]]:
    """Yields ("file:line", text without its end) of a UTF-8 text file. Bad bytes and cut streams are DataErrors.

    A line that is not a text is given to `refuse` and left out where that returns.
    """
    for number, line in enumerate(raw_lines(str(path)), 1):
        try:
            text = decoded(line, path, number).rstrip("\r\n")
            if "\r" in text:
                raise DataError(f"{path}:{number}: {LONE_CR}")
        except DataError as e:
            refuse(e)
            continue
        yield f"{path}:{number}", text


def decoded(line: bytes, path: str, number: int) -> str:
    """Returns the text of a line. Bytes that are not UTF-8, and a NUL, are DataErrors."""
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


def raw_lines(path: str) -> Iterator[bytes]:
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
    is_array = False
    # Without one of its lines an array is another one.
    lines = read_lines(path, lambda e: raise_it(e) if is_array else refuse(e))
    num_blank = 0
    for first in lines:
        if first[1].strip():
            break
        num_blank += 1
    else:
        return
    lines = itertools.chain([first], lines)
    is_array = first[1].lstrip().startswith("[")
    if is_array:
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


def write_lines(path, lines) -> None:
    """Writes lines as gzip whose bytes depend on them alone (no time stamp, no file name)."""
    with (
        open(path, "wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        io.TextIOWrapper(packed, "utf-8") as f,
    ):
        f.writelines(line + "\n" for line in lines)


def write_json_lines(path, rows) -> None:
    """Writes objects as jsonl.gz."""
    write_lines(path, map(_json_text, rows))


def _json_text(row: Any) -> str:
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold escaped and UTF-8 cannot
        return json.dumps(row)
    return text


def write_tsv(path, header: Sequence[str], rows) -> None:
    """Writes a header and rows as tsv.gz."""
    write_lines(path, ("\t".join(map(str, row)) for row in [header, *rows]))
