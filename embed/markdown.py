"""Text of any origin as GitHub-flavoured Markdown: names and prompts that a reader shows as they are, whatever they hold.

Every Markdown file and report takes its names through these functions. Source: CommonMark 0.31, sections 2.4 (backslash
escapes), 4.5 (fenced code) and 6.1 (code spans), and GFM 0.29, section 4.10 (tables).
"""

import re
import unicodedata
from collections.abc import Sequence


class Raw(str):
    """A table cell that is Markdown already; `cell` returns it as it is."""


# Categories that a terminal or browser obeys instead of showing: controls, line and paragraph separators, lone surrogates.
_CONTROL = {"Cc", "Zl", "Zp", "Cs"}
# Format characters that reorder the text around them. Joiners, which scripts and emoji need, are not among them.
_REORDERING = set("\u200e\u200f\u061c\ufeff") | {chr(c) for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def printable(text: str) -> str:
    r"""Returns `text` on one line, control characters and those that reorder text as Python writes them (\n, \x1b, \u202e).

    >>> printable("a\nb")
    'a\\nb'
    """
    return "".join(_visible(c) for c in text)


def _visible(character: str) -> str:
    if character in _REORDERING or unicodedata.category(character) in _CONTROL:
        return character.encode("unicode_escape").decode("ascii")
    return character


# Every character that can begin or end a construct within a line; "_" is one only at the edge of a word.
_SPECIAL = re.compile(r"[\\`*\[\]<&~$]|(?<![^\W_])_|_(?![^\W_])")
# What begins a block at the start of a line: headings, quotes, lists, rules and setext underlines.
_BLOCK = re.compile(r"^([#>+=:-]|\d+(?=[.)]))")
# What GFM makes a link without any brackets.
_LINK = re.compile(r"(?<=[A-Za-z])(?=://)|(?i:(?<=\bwww)(?=\.))")


def inline(text: str) -> str:
    r"""Returns Markdown that shows `text` in a paragraph, a heading or a list item, on one line.

    >>> inline("# [a](b) <c>")
    '\\# \\[a\\](b) \\<c>'
    """
    escaped = _escaped(text)
    begins_block = _BLOCK.match(escaped)
    if begins_block is None:
        return escaped
    # A number at the start is a list by the character after it.
    index = begins_block.end() if escaped[0].isdigit() else 0
    return f"{escaped[:index]}\\{escaped[index:]}"


def _escaped(text: str) -> str:
    return _LINK.sub("\\\\", _SPECIAL.sub(lambda m: "\\" + m.group(), printable(text).strip()))


def cell(text: str) -> str:
    r"""Returns Markdown that shows `text` in a cell of a table, where no block begins. `Raw` text is Markdown already.

    >>> cell("a|b")
    'a\\|b'
    """
    return text if isinstance(text, Raw) else _bars(_escaped(text))


def _bars(text: str) -> str:
    return text.replace("|", "\\|")


def code(text: str) -> str:
    """Returns a code span that shows `text`, on one line. The span of no text is empty.

    >>> code("a`b")
    '``a`b``'
    """
    text = printable(text)
    if not text.strip():
        return f"`{text}`" if text else ""
    fence = "`" * (_longest_run(text) + 1)
    # A reader takes one space from both ends, so those that belong to the text, or part it from the fence, need another.
    space = " " if text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{space}{text}{space}{fence}"


def code_cell(text: str) -> Raw:
    """Returns a code span for a cell of a table; a text that readers of tables take apart differently is shown as `cell`."""
    # Readers disagree about whether the second backslash or the bar after it is the escaped one.
    return Raw(cell(text) if "\\|" in printable(text) else _bars(code(text)))


def code_block(text: str, language: str = "") -> str:
    """Returns a fenced block that shows the lines of `text`; tabs and line ends stay, other controls are written out."""
    lines = [
        "\t".join(printable(part) for part in line.split("\t")) for line in re.split("\r\n|\r|\n", text.rstrip("\r\n"))
    ]
    body = "\n".join(lines)
    fence = "`" * max(3, _longest_run(body) + 1)
    return f"{fence}{language}\n{body}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def row(cells: Sequence[str]) -> str:
    """Returns a row of a table, each cell through `cell`."""
    return f"| {' | '.join(map(cell, cells))} |"
