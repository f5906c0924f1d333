"""One HTML file that opens from disk: tables, plots, and everything needed to run the evaluation again."""

import base64
import html
import shlex
from collections.abc import Mapping, Sequence

from embed import markdown
from embed.evaluation import part_scores, references, report
from embed.evaluation.pictures import Panel, Rows

_STYLE = """
:root { --ink: #1c2330; --soft: #5b6577; --line: #dfe3ea; --tint: #f5f7fa; --best: #e4f3e8; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1160px; padding: 24px 20px 64px; color: var(--ink); background: #fff;
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 4px; }
h2 { font-size: 1.15rem; margin: 36px 0 10px; }
p, li { max-width: 75ch; }
.soft { color: var(--soft); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { background: var(--tint); font-weight: 600; }
th.text, td.text { text-align: left; }
tr:last-child td { border-bottom: 0; }
td.best { background: var(--best); font-weight: 600; }
td.wrap { white-space: normal; overflow-wrap: anywhere; min-width: 12em; }
img { max-width: 100%; min-width: 600px; height: auto; display: block; }
h3 { font-size: 1rem; margin: 18px 0 8px; }
.panels { display: flex; flex-wrap: wrap; gap: 8px; padding: 8px 0 12px; border-bottom: 1px solid var(--line); }
.panel { margin: 0; width: 134px; padding: 2px; border: 2px solid transparent; border-radius: 6px; }
.panel img { min-width: 0; width: 126px; border-radius: 3px; image-rendering: auto; }
.panel q { display: block; min-height: 3em; font-size: .85rem; overflow-wrap: anywhere; }
.panel figcaption { color: var(--soft); font-size: .78rem; overflow-wrap: anywhere; }
.panel.right { border-color: #2e8b57; }
.panel.wrong { border-color: var(--line); }
@media (max-width: 480px) { .panel { width: 108px; } .panel img { width: 100px; } }
code, pre { font: .85rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--tint); padding: 10px 12px; border-radius: 6px; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: 10px 0; }
summary { cursor: pointer; font-weight: 600; }
"""


def escape(text: str) -> str:
    """Returns HTML that shows `text`, control characters written out as in Markdown."""
    return html.escape(markdown.printable(text))


def page(results: Mapping, plots: Mapping[str, bytes], drawn: Rows | None = None) -> str:
    """Returns the report of a results.json, with `plots` (name -> PNG) and the pictures `drawn` inside it.

    It loads nothing from anywhere.
    """
    many = len(results["tasks"]) != 1
    parts = [
        f"<h1>{escape(results['suite'])}</h1>",
        f'<p class="soft">{len(results["tasks"])} task{"s" if many else ""}, {len(results["models"])} '
        f"model{'s' if len(results['models']) != 1 else ''}. Scores in percent; the best of a column is tinted. "
        "Intervals are 95 % of draws of each task's items.</p>",
        _section("Means by type", _means(results)),
        *(_plot(name, data) for name, data in plots.items()),
        _section("Every task", _tasks(results)),
    ]
    parts += [_section(title, _cells(cells, 2)) for title, cells in part_scores.tables(results)]
    if results.get("differences"):
        title = f"Differences to {results['differences']['against']}"
        parts.append(_section(title, _cells(report.differences_cells(results), 3)))
    if kept := report.loss_cells(results):
        parts.append(_section("What the sizes and precisions keep", _cells(kept, 2)))
    if published := report.references_cells(results):
        names = dict.fromkeys(m for facts in results["tasks"].values() for m in facts.get("references", ()))
        credits = "".join(f"<li>{escape(m)}: {escape(references.source(m))}</li>" for m in names)
        parts.append(_section("Published scores of the same tasks", f"{_cells(published)}<ul>{credits}</ul>"))
    notes = [
        f"<li>{escape(t)}: {escape(n)}</li>" for t, facts in results["tasks"].items() for n in facts.get("notes", ())
    ]
    notes = [f"<li>{escape(remark)}</li>" for remark in results.get("remarks", ())] + notes
    if notes:
        parts.append(f"<h2>Notes</h2><ul>{''.join(notes)}</ul>")
    parts += [*_pictures(drawn or {}), _models(results), _prompts(results), _reproduce(results)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(results['suite'])}: scores</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{body}"


_CAPTIONS = {
    "dimensions.png": "Score against embedding size",
    "bytes.png": "Score against bytes per vector",
    "types.png": "Means by type at each model's first size",
}


def _plot(name: str, data: bytes) -> str:
    caption = _CAPTIONS.get(name, name)
    encoded = base64.b64encode(data).decode()
    image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{encoded}">'
    return _section(caption, f'<div class="scroll">{image}</div>')


