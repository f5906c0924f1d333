"""Results as tables for the terminal and in markdown: means by type, the main score of every task, differences."""

import math
from collections.abc import Callable, Mapping, Sequence

from embed import markdown

SHORT = {
    "ndcg_at_10": "nDCG@10",
    "mrr_at_10": "MRR@10",
    "map_at_1000": "MAP",
    "recall_at_1": "Recall@1",
    "recall_at_10": "Recall@10",
    "recall_at_100": "Recall@100",
    "recall_at_5kt": "R@5kt",
    "recall_at_2kt": "R@2kt",
    "cosine_spearman": "Spearman",
    "max_ap": "AP",
    "f1": "F1",
    "accuracy": "accuracy",
    "v_measure": "V-measure",
    "lrap": "LRAP",
    "p-MRR": "p-MRR",
}
MEANS = ("mean of the types", "mean of the tasks")


def rows(results: Mapping) -> list[tuple[str, str, Mapping]]:
    """Returns (model, view, {task: {score: value}}) of a results.json, model by model."""
    result = []
    for name, model in results["models"].items():
        views = dict.fromkeys(view for views_of_task in model["results"].values() for view in views_of_task)
        result += [
            (
                name,
                view,
                {t: views_of_task[view] for t, views_of_task in model["results"].items() if view in views_of_task},
            )
            for view in views
        ]
    return result


def main_scores(results: Mapping) -> list[tuple[str, str, dict[str, float]]]:
    """Returns (model, view, {task: main score})."""
    return [
        (model, view, {t: scores[results["tasks"][t]["main"]] for t, scores in by_task.items()})
        for model, view, by_task in rows(results)
    ]


def means_cells(results: Mapping) -> list[list[str]]:
    """Returns the means by type of every model and view; a model that lacks a type shows a dash."""
    shown = means_shown(results)
    cells = [["model", "view", *(name.replace("_", " ") for name in shown)]]
    for name, model in results["models"].items():
        for view, means in model["means"].items():
            cells.append([name, view, *(percent(means.get(k)) for k in shown)])
    return cells


def means_shown(results: Mapping) -> list[str]:
    """Returns the means that a table shows: over all first, where there are several types, then each type."""
    kinds = list(dict.fromkeys(t["group"] for t in results["tasks"].values()))
    return [*(MEANS if len(kinds) > 1 else ()), *kinds]


def tasks_cells(results: Mapping, all_views: bool = False) -> list[list[str]]:
    """Returns the main score of every task, with its confidence interval where there is one.

    A column for each model at its first view, or for each of its views.
    """
    columns, seen = [], set()
    for model, view, scores in main_scores(results):
        if all_views or model not in seen:
            columns.append((model, view, scores))
        seen.add(model)
    cells = [["task", "score", *(f"{model} {view}" for model, view, _ in columns)]]
    for task, facts in results["tasks"].items():
        line = [task, SHORT.get(facts["main"], facts["main"])]
        for model, view, scores in columns:
            value = percent(scores.get(task))
            interval = results["models"][model].get("intervals", {}).get(task, {}).get(view)
            known = interval is not None and not math.isnan(interval[0])
            line.append(f"{value} [{percent(interval[0])}, {percent(interval[1])}]" if known else value)
        cells.append(line)
    return cells


def differences_cells(results: Mapping) -> list[list[str]]:
    """Returns each model's difference to `against`, with the interval of paired draws; * marks those that leave out 0."""
    cells = [["task", "model", "view", "difference", "95 % interval", ""]]
    for row in results["differences"]["rows"]:
        low, high = row["interval"]
        sure = low > 0 or high < 0
        interval = "-" if math.isnan(low) else f"{signed(low)} to {signed(high)}"
        cells.append(
            [row["task"], row["model"], row["view"], signed(row["difference"]),
             interval, markdown.Raw("*") if sure else ""]
        )  # fmt: skip
    return cells


def references_cells(results: Mapping) -> list[list[str]]:
    """Returns published scores of the tasks that are MTEB's own, beside ours; nothing when there are none.

    Several tasks that are sets of texts of one task of MTEB are one row with the mean of their main scores, as MTEB's is.
    """
    rows = _published(results)
    others = list(dict.fromkeys(model for _, _, published in rows for model in published))
    if not others:
        return []
    ours, seen = [], set()
    for model, view, scores in main_scores(results):
        if model not in seen:
            ours.append((f"{model} {view}", scores))
        seen.add(model)
    cells = [["task", *(name for name, _ in ours), *others]]
    for name, members, published in rows:
        our_cells = [percent(_mean([scores.get(task) for task in members])) for _, scores in ours]
        cells.append([name, *our_cells, *(percent(published.get(model)) for model in others)])
    return cells


def _published(results: Mapping) -> list[tuple[str, list[str], Mapping[str, float]]]:
    """Returns (row, tasks, published scores) of every task of MTEB that some tasks are of."""
    members: dict[str, list[str]] = {}
    for task, facts in results["tasks"].items():
        if facts.get("references"):
            members.setdefault(facts.get("mteb_task", task), []).append(task)
    return [
        (
            tasks[0] if len(tasks) == 1 else f"{name}, mean of {len(tasks)}",
            tasks,
            results["tasks"][tasks[0]]["references"],
        )
        for name, tasks in members.items()
    ]


def _mean(scores: Sequence[float | None]) -> float | None:
    """Returns the mean of scores; None when one is missing."""
    return None if None in scores else sum(scores) / len(scores)


Escape = Callable[
    [str], str
]  # what names in a table go through: `markdown.cell`, or `markdown.printable` for a terminal


def means_table(results: Mapping, escape: Escape = markdown.cell) -> str:
    """Returns `means_cells` as markdown."""
    return align(means_cells(results), escape)


