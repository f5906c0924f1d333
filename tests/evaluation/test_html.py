"""The HTML report: whole, escaped, and nothing in it is loaded from anywhere."""

import base64
import html.parser
import math
import re

import pytest

from embed.evaluation import html as report
from embed.evaluation import references

VOID = {"meta", "link", "img", "br"}


class Page(html.parser.HTMLParser):
    """A report taken apart: its tables, its text, its links. An end tag that fits no start tag is an error."""

    def __init__(self, text: str):
        super().__init__()
        self._open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.tables: list[list[list[str]]] = []
        self.classes: dict[str, list[str]] = {}
        self.words = ""
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.words += data
        if self._open and self._open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def test_the_page_is_whole_and_names_the_suite(results):
    text = report.page(results, {})
    assert text.startswith("<!doctype html>") and text.endswith("</html>\n")
    page = Page(text)
    assert "mine: scores" in page.words and "2 tasks, 3 models" in page.words
    assert {"charset": "utf-8"} in [a for tag, a in page.tags if tag == "meta"]


def test_nothing_is_loaded_and_nothing_runs(results):
    text = report.page(results, {"types.png": b"\x89PNG"})
    assert "http://" not in text and "https://" not in text and "<script" not in text.lower()
    for tag, attributes in Page(text).tags:
        assert tag not in ("script", "iframe", "object", "embed", "form")
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"@import|url\(", text)


def test_every_model_task_and_prompt_is_there(results):
    page = Page(report.page(results, {}))
    for name in ("small", "a longer name", "bm25", "foxes", "pairs", "nDCG@10", "Spearman"):
        assert name in page.words
    for own in results["models"]["small"]["prompts"].values():
        for side, words in own.items():
            assert any([side, words] == row[1:] for table in page.tables for row in table)
    for model in results["models"].values():
        assert model["model"] in page.words


def test_means_and_tasks_are_tables_of_equal_rows(results):
    page = Page(report.page(results, {}))
    for table in page.tables:
        assert len({len(row) for row in table}) == 1
    means, tasks, kept, models = page.tables[:4]
    assert means[0] == ["model", "view", "mean of the types", "mean of the tasks", "retrieval", "sts"]
    assert means[1] == ["small", "128", "65.62", "65.62", "50.00", "81.23"]
    assert means[-1] == ["bm25", "all", "-", "-", "40.00", "-"]
    assert tasks[0][:4] == ["task", "score", "small 128", "small 64"]
    assert tasks[1][:4] == ["foxes", "nDCG@10", "50.00 [40.00, 60.00]", "45.00"] and tasks[2][-1] == "-"
    assert kept[0] == ["model", "view", "bytes", "mean", "kept"] and kept[2][-1] == "95.2 %"
    facts = [dict(zip(models[0], row)) for row in models[1:]]
    small = {"from": "runs/a b", "digest": "0123456789abcdef", "computed in": "float32", "most tokens": "256"}
    assert {"model": "small", **small, "texts": "1234", "cut": "56"}.items() <= facts[0].items()
    assert {"model": "bm25", "from": "bm25s, k1 1.2", "digest": "-", "texts": "-"}.items() <= facts[2].items()


def test_the_best_of_a_column_is_tinted(results):
    text = report.page(results, {})
    best = re.findall(r'<td class="best">([^<]*)</td>', text)
    assert sorted(best) == sorted(["60.00", "81.23", "65.62", "65.62"])


def test_a_score_that_is_not_defined_is_not_the_best(results):
    for means in results["models"]["small"]["means"].values():
        means["sts"] = math.nan
    text = report.page(results, {})
    assert '<td class="best">nan</td>' not in text and "<td>-</td>" in text


def test_names_are_escaped_everywhere(results):
    odd = '<b>&"x'
    results["models"][odd] = results["models"].pop("small")
    results["tasks"]["<i>&"] = results["tasks"].pop("foxes")
    for model in results["models"].values():
        model["results"]["<i>&"] = model["results"].pop("foxes")
    results["models"][odd]["prompts"]["<i>&"] = {"queries": "<q> & {content}"}
    results["tasks"]["<i>&"]["notes"] = ["<u> & more"]
    results["suite"], results["command"] = "<suite>&", ["embed", "<cmd>&"]
    rows = [{"task": "<i>&", "model": odd, "view": "128", "difference": 0.1, "interval": [0.05, 0.15]}]
    results["differences"] = {"against": "<base>&", "rows": rows}
    text = report.page(results, {"<p>&.png": b"x"})
    page = Page(text)
    found = {tag for tag, _ in page.tags}
    assert not found & {"b", "i", "q", "u", "suite", "cmd", "base"}
    for part in (odd, "<i>&", "<q> & {content}", "<u> & more", "<suite>&", "<cmd>&", "<base>&", "<p>&.png"):
        assert part in page.words
    assert not re.search(r"&(?!\w+;|#\w+;)", text)


