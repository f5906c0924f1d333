"""Names in Markdown and HTML: another reader shows them as they were, control characters written out."""

import random

import pytest

from embed import markdown

commonmark = pytest.importorskip("markdown_it")

NAMES = [
    "plain",
    "a|b",
    "||",
    "|",
    "a\\|b",
    "a\\\\|b",
    "\\",
    "ends with \\",
    "`code`",
    "``",
    "a`b",
    "*bold* **x** * y",
    "_emphasis_ snake_case_name __init__ _",
    "~~struck~~",
    "<script>alert(1)</script>",
    "<b>bold",
    "<https://example.org>",
    "[x](y)",
    "![x](y)",
    "[x]: y",
    "# heading",
    "## two",
    "- item",
    "+ item",
    "> quote",
    "---",
    "===",
    "1. first",
    "2) second",
    "12",
    "-5.00",
    "&amp; &lt; & &#124;",
    "$x$ $$y$$",
    "http://example.org www.example.org",
    "über 日本語 مرحبا 👩‍👩‍👧",
    ":-:",
    "a:b",
    "~tilde",
    "~~~",
    "```",
    "!",
    "(a)",
    "\\*",
    "\\_\\",
    "{{x}} {% y %}",
]
CONTROLS = {"a\nb": "a\\nb", "a\r\nb": "a\\r\\nb", "\x1b[31mred": "\\x1b[31mred", "a\tb": "a\\tb", "\x00": "\\x00",
            "a\u2028b": "a\\u2028b", "\u202eabc": "\\u202eabc", "\ud800": "\\ud800", "\x9b1m": "\\x9b1m",
            "\x07bell": "\\x07bell"}  # fmt: skip


def reader():
    return commonmark.MarkdownIt("gfm-like", {"linkify": False, "html": True})


def text_of(tokens) -> str:
    """Returns the words of inline tokens; anything but text and code is an error."""
    words = []
    for token in tokens:
        assert token.type in ("text", "code_inline", "text_special"), token
        words.append(token.content)
    return "".join(words)


def paragraph(source: str) -> str:
    tokens = reader().parse(source)
    assert [t.type for t in tokens] == ["paragraph_open", "inline", "paragraph_close"], [t.type for t in tokens]
    return text_of(tokens[1].children)


def cells(table: str) -> list[list[str]]:
    """Returns the cells of the only block, a table."""
    tokens, rows = reader().parse(table), []
    assert tokens[0].type == "table_open" and tokens[-1].type == "table_close"
    assert [t.type for t in tokens].count("table_open") == 1
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(text_of(token.children))
    return rows


def generated(count=400):
    draw = random.Random(0)
    pieces = [*"\\`*_[]<>()#+-.!|~&:$ {}1ab/=\"'", "``", "\\|", "&lt;", "://", "www."]
    return ["".join(draw.choices(pieces, k=draw.randint(1, 12))) for _ in range(count)]


def shown(name: str) -> str:
    return " ".join(markdown.printable(name).split())


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is(name):
    assert paragraph(markdown.inline(name)) == name
    assert paragraph(f"{markdown.inline(name)}: a note") == f"{name}: a note"
    assert cells(f"{markdown.row(['h', 'i'])}\n|---|---|\n{markdown.row([name, 'x'])}") == [["h", "i"], [name, "x"]]
    assert cells(f"{markdown.row([name, 'x'])}\n|---|---|") == [[name, "x"]]


@pytest.mark.parametrize("name", NAMES)
def test_code_is_shown_as_it_is(name):
    assert paragraph(f"x {markdown.code(name)} y") == f"x {name} y"
    table = f"| h | i |\n|---|---|\n{markdown.row([markdown.code_cell(name), 'x'])}"
    assert cells(table) == [["h", "i"], [name, "x"]]


def test_generated_names_are_shown_as_they_are():
    for name in generated():
        if not name.strip():
            continue
        wanted = name.strip()
        table = f"| h | i |\n|---|---|\n{markdown.row([name, 'x'])}\n{markdown.row([markdown.code_cell(name), 'x'])}"
        head, plain, code = cells(table)
        assert plain == [wanted, "x"], name
        assert [code[0].strip(), code[1]] == [wanted, "x"], name
        assert paragraph(markdown.inline(name)) == wanted, name


@pytest.mark.parametrize("name", CONTROLS)
def test_control_characters_are_written_out(name):
    wanted = CONTROLS[name]
    assert markdown.printable(name) == wanted
    assert paragraph(markdown.inline(name)) == wanted
    assert paragraph(f"x {markdown.code(name)}") == f"x {wanted}"
    assert cells(f"| h |\n|---|\n{markdown.row([name])}") == [["h"], [wanted]]


def test_joiners_of_scripts_and_emoji_stay():
    assert markdown.printable("👩‍👧 نمی‌خواهم") == "👩‍👧 نمی‌خواهم"


@pytest.mark.parametrize("text", ["a\nb", "```\nx\n```", "~~~", "````", "a\tb", "  indented", "<b>", "", "\n\na"])
def test_a_block_of_code_holds_its_lines(text):
    (token,) = reader().parse(markdown.code_block(text, "gin"))
    assert token.type == "fence" and token.info == "gin" and token.content == f"{text}\n"


def test_a_block_of_code_lets_no_control_character_through():
    (token,) = reader().parse(markdown.code_block("a\r\nb\x1b[0m\x00\u202e\n"))
    assert token.content == "a\nb\\x1b[0m\\x00\\u202e\n"


def test_raw_cells_are_markdown_already():
    assert markdown.cell(markdown.Raw("*a*")) == "*a*" and markdown.cell("*a*") == "\\*a\\*"


def test_the_code_of_no_text_is_no_text():
    assert markdown.code("") == "" and markdown.code_cell("") == ""
