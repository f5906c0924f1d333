"""Rows of text tables (.tsv, .csv), each with its location, with and without quotes."""

import codecs
import csv
import io
import re
import warnings
from collections.abc import Iterator, Sequence

from embed.errors import ConfigError, DataError, did_you_mean
from embed.sources.lines import LONE_CR, MAX_LINE, Refuse, decoded, raise_it, raw_lines, read_lines

QUOTING = ("auto", "csv", "none")


def read_table(path: str, quoting: str = "auto", refuse: Refuse = raise_it) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields ("file:line", {column: cell}) of a table with a header line: .csv or .tsv, each also .gz.

    A row that is no text, has another number of cells than the header, or a quote on one line that is not closed or not
    doubled, is given to `refuse` and left out where that returns. A quote that is open for several lines is a DataError, as
    nobody knows which rows it holds.

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
    of_row = lambda e: raise_it(e) if header is None else refuse(e)  # noqa: E731 - without its header nothing can be read
    for location, text, cells in _rows(path, separator, quoting == "csv", of_row):
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


_BYTES = re.compile(r"""b(['"])(.*)\1""", re.DOTALL)


def text_of_bytes(cell: str, location: str) -> str:
    """Decodes a cell that is written as Python bytes in UTF-8, such as b'caf\\xc3\\xa9'; returns other cells unchanged."""
    written = _BYTES.fullmatch(cell)
    if written is None:
        return cell
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an invalid escape is a DeprecationWarning
            return codecs.escape_decode(written[2].encode("ascii"))[0].decode("utf-8")
    except (ValueError, Warning) as e:
        raise DataError(
            f"{location}: {cell[:60]!r} is not UTF-8 text written as Python bytes ({e}); correct the cell"
        ) from e


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


def _rows(
    path: str, separator: str, is_quoted: bool, refuse: Refuse = raise_it
) -> Iterator[tuple[str, str, list[str]]]:
    """Yields (location of its first line, text, cells) of each row; one that cannot be read is given to `refuse`."""
    if not is_quoted:
        for location, line in read_lines(path, refuse):
            yield location, line, line.split(separator)
        return
    csv.field_size_limit(MAX_LINE)
    pending: list[str] = []
    bad: list[DataError] = []  # of the pending lines

    def lines() -> Iterator[str]:
        for number, line in enumerate(raw_lines(path), 1):
            try:
                pending.append(decoded(line, path, number))
            except DataError as e:
                bad.append(e)
                # Quotes and separators are what they are, so that the row ends where it ends.
                pending.append(line.decode("utf-8", "replace").replace("\0", "\ufffd"))
            yield pending[-1]

    number, is_open = 1, True
    reader = csv.reader(lines(), delimiter=separator, strict=True)
    while is_open:
        cells: list[str] | None = None
        try:
            cells = next(reader, None)
            is_open = cells is not None
        except csv.Error as e:
            problem = f"a quote of the table is not closed or not doubled ({e}); correct it"
            bad.append(DataError(f"{path}:{number}: {LONE_CR if 'new-line' in str(e) else problem}"))
            if len(pending) > 1:
                raise bad[-1] from e
        if bad:
            refuse(bad[0])
        elif cells is not None:
            yield f"{path}:{number}", "".join(pending).rstrip("\r\n"), cells
        number += len(pending)
        pending.clear()
        bad.clear()


def _has_quoted_cells(path: str, separator: str) -> bool:
    """Returns whether the quotes of a table are those that a writer of tables puts around cells.

    They are where each row is as a writer writes it that quotes what needs it, all cells, or all but numbers. They are not
    where they do not pair up, leave rows of different numbers of cells, or stand around cells that need none, unless other
    cells are as only a writer of tables writes them: then the table is quoted, and damaged. A table with both kinds is a
    DataError.
    """
    passed = lambda error: None  # noqa: E731 - what cannot be read says nothing of the others
    plain = [(location, cells) for location, text, cells in _rows(path, separator, False, passed) if text.strip()]
    quoted = next((location for location, cells in plain if any(c.startswith('"') for c in cells)), None)
    if quoted is None:
        return False
    is_plain = len({len(cells) for _, cells in plain}) == 1
    is_whole, rows = True, []
    try:
        for _, text, cells in _rows(path, separator, True):
            rows += [(text, cells)] if text.strip() else []
    except DataError:
        is_whole = False
    if not is_whole or len({len(cells) for _, cells in rows}) > 1:
        return any(_DOUBLED.fullmatch(cell) for _, cells in plain for cell in cells) or (
            not is_plain and any(_needed_quotes(*row, separator) and len(row[1]) == len(rows[0][1]) for row in rows)
        )
    if any(all(text == write(cells, separator) for text, cells in rows) for write in _WRITERS):
        return True
    if is_plain and not any(_has_mark(cells, separator) for _, cells in rows):
        return False
    if is_plain:
        raise DataError(
            f"{quoted}: quotes that may be part of the text, or of the table; say which with "
            "TabSeparated.quoting = 'none' or 'csv', or write the table as JSON lines"
        )
    return True


# A cell that holds a quote, as writers of tables write it: around it one, inside it two.
_DOUBLED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')


def _has_mark(cells: Sequence[str], separator: str) -> bool:
    """Returns whether one of the cells needs quotes."""
    return any(mark in cell for cell in cells for mark in ('"', separator, "\n"))


def _needed_quotes(text: str, cells: Sequence[str], separator: str) -> bool:
    """Returns whether a row has a cell that needs quotes, and is as a writer of tables writes it."""
    return _has_mark(cells, separator) and any(text == write(cells, separator) for write in _WRITERS)


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