def test_a_bar_in_a_name_does_not_begin_a_new_cell(results):
    results["models"]["x | y"] = results["models"].pop("small")
    for table in Page(report.page(results, {})).tables:
        assert len({len(row) for row in table}) == 1


def test_pictures_are_inside_with_their_captions(results):
    pictures = {"dimensions.png": b"\x89PNG one", "bytes.png": b"\x89PNG two", "types.png": b"\x89PNG three"}
    page = Page(report.page(results, pictures))
    images = [a for tag, a in page.tags if tag == "img"]
    assert [base64.b64decode(a["src"].removeprefix("data:image/png;base64,")) for a in images] == list(
        pictures.values()
    )
    assert all(a["alt"] and a["alt"] in page.words for a in images)


def test_differences_and_notes_are_shown_when_there_are_any(results):
    assert "Differences to" not in report.page(results, {}) and "Notes" not in report.page(results, {})
    rows = [
        {"task": "foxes", "model": "small", "view": "128", "difference": 0.1, "interval": [0.05, 0.15]},
        {"task": "pairs", "model": "small", "view": "128", "difference": 0.1, "interval": [-0.05, 0.15]},
    ]
    results["differences"] = {"against": "bm25", "rows": rows}
    results["tasks"]["foxes"]["notes"] = ["2 queries are left out"]
    page = Page(report.page(results, {}))
    assert "Differences to bm25" in page.words and "foxes: 2 queries are left out" in page.words
    assert page.tables[2][1:] == [
        ["foxes", "small", "128", "+10.00", "+5.00 to +15.00", "*"],
        ["pairs", "small", "128", "+10.00", "-5.00 to +15.00", ""],
    ]


@pytest.mark.parametrize("sure", [True, False])
def test_a_column_of_stars_alone_or_none_keeps_its_place(results, sure):
    rows = [
        {"task": "foxes", "model": "small", "view": "128", "difference": 0.1, "interval": [0.05 if sure else -1, 1]}
    ]
    results["differences"] = {"against": "bm25", "rows": rows}
    table = Page(report.page(results, {})).tables[2]
    assert [len(row) for row in table] == [6, 6] and table[1][-1] == ("*" if sure else "")


def test_published_scores_are_shown_with_their_sources(results):
    model, source = next(iter(references.load()["sources"].items()))
    results["tasks"]["foxes"]["references"] = {model: 0.875}
    page = Page(report.page(results, {}))
    (table,) = (t for t in page.tables if model in t[0])
    assert table[1] == ["foxes", "50.00", "60.00", "40.00", "87.50"]
    assert f"{model}: {source}" in page.words


def test_everything_to_run_it_again_is_there(results):
    words = Page(report.page(results, {})).words
    assert "embed evaluate 'small=runs/a b' --suite=mine.json" in words
    for part in ("1.2.3", "3.11.9", "jax", "0.10.1", "Linux-6", "4 x TPU v5e", "d1a2b3c4"):
        assert part in words
    assert "seqio" not in words  # it is not installed


def test_the_commands_of_all_merged_results_are_there(results):
    results["sources"] = [
        {"path": "a", "suite_digest": "1", "command": ["embed", "evaluate", "one"]},
        {"path": "b", "suite_digest": "2", "command": ["embed", "evaluate", "two"]},
    ]
    words = Page(report.page(results, {})).words
    assert "embed evaluate one\nembed evaluate two" in words


def test_one_task_and_one_model_are_counted_as_one(results):
    del results["tasks"]["pairs"], results["models"]["a longer name"], results["models"]["bm25"]
    del results["models"]["small"]["results"]["pairs"]
    assert "1 task, 1 model." in Page(report.page(results, {})).words
