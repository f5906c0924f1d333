"""The scores of a task beside its main one as tables: what a mixed query is read by, parts of the queries, and domains."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from embed.evaluation.report import SHORT, percent

Cells = list[list[str]]
# What a query of a text and images is read by: its name in a score, and in a table.
_READ = {
    "": "text and images",
    "sum/": "sum of both vectors",
    "images/": "images alone",
    "text/": "text alone",
    "unmasked/": "text with names",
    "own_kept/": "text and images, its own in the gallery",
}
_METRICS = ("r1", "r5", "r10", "mrr")


def tables(results: Mapping[str, Any]) -> list[tuple[str, Cells]]:
    """Returns (title, cells) of every table that a results.json has of its tasks' other scores. The first row is the header.

    Each model is shown at its first view. What a perfect reader could have (`ceilings` of the task) stands beside.
    """
    listed: list[tuple[str, Cells]] = []
    for task, facts in results["tasks"].items():
        make = _TABLES.get(facts["type"])
        if make is not None:
            models = {
                name: next(iter(model["results"][task].values()))
                for name, model in results["models"].items()
                if task in model["results"]
            }
            listed += [(f"{title} of {task}", cells) for title, cells in make(models, facts.get("ceilings", {}))]
    return listed


def _mixed(models: Mapping[str, Mapping[str, float]], ceilings: Mapping[str, float]) -> list[tuple[str, Cells]]:
    """Returns what each model finds by what of the queries, and its R@1 of each part of the queries."""
    heads = ["R@1", "R@5", "R@10", "MRR"]
    cells = [["model", "read by", *heads, *(["R@1 of a perfect reader"] if ceilings else [])]]
    for model, scores in models.items():
        for prefix, shown in _READ.items():
            if f"{prefix}r1" in scores:
                values = [scores.get(prefix + metric) for metric in _METRICS]
                # With its own images in the gallery a reader cannot know which image is meant.
                perfect = [ceilings.get(f"{prefix}r1")] if ceilings else []
                cells.append([model, shown, *map(percent, [*values, *perfect])])
    groups = dict.fromkeys(
        name.removeprefix("r1/") for scores in models.values() for name in scores if name.startswith("r1/")
    )
    read = [prefix for prefix in list(_READ)[:4] if any(f"{prefix}r1" in scores for scores in models.values())]
    perfect = [prefix for prefix in read if f"{prefix}r1" in ceilings]
    parts = [["model", "queries", *(_READ[p] for p in read), *(f"perfect: {_READ[p]}" for p in perfect)]]
    for model, scores in models.items():
        for group in groups:
            values = [scores.get(f"{prefix}r1/{group}") for prefix in read]
            values += [ceilings.get(f"{prefix}r1/{group}") for prefix in perfect]
            parts.append([model, group, *map(percent, values)])
    return [("What finds the images", cells), *([("R@1 of parts of the queries", parts)] if groups else [])]


def _universal(models: Mapping[str, Mapping[str, float]], ceilings: Mapping[str, float]) -> list[tuple[str, Cells]]:
    """Returns the scores of every domain."""
    del ceilings
    domains = dict.fromkeys(
        name.removeprefix("r1/") for scores in models.values() for name in scores if name.startswith("r1/")
    )
    metrics = [f"{m}{index}" for index in ("", "_separate") for m in ("r1", "mmp_at_5", "map_at_1000")]
    cells = [["model", "domain", *(_named(metric) for metric in metrics)]]
    for model, scores in models.items():
        cells.append([model, "mean", *(percent(scores.get(metric)) for metric in metrics)])
        cells += [[model, name, *(percent(scores.get(f"{m}/{name}")) for m in metrics)] for name in domains]
    return [("Domains", cells)]


def _named(metric: str) -> str:
    name = metric.removesuffix("_separate")
    shown = {"r1": "R@1", "mmp_at_5": "mMP@5"}.get(name, SHORT.get(name, name))
    return f"{shown}, own index" if metric != name else shown


_Maker = Callable[[Mapping[str, Mapping[str, float]], Mapping[str, float]], Sequence[tuple[str, Cells]]]
_TABLES: dict[str, _Maker] = {"mixed_retrieval": _mixed, "universal_retrieval": _universal}
