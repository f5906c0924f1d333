"""Results as pictures (PNG): score against size and against bytes, bars by type, curves of interpolations."""

import io
import math
import pathlib
import warnings
from collections.abc import Mapping

from embed import markdown
from embed.errors import UsageError

_MARKERS = "osD^vP*X"
_PER_ROW = 3


def available() -> bool:
    """Returns whether matplotlib is installed."""
    import importlib.util

    return importlib.util.find_spec("matplotlib") is not None


def _pyplot():
    try:
        import matplotlib
    except ImportError as e:
        raise UsageError("plots need a package; run: pip install 'embed[plots]'") from e
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name may be in a script that the font does not have; its characters are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, dpi=150, format="png")
    _pyplot().close(figure)
    return buffer.getvalue()


def _name(text: str) -> str:
    """Returns a name as matplotlib shows it: not as a formula, and not left out of the legend for a leading underscore."""
    shown = markdown.printable(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def _style(number: int) -> dict:
    # Markers of their own, drawn hollow, so that lines that lie on each other can both be seen.
    return {"color": f"C{number % 10}", "marker": _MARKERS[number % 8], "markerfacecolor": "none", "markersize": 7}


def _curves(results: Mapping, horizontal: str) -> bytes | None:
    """Returns a panel for each type: its mean score against the dimension or the bytes of a vector; BM25 is a level line."""
    pyplot = _pyplot()
    kinds = list(dict.fromkeys(t["group"] for t in results["tasks"].values()))
    panels = [*kinds, *(["mean of the types"] if len(kinds) > 1 else [])]
    lines = _lines(results, horizontal)
    if not any(len(points) > 1 for points in lines.values()):
        return None
    across = min(_PER_ROW, len(panels))
    down = -(-len(panels) // across)
    figure, axes = pyplot.subplots(
        down, across, figsize=(1.5 + 4.3 * across, 0.7 + 3.4 * down), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, kind in zip(axes.flat, panels):
        values = []
        for number, (name, points) in enumerate(lines.items()):
            drawn = [(x, 100 * means[kind]) for x, means in points if kind in means and math.isfinite(means[kind])]
            values += [y for _, y in drawn]
            if drawn:
                axis.plot(*zip(*drawn), **_style(number), label=_name(name))
        for name, model in results["models"].items():
            level = model["means"].get("all", {}).get(kind)
            if level is not None:
                axis.axhline(100 * level, color="0.45", linestyle="--", linewidth=1.5, label=_name(name))
                values.append(100 * level)
        axis.set_xscale("log", base=2)
        ticks = sorted({x for points in lines.values() for x, _ in points})
        axis.set_xticks(ticks, [str(t) for t in ticks])
        axis.minorticks_off()
        if values:
            spread = max(max(values) - min(values), 1.0)
            axis.set_ylim(min(values) - 0.15 * spread, max(values) + 0.15 * spread)
        axis.set_title(_name(kind))
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("percent")
    for axis in axes[-1]:
        axis.set_xlabel("embedding dimension" if horizontal == "dim" else "bytes per vector")
    named = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels()):
            named.setdefault(label, handle)
    figure.legend(list(named.values()), list(named), loc="outside right upper", frameon=False)
    return _png(figure)


def _lines(results: Mapping, horizontal: str) -> dict[str, list]:
    """Returns {line: [(size or bytes, means)]}: a line for each model, and for each of its precisions."""
    lines: dict[str, list] = {}
    for name, model in results["models"].items():
        for view in model.get("views", ()):
            line = name if view["precision"] == "float32" else f"{name} {view['precision']}"
            lines.setdefault(line, []).append((view[horizontal], model["means"][view["name"]]))
    return {name: sorted(points, key=lambda p: p[0]) for name, points in lines.items()}


def dimensions(results: Mapping) -> bytes | None:
    """Returns the scores against the embedding's size; None when every model has one size only."""
    return _curves(results, "dim")


def sizes(results: Mapping) -> bytes | None:
    """Returns the scores against the bytes of a vector; None unless several precisions were scored."""
    precisions = {v["precision"] for m in results["models"].values() for v in m.get("views", ())}
    return _curves(results, "bytes") if len(precisions) > 1 else None


def bars(results: Mapping) -> bytes:
    """Returns bars of the means by type, one for each model at its first view."""
    pyplot = _pyplot()
    kinds = list(dict.fromkeys(t["group"] for t in results["tasks"].values()))
    models = list(results["models"].items())
    figure, axis = pyplot.subplots(figsize=(max(6.0, 1.6 + 1.35 * len(kinds)), 4.4), layout="constrained")
    width = 0.8 / len(models)
    for number, (name, model) in enumerate(models):
        view, means = next(iter(model["means"].items()))
        heights = [100 * means.get(kind, float("nan")) for kind in kinds]
        offsets = [i + (number - (len(models) - 1) / 2) * width for i in range(len(kinds))]
        drawn = axis.bar(offsets, heights, width * 0.92, color=f"C{number % 10}", label=_name(f"{name} ({view})"))
        if len(models) * len(kinds) <= 36:
            labels = ["" if math.isnan(h) else f"{h:.1f}" for h in heights]
            axis.bar_label(drawn, labels, fontsize=7, padding=1, rotation=90 if len(models) > 2 else 0)
    axis.set_xticks(range(len(kinds)), [k.replace("_", "\n").replace(" ", "\n") for k in kinds])
    axis.set_ylabel("mean of the main scores (percent)")
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    axis.margins(y=0.12)
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _png(figure)


def write_all(results: Mapping, folder: pathlib.Path) -> list[str]:
    """Writes the pictures that make sense for these results and returns their names."""
    written = []
    for name, draw in (("dimensions.png", dimensions), ("bytes.png", sizes), ("types.png", bars)):
        picture = draw(results)
        if picture is not None:
            (folder / name).write_bytes(picture)
            written.append(name)
    return written


def sweep(result: Mapping) -> bytes | None:
    """Returns each task's change against the base over alpha, and that of the mean; None without matplotlib."""
    if not available():
        return None
    pyplot = _pyplot()
    alphas = [float(a) for a in result["scores"]]
    points = list(result["scores"].values())
    base = points[0]
    figure, axis = pyplot.subplots(figsize=(8.5, 4.8), layout="constrained")
    for number, task in enumerate(base):
        change = [100 * (p[task] - base[task]) for p in points]
        axis.plot(
            alphas, change, marker=_MARKERS[number % 8], markersize=5, linewidth=1.2, alpha=0.8, label=_name(task)
        )
    means = list(result["means"].values())
    mean = [100 * (m - means[0]) for m in means]
    axis.plot(alphas, mean, color="black", marker="o", linewidth=2.6, label="mean of the types")
    axis.axvline(result["best"], color="0.4", linestyle="--", linewidth=1.2, label=f"best mean: {result['best']:g}")
    axis.axhline(0, color="0.6", linewidth=0.8)
    axis.set_xlabel("alpha: share of the tuned model")
    axis.set_ylabel(f"change against alpha {alphas[0]:g} (points)")
    axis.set_title(_name(f"Interpolation on {result['suite']}"))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _png(figure)


def soup(result: Mapping) -> bytes | None:
    """Returns the mean of every ingredient and of every average that was tried, in order; None without matplotlib."""
    if not available():
        return None
    pyplot = _pyplot()
    trials = [(n, 100 * t["mean"], t["kept"], 1.0 in t["weights"]) for n, t in enumerate(result["trials"], 1)]
    figure, axis = pyplot.subplots(figsize=(8.5, 4.4), layout="constrained")
    for label, style, kind in (
        ("ingredient", {"marker": "o", "color": "C0"}, lambda kept, alone: alone),
        ("average, kept", {"marker": "D", "color": "C2"}, lambda kept, alone: kept and not alone),
        ("average, not kept", {"marker": "x", "color": "0.55"}, lambda kept, alone: not kept and not alone),
    ):
        drawn = [(n, mean) for n, mean, kept, alone in trials if kind(kept, alone)]
        if drawn:
            axis.plot(*zip(*drawn), linestyle="none", markersize=8, label=label, **style)
    best = max(mean for _, mean, _, alone in trials if alone)
    axis.axhline(best, color="C0", linestyle="--", linewidth=1.2, label=f"best ingredient: {best:.2f}")
    last = [mean for _, mean, kept, _ in trials if kept][-1]
    axis.axhline(last, color="C2", linewidth=1.2, label=f"soup: {last:.2f}")
    axis.set_xticks(range(1, len(trials) + 1) if len(trials) <= 20 else range(1, len(trials) + 1, 5))
    axis.set_xlabel("trial")
    axis.set_ylabel("mean of the types (percent)")
    axis.set_title(_name(f"Soup ({result['method']}) on {result['suite']}"))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _png(figure)


def search_progress(search: Mapping) -> bytes | None:
    """Returns the score of every trial of a mixture search and the best so far, in order; None without matplotlib."""
    if not available():
        return None
    pyplot = _pyplot()
    scored = [t for t in search["trials"] if t["score"] is not None]
    failed = [t["number"] for t in search["trials"] if t["score"] is None]
    scale, turn = (100, max) if search["higher_is_better"] else (1, min)
    figure, axis = pyplot.subplots(figsize=(9.5, 4.6), layout="constrained")
    for number, kind in enumerate(dict.fromkeys(t["kind"] for t in scored)):
        drawn = [(t["number"], scale * t["score"]) for t in scored if t["kind"] == kind]
        style = {**_style(number), "markerfacecolor": f"C{number % 10}"}
        axis.plot(*zip(*drawn), linestyle="none", label=_name(kind), zorder=3, **style)
    numbers = [t["number"] for t in scored]
    best = [turn(scale * t["score"] for t in scored[: n + 1]) for n in range(len(scored))]
    axis.step(numbers, best, where="post", color="black", linewidth=1.4, label="best so far")
    seeds = [scale * t["score"] for t in scored if t["number"] <= search["seeds"]]
    if seeds:
        axis.axhline(turn(seeds), color="0.45", linestyle="--", linewidth=1.2, label="best seed")
    axis.axvspan(0.5, search["seeds"] + 0.5, color="0.93", zorder=0, label="seeds")
    if failed:
        low = axis.get_ylim()[0]
        axis.plot(failed, [low] * len(failed), "x", color="C3", markersize=8, clip_on=False, label="failed")
        axis.set_ylim(bottom=low)
    last = max(t["number"] for t in search["trials"])
    axis.set_xlim(0.5, last + 0.5)
    axis.set_xticks(range(1, last + 1) if last <= 30 else range(5, last + 1, 5))
    axis.set_xlabel("mixture, in the order of training")
    axis.set_ylabel(_name(search["metric"]) + (" (percent)" if search["higher_is_better"] else ""))
    axis.set_title(_name(f"Mixture search on {search['suite']}"))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _png(figure)


def search_rates(search: Mapping) -> bytes | None:
    """Returns the rates of the chosen mixtures of a search as bars, a group for each task; None without matplotlib."""
    if not available():
        return None
    pyplot = _pyplot()
    mixtures = {**{f"{m['name']}: {m['for']}": m["rates"] for m in search["chosen"]}, "best seed": search["best_seed"]}
    tasks = list(search["best_seed"])
    width = 0.8 / len(mixtures)
    height = 1.2 + len(tasks) * max(0.45, 0.2 * len(mixtures))
    figure, axis = pyplot.subplots(figsize=(8.5, height), layout="constrained")
    for number, (name, rates) in enumerate(mixtures.items()):
        color = "0.6" if name == "best seed" else f"C{number % 10}"
        rows = [i + (number - (len(mixtures) - 1) / 2) * width for i in range(len(tasks))]
        drawn = axis.barh(rows, [100 * rates[t] for t in tasks], width * 0.92, color=color, label=_name(name))
        axis.bar_label(drawn, fmt="%.1f", fontsize=7, padding=2)
    axis.set_yticks(range(len(tasks)), [_name(task) for task in tasks])
    axis.invert_yaxis()
    axis.set_xlabel("share of the draws (percent)")
    axis.margins(x=0.08)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return _png(figure)
