"""Judgements of retrieval sets, in whichever of the published forms a file has them.

A file is separated by tabs when its first line holds one, else by blanks. Its lines hold

* three columns, query, document and relevance (BEIR, MTEB), or
* four columns, query, iteration, document and relevance (TREC and MS MARCO; the iteration is a number or Q0).

The first line is a judgement when its last cell is a number, and a header otherwise: a query may be called "query-id". Two
forms without a header look like these and are refused: a table of pandas with its index, and TREC's first three columns. A
header must name a column for the
query, the document and the relevance (`COLUMNS`, in any spelling of case, blanks and punctuation), in any order; an
iteration and an index without a name may stand beside them. Cells of files with tabs may be quoted as pandas writes them.
A file of any other form is a DataError that names the line; no line is passed over.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from embed.errors import DataError

# role -> the names a header may give its column, without case, blanks and punctuation
COLUMNS = {
    "query": ("queryid", "query", "qid", "q", "topicid", "topic", "topicnumber", "questionid"),
    "document": (
        "corpusid", "documentid", "docid", "docno", "did", "pid", "passageid", "document", "doc", "passage", "corpus",
        "c", "d",
    ),
    "relevance": (
        "score", "s", "relevance", "rel", "label", "grade", "relevancy", "judgement", "judgment", "rating", "gain",
    ),
    "iteration": ("iteration", "iter", "q0"),
    "index": ("", "index", "unnamed0"),
}  # fmt: skip
_NEEDED = ("query", "document", "relevance")
_BY_NUMBER = {3: _NEEDED, 4: ("query", "iteration", "document", "relevance")}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_FORMS = "expected query, document, relevance, or TREC's query, iteration, document, relevance"


def parse(lines: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str, float]]:
    """Yields (location, query id, document id, relevance) of ("file:line", text) pairs; blank lines are passed over."""
    roles: Sequence[str] | None = None
    blank_separated, width, headless = False, 0, None
    for number, (location, line) in enumerate(lines):
        line = line.removeprefix("\ufeff") if number == 0 else line
        if not line.strip():
            continue
        if roles is None:
            blank_separated = "\t" not in line
        cells = line.split() if blank_separated else [_unquoted(c) for c in line.split("\t")]
        if roles is None:
            width = len(cells)
            if not _NUMBER.fullmatch(cells[-1].strip()):
                roles = _header(cells, location)
                continue
            roles, headless = _by_number(cells, location), _Headless()
        if len(cells) != width:
            raise DataError(f"{location}: {len(cells)} columns, the first line has {width}; correct the line")
        judgement = dict(zip(roles, cells))
        yield location, judgement["query"], judgement["document"], _relevance(judgement, location)
        if headless is not None:
            headless.add(cells)
    if headless is not None:
        headless.check(width, location)


def _unquoted(cell: str) -> str:
    """Returns a cell without the quotes that pandas puts around it; a lone quote belongs to the cell."""
    if len(cell) >= 2 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"')
    return cell


def _header(cells: Sequence[str], location: str) -> list[str]:
    """Returns the role of each column by its name; a column without a known role has the name itself."""
    names = {name: role for role, known in COLUMNS.items() for name in known}
    plain = ["".join(c for c in cell.casefold() if c.isalnum()) for cell in cells]
    roles = [names.get(name, f"column {cell!r}") for name, cell in zip(plain, cells)]
    for role in _NEEDED:
        if roles.count(role) != 1:
            many = "no column" if role not in roles else "more than one column"
            raise DataError(
                f"{location}: neither a judgement (the last cell is no number) nor a header ({many} for the {role}); "
                "correct the line, or name the columns query-id, corpus-id and score"
            )
    unknown = [role for role in roles if role not in COLUMNS]
    if unknown:
        raise DataError(f"{location}: judgements have no {unknown[0]}; leave it out")
    return roles


def _by_number(cells: Sequence[str], location: str) -> Sequence[str]:
    if len(cells) not in _BY_NUMBER:
        raise DataError(f"{location}: {len(cells)} columns; {_FORMS}, separated by tabs or blanks")
    return _BY_NUMBER[len(cells)]


def _relevance(judgement: dict[str, str], location: str) -> float:
    for role in ("query", "document"):
        if not judgement[role].strip():
            raise DataError(f"{location}: the id of the {role} is empty; correct the line")
    iteration = judgement.get("iteration", "0").strip()
    if not _NUMBER.fullmatch(iteration) and iteration.upper() != "Q0":
        raise DataError(f"{location}: four columns, but the second is {iteration!r}, not an iteration; {_FORMS}")
    number = judgement["relevance"].strip()
    if not _NUMBER.fullmatch(number) or abs(float(number)) == float("inf"):
        raise DataError(f"{location}: the relevance {number!r} is not a number; correct the line")
    return float(number)


class _Headless:
    """What the columns of a file without a header hold, to tell forms that look alike apart once all lines are known."""

    def __init__(self):
        self._lines, self._rises, self._before, self._seconds = 0, True, -1, set()

    def add(self, cells: Sequence[str]) -> None:
        """Looks at the first two columns of a line."""
        first = cells[0].strip()
        number = int(first) if first.isdecimal() else -1
        self._rises = self._rises and number > self._before
        self._before = number
        if len(self._seconds) < 2:
            self._seconds.add(cells[1].strip().upper())
        self._lines += 1

    def check(self, width: int, location: str) -> None:
        """Raises DataError for a table with its index, and for TREC's columns without the relevance."""
        file = location.rpartition(":")[0]
        if width == 4 and self._lines > 1 and self._rises and len(self._seconds) > 1:
            raise DataError(
                f"{file}: the first of four columns is another, higher number in every line, so this may be a table with its "
                "index; write it without the index (pandas: index=False), or with a header"
            )
        if width == 3 and self._lines > 1 and self._seconds in ({"0"}, {"Q0"}):
            raise DataError(
                f"{file}: the second of three columns is {self._seconds.pop()} in every line, as TREC's iteration is; add the "
                "relevance as fourth column, or a header if these are ids of documents"
            )