def tasks_table(results: Mapping, all_views: bool = False, escape: Escape = markdown.cell) -> str:
    """Returns `tasks_cells` as markdown."""
    return align(tasks_cells(results, all_views), escape)


def differences_table(results: Mapping, escape: Escape = markdown.cell) -> str:
    """Returns `differences_cells` as markdown."""
    return align(differences_cells(results), escape)


def references_table(results: Mapping, escape: Escape = markdown.cell) -> str:
    """Returns `references_cells` as markdown; nothing when there are none."""
    cells = references_cells(results)
    return align(cells, escape) if cells else ""


def loss_table(results: Mapping) -> str:
    """Returns `loss_cells` as markdown; nothing when every model has one view."""
    cells = loss_cells(results)
    return align(cells) if cells else ""


def table(results: Mapping, escape: Escape = markdown.cell) -> str:
    """Returns the tables of a results.json as markdown; scores in percent."""
    line = markdown.inline if escape is markdown.cell else escape
    parts = ["Means of the main scores by type, percent", means_table(results, escape)]
    parts += ["Main score of every task, percent [95 % interval]", tasks_table(results, escape=escape)]
    if results.get("differences"):
        title = f"Difference to {line(results['differences']['against'])}, points"
        parts += [title, differences_table(results, escape)]
    if published := references_table(results, escape):
        title = "Published scores of the same tasks (sources: embed/evaluation/references.json), percent"
        parts += [title, published]
    notes = [f"{task}: {note}" for task, facts in results["tasks"].items() for note in facts.get("notes", ())]
    return "\n\n".join([*parts, *map(line, results.get("remarks", ())), *map(line, notes)]) + "\n"


def percent(value: float | None) -> str:
    """Returns a score for people: percent with two digits, a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.2f}"


def signed(value: float) -> str:
    """Returns a difference of scores in points, with its sign; a dash where there is none."""
    return "-" if math.isnan(value) else f"{100 * value:+.2f}"


def align(cells: Sequence[Sequence[str]], escape: Escape = markdown.cell) -> str:
    """Returns rows as a markdown table with padded columns; the first row is the header, numbers stand to the right.

    Names go through `escape`; numbers and `markdown.Raw` cells stay as they are.
    """
    numeric = [all(_is_number(row[i]) for row in cells[1:]) for i in range(len(cells[0]))]
    cells = [[_escaped(cell, escape) for cell in row] for row in cells]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    rule = "|" + "|".join("-" * (w + 1) + (":" if n else "-") for w, n in zip(widths, numeric)) + "|"
    lines = [
        "| " + " | ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric)) + " |"
        for row in cells
    ]
    return "\n".join([lines[0], rule, *lines[1:]])


def _escaped(cell: str, escape: Escape) -> str:
    return cell if isinstance(cell, markdown.Raw) or _is_number(cell) else escape(cell)


def _is_number(text: str) -> bool:
    """Returns whether a cell is a number, with its spread or interval: 52.7 ± 0.1, 86.0 [84.3, 87.6], +0.5 to +1.2."""
    if text in ("-", "all"):
        return True
    words = [word.strip("[],%*±") for word in text.split(" ")]
    try:
        float(words[0])
        return all(not word or word == "to" or math.isfinite(float(word)) for word in words[1:])
    except ValueError:
        return False


def loss_cells(results: Mapping) -> list[list[str]]:
    """Returns what each view keeps of its model's first one, by the mean of the types, and the bytes of a vector."""
    cells = [["model", "view", "bytes", "mean", "kept"]]
    for name, model in results["models"].items():
        views = {v["name"]: v for v in model.get("views", ())}
        if len(views) < 2:
            continue
        first = next(iter(model["means"].values()))["mean of the types"]
        for view, means in model["means"].items():
            value = means["mean of the types"]
            kept = f"{100 * value / first:.1f} %" if first and math.isfinite(first) else "-"
            cells.append([name, view, str(views[view]["bytes"]), percent(value), kept])
    return cells if len(cells) > 1 else []


def sweep_table(sweep: Mapping) -> str:
    """Returns a sweep of alphas as a markdown table, in percent; alpha 0 is the base, 1 the tuned model."""
    tasks = list(next(iter(sweep["scores"].values())))
    cells = [["alpha", "mean of the types", *tasks]]
    for alpha, scores in sweep["scores"].items():
        cells.append([alpha, percent(sweep["means"][alpha]), *(percent(v) for v in scores.values())])
    title = f"Interpolation of base (0) and tuned model (1), percent; best at alpha {sweep['best']:g}"
    return f"{title}\n\n{align(cells)}\n"


def soup_table(soup: Mapping) -> str:
    """Returns the ingredients of a soup and the soup itself as a markdown table, in percent; the best of each column is marked."""
    last = [t for t in soup["trials"] if t["kept"]][-1]
    lines = [
        (name, share, trial)
        for i, (name, share) in enumerate(zip(soup["inputs"], last["weights"]))
        for trial in soup["trials"][: len(soup["inputs"])]
        if trial["weights"][i] == 1
    ]
    if 1 not in last["weights"]:
        lines.append((f"soup ({soup['method']})", 1.0, last))
    tasks = list(last["scores"])
    columns = [[t["mean"] for *_, t in lines], *([t["scores"][task] for *_, t in lines] for task in tasks)]
    cells = [["model", "weight", "mean of the types", *tasks]]
    for row, (name, share, _) in enumerate(lines):
        values = [f"{percent(c[row])}{' *' if c[row] == max(c) else ''}" for c in columns]
        cells.append([name, f"{share:.3f}", *values])
    return f"Ingredients and soup on {markdown.inline(soup['suite'])}, percent; * is the best of a column\n\n{align(cells)}\n"