def _pictures(drawn: Rows) -> list[str]:
    """Returns a section for each task that has pictures, with those of every model."""
    tasks = dict.fromkeys(task for of_model in drawn.values() for task in of_model)
    sections = []
    for task in tasks:
        bodies = [
            f"<h3>{escape(model)}</h3>" + "".join(map(_row, of_model[task]))
            for model, of_model in drawn.items()
            if task in of_model
        ]
        sections.append(_section(f"Pictures: {task}", "".join(bodies)))
    return sections


def _row(panels: Sequence[Panel]) -> str:
    """Returns panels side by side, which break into several lines on a small screen."""
    return f'<div class="panels">{"".join(map(_panel, panels))}</div>'


def _panel(panel: Panel) -> str:
    mark = {True: " right", False: " wrong", None: ""}[panel.is_right]
    body = f"<q>{escape(panel.text)}</q>" if panel.text else ""
    if panel.png is not None:
        encoded = base64.b64encode(panel.png).decode()
        body = f'<img alt="{escape(panel.label)}" src="data:image/png;base64,{encoded}">{body}'
    return f'<figure class="panel{mark}">{body}<figcaption>{escape(panel.label)}</figcaption></figure>'


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1, best: Mapping[int, set[int]] | None = None
):
    """Returns a table whose first `text` columns are words; `best` are the rows to tint, by column."""
    kind = lambda i: ' class="text"' if i < text else ""  # noqa: E731
    lines = ["<tr>" + "".join(f"<th{kind(i)}>{escape(h)}</th>" for i, h in enumerate(head)) + "</tr>"]
    for number, row in enumerate(rows):
        cells = []
        for i, value in enumerate(row):
            mark = ' class="best"' if best and number in best.get(i, ()) else kind(i)
            cells.append(f"<td{mark}>{escape(value)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _means(results: Mapping) -> str:
    shown = report.means_shown(results)
    values = [
        (name, view, [means.get(k) for k in shown])
        for name, model in results["models"].items()
        for view, means in model["means"].items()
    ]
    best = {}
    for i in range(len(shown)):
        column = [v[2][i] for v in values]
        known = [x for x in column if x is not None and x == x]
        if len(known) > 1:
            best[i + 2] = {n for n, x in enumerate(column) if x == max(known)}
    rows = [[name, view, *map(report.percent, row)] for name, view, row in values]
    return _table(["model", "view", *(name.replace("_", " ") for name in shown)], rows, 2, best)


def _tasks(results: Mapping) -> str:
    return _cells(report.tasks_cells(results, all_views=True), 2)


def _cells(cells: Sequence[Sequence[str]], text: int = 1) -> str:
    """Returns cells, the header first, as a table."""
    return _table(cells[0], cells[1:], text)


def _models(results: Mapping) -> str:
    rows = []
    for name, m in results["models"].items():
        texts = m.get("texts", {})
        rows.append(
            [
                name,
                m["model"],
                m.get("digest", "-")[:16],
                m.get("dtype", "-"),
                m.get("weights", "-"),
                f"{m['weight_bytes'] / 1e6:.1f}" if "weight_bytes" in m else "-",
                str(m.get("max_length", "-")),
                str(texts.get("all", "-")),
                "-" if texts.get("cut_at_max_length") is None else str(texts["cut_at_max_length"]),
            ]
        )
    head = ["model", "from", "digest", "computed in", "weights", "MB", "most tokens", "texts", "cut"]
    return _section("Models", _table(head, rows, 4))


def _prompts(results: Mapping) -> str:
    parts = []
    for name, model in results["models"].items():
        if "prompts" not in model:
            continue
        rows = [
            [t, side, prompt_template]
            for t, prompts in model["prompts"].items()
            for side, prompt_template in prompts.items()
        ]
        table = _table(["task", "texts", "prompt"], rows, 3)
        parts.append(f"<details><summary>{escape(name)}</summary>{table}</details>")
    return _section("Exact prompts", "".join(parts)) if parts else ""


def _reproduce(results: Mapping) -> str:
    commands = [s["command"] for s in results.get("sources", ())] or [results["command"]]
    environment = results["environment"]
    versions = [("embed", environment["embed"]), ("python", environment["python"])]
    versions += [(n, v) for n, v in environment["packages"].items() if v]
    devices = environment["devices"]
    rows = [[n, str(v)] for n, v in versions]
    rows += [["platform", environment["platform"]], ["device", f"{devices['count']} x {devices['kind']}"]]
    rows += [["suite digest", results["suite_digest"]]]
    lines = "\n".join(escape(" ".join(map(shlex.quote, c))) for c in commands)
    return _section("To run it again", f"<pre>{lines}</pre>{_table(['what', 'version'], rows, 2)}")
