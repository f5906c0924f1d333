"""Names of models, tasks, suites and prompts in everything that an evaluation writes: shown as they are, never obeyed."""

import copy
import html.parser
import unicodedata

import pytest

from embed import markdown
from embed.evaluation import html as page
from embed.evaluation import plots, report

commonmark = pytest.importorskip("markdown_it")

NAMES = [
    "a|b",
    "`x` ``",
    "two\nlines",
    "<script>alert(1)</script>",
    "[x](javascript:y)",
    "# heading",
    "\x1b[31mred\x07",
    "\u202egnp.exe",
    "- item * _x_",
    "&lt;b&gt;",
    "$\\frac{1}{2}$",
    "_hidden",
]


def renamed(value, names):
    """Returns the JSON value with its names, keys and texts, replaced by those of a mapping."""
    if isinstance(value, dict):
        return {names.get(k, k): renamed(v, names) for k, v in value.items()}
    if isinstance(value, list):
        return [renamed(v, names) for v in value]
    return names.get(value, value) if isinstance(value, str) else value


@pytest.fixture(params=NAMES)
def named(request, results):
    """(name, results with that name for a model, a task, the suite, a prompt, a group and a remark)."""
    name = request.param
    results["differences"] = {
        "against": "small",
        "rows": [{"task": "foxes", "model": "a longer name", "view": "128", "difference": 0.1, "interval": [0.0, 0.2]}],
    }
    results["tasks"]["foxes"]["notes"] = ["a note"]
    results["tasks"]["foxes"]["references"] = {"One": 0.7}
    words = {
        w: f"{name} {w}" for w in ("small", "foxes", "mine", "a note", "One", "task: search result | query: {content}")
    }
    words["a longer name"] = name
    changed = renamed(copy.deepcopy(results), words) | {"remarks": [f"{name} remark"]}
    changed["command"] = ["embed", "evaluate", f"{name}=x"]
    return name, changed


def wanted(name: str) -> str:
    return " ".join(markdown.printable(name).split())


def text_of(tokens) -> str:
    assert {t.type for t in tokens} <= {"text", "text_special", "code_inline"}, [t.type for t in tokens]
    return "".join(t.content for t in tokens)


def test_tables_hold_the_names_in_their_cells(named):
    name, results = named
    for text in (report.table(results), report.loss_table(results)):
        tokens = commonmark.MarkdownIt("gfm-like", {"linkify": False}).parse(text)
        kinds = {t.type.removesuffix("_open").removesuffix("_close") for t in tokens}
        assert kinds <= {"paragraph", "table", "thead", "tbody", "tr", "th", "td", "inline"}, kinds
        words = [" ".join(text_of(t.children).split()) for t in tokens if t.type == "inline"]
        assert f"{wanted(name)} small" in words or wanted(name) in words
    words = " ".join(words)
    text = report.table(results)
    assert not any(unicodedata.category(c) == "Cc" and c != "\n" for c in text) and "\u202e" not in text


def test_tables_in_a_terminal_hold_no_control_characters(named):
    name, results = named
    text = report.table(results, markdown.printable)
    assert not any(unicodedata.category(c) == "Cc" and c != "\n" for c in text) and "\u202e" not in text
    assert markdown.printable(name) in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in rows[:4]}) == 1


class Words(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert not any(key.startswith("on") or "javascript:" in str(value) for key, value in attributes)

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_shows_the_names(named, results, monkeypatch):
    name, changed = named
    monkeypatch.setattr(page.references, "source", lambda model: f"source of {model}")
    text = page.page(changed, {})
    plain = Words(page.page(renamed(copy.deepcopy(changed), {}), {})).tags
    found = Words(text)
    assert found.tags == plain and "script" not in found.tags
    words = "\n".join(found.words)
    for expected in (
        f"{name} small",
        f"{name} foxes",
        f"{name} mine",
        f"{name} remark",
        f"{name} a note",
        f"{name} One",
    ):
        assert markdown.printable(expected) in words, expected
    assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in text) and "\u202e" not in text


@pytest.mark.slow
def test_pictures_are_drawn_with_the_names(results):
    """All at once: a model and a task of each name."""
    if not plots.available():
        pytest.skip("matplotlib is not installed")
    results["models"] = {name: copy.deepcopy(results["models"]["small"]) for name in NAMES}
    results["tasks"] = {f"{name} task": {**results["tasks"]["pairs"], "group": name} for name in NAMES[:3]}
    for model in results["models"].values():
        for means in model["means"].values():
            means |= dict.fromkeys(NAMES[:3], 0.5)
    assert plots.bars(results).startswith(b"\x89PNG") and plots.dimensions(results).startswith(b"\x89PNG")


def test_a_name_that_begins_with_an_underscore_stays_in_the_legend():
    assert plots._name("_a$b") == " _a\\$b" and plots._name("a_b") == "a_b"


def test_titles_of_sweeps_and_soups_hold_the_suite(named):
    name, _ = named
    trials = [{"weights": [1.0, 0.0], "mean": 0.5, "kept": True, "scores": {name: 0.5}}]
    trials.append({"weights": [0.0, 1.0], "mean": 0.4, "kept": True, "scores": {name: 0.4}})
    soup = {"suite": name, "method": "greedy", "inputs": [name, "b"], "trials": trials}
    sweep = {"suite": name, "best": 1.0, "scores": {"0": {name: 0.1}, "1": {name: 0.2}}, "means": {"0": 0.1, "1": 0.2}}
    for text in (report.soup_table(soup), report.sweep_table(sweep)):
        tokens = commonmark.MarkdownIt("gfm-like", {"linkify": False}).parse(text)
        words = [" ".join(text_of(t.children).split()) for t in tokens if t.type == "inline"]
        assert wanted(name) in words
        assert {t.type for t in tokens if t.type.endswith("_open")} == {
            "paragraph_open", "table_open", "thead_open", "tbody_open", "tr_open", "th_open", "td_open"
        }  # fmt: skip
