"""Results for people: a table for the terminal, the same in markdown, and a plot of score against dimension."""

import math
import pathlib
from collections.abc import Mapping, Sequence

from embed.errors import UsageError
from embed.evaluation.metrics import MAIN

SHORT = {
    "ndcg_at_10": "nDCG@10",
    "mrr_at_10": "MRR@10",
    "recall_at_1": "Recall@1",
    "recall_at_10": "Recall@10",
    "recall_at_100": "Recall@100",
    "cosine_spearman": "Spearman",
    "cosine_pearson": "Pearson",
}


def rows(results: Mapping) -> list[tuple[str, str, str, dict[str, float]]]:
    """Returns (task, model, dimension, metrics) of a results.json, task by task."""
    tasks = list(dict.fromkeys(t for m in results["models"].values() for t in m["results"]))
    return [
        (task, name, dim, values)
        for task in tasks
        for name, model in results["models"].items()
        for dim, values in model["results"].get(task, {}).items()
    ]


def table(results: Mapping) -> str:
    """Returns the results as a markdown table per task, columns aligned for the terminal. Scores in percent."""
    parts = []
    everything = rows(results)
    for task in dict.fromkeys(r[0] for r in everything):
        own = [r for r in everything if r[0] == task]
        names = list(own[0][3])
        cells = [["model", "dims", *(SHORT.get(n, n) for n in names)]]
        cells += [[model, dim, *(f"{100 * values[n]:.2f}" for n in names)] for _, model, dim, values in own]
        parts.append(f"{task} ({len(names)} metrics, percent)\n\n{align(cells)}")
    return "\n\n".join(parts) + "\n"


def align(cells: Sequence[Sequence[str]]) -> str:
    """Returns rows as a markdown table with padded columns; the first row is the header, numbers stand to the right."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    numeric = [all(_is_number(row[i]) for row in cells[1:]) for i in range(len(cells[0]))]
    rule = "|" + "|".join("-" * (w + 1) + (":" if n else "-") for w, n in zip(widths, numeric)) + "|"
    lines = [
        "| " + " | ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric)) + " |"
        for row in cells
    ]
    return "\n".join([lines[0], rule, *lines[1:]])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in ("-", "all")
    return True


def plot_dimensions(results: Mapping, path) -> None:
    """Writes a PNG of each task's main score against the embedding dimension, one line per model; BM25 is a level line."""
    try:
        import matplotlib
    except ImportError as e:
        raise UsageError("plots need a package; run: pip install 'embed[plots]'") from e
    matplotlib.use("Agg")
    from matplotlib import pyplot

    everything = rows(results)
    tasks = list(dict.fromkeys(r[0] for r in everything))
    shown = tasks[:6]
    figure, axes = pyplot.subplots(
        1, len(shown), figsize=(1.0 + 6.0 * len(shown), 4.2), squeeze=False, layout="constrained"
    )
    for axis, task in zip(axes[0], shown):
        own = [r for r in everything if r[0] == task]
        main = next(m for m in MAIN.values() if m in own[0][3])
        dims = sorted({int(dim) for _, _, dim, _ in own if dim.isdigit()})
        for number, model in enumerate(dict.fromkeys(r[1] for r in own)):
            points = {dim: 100 * values[main] for _, name, dim, values in own if name == model}
            if set(points) == {"all"}:
                axis.axhline(
                    points["all"], color="0.45", linestyle="--", linewidth=1.5, label=f"{model} {points['all']:.1f}"
                )
                continue
            line = sorted((int(d), v) for d, v in points.items())
            # Markers of their own, drawn hollow, so that lines that lie on each other can both be seen.
            style = {
                "color": f"C{number}",
                "marker": "osD^vP*X"[number % 8],
                "markerfacecolor": "none",
                "markersize": 8,
            }
            axis.plot(*zip(*line), **style, label=f"{model} {line[-1][1]:.1f}")
        axis.set_xscale("log", base=2)
        axis.set_xticks(dims, [str(d) for d in dims])
        axis.minorticks_off()
        finite = [100 * values[main] for *_, values in own if math.isfinite(values[main])] or [1.0]
        axis.set_ylim(min(0.0, 1.06 * min(finite)), max(1.0, 1.06 * max(finite)))
        axis.set_xlabel("embedding dimension")
        axis.set_ylabel(f"{SHORT[main]} (percent)")
        axis.set_title(task)
        axis.grid(alpha=0.3)
        axis.legend(title="at full size", frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.savefig(pathlib.Path(path), dpi=150)
    pyplot.close(figure)


def sweep_table(sweep: Mapping) -> str:
    """Returns a sweep of alphas as a markdown table, in percent; alpha 0 is the base, 1 the tuned model."""
    tasks = list(next(iter(sweep["scores"].values())))
    cells = [["alpha", "mean", *tasks]]
    for alpha, scores in sweep["scores"].items():
        values = [sum(scores.values()) / len(scores), *scores.values()]
        cells.append([alpha, *(f"{100 * v:.2f}" for v in values)])
    return f"Interpolation of base (0) and tuned model (1), percent; best mean at alpha {sweep['best']:g}\n\n{align(cells)}\n"


def sweep_plot(sweep: Mapping) -> bytes | None:
    """Returns a PNG of each task's change against the base over alpha, and of the mean; None without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return None
    import io

    matplotlib.use("Agg")
    from matplotlib import pyplot

    alphas = [float(a) for a in sweep["scores"]]
    points = list(sweep["scores"].values())
    base = points[0]
    figure, axis = pyplot.subplots(figsize=(8.5, 4.8), layout="constrained")
    for number, task in enumerate(base):
        change = [100 * (p[task] - base[task]) for p in points]
        axis.plot(alphas, change, marker="osD^vP*X"[number % 8], markersize=5, linewidth=1.2, alpha=0.8, label=task)
    mean = [100 * sum(p[t] - base[t] for t in base) / len(base) for p in points]
    axis.plot(alphas, mean, color="black", marker="o", linewidth=2.6, label="mean")
    axis.axvline(sweep["best"], color="0.4", linestyle="--", linewidth=1.2, label=f"best mean: {sweep['best']:g}")
    axis.axhline(0, color="0.6", linewidth=0.8)
    axis.set_xlabel("alpha: share of the tuned model")
    axis.set_ylabel(f"change against alpha {alphas[0]:g} (points)")
    axis.set_title(f"Interpolation on {sweep['suite']}")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, format="png")
    pyplot.close(figure)
    return buffer.getvalue()
