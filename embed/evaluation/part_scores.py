"""Tables of a task's secondary scores: by the input of mixed queries, by subset of the queries, and by domain."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from embed.evaluation.report import SHORT, percent

Cells = list[list[str]]
# Inputs of a mixed query: the prefix of the score, and the name in a table.
_INPUTS = {
    "": "text and images",
    "sum/": "sum of both vectors",
    "images/": "images alone",
    "text/": "text alone",
    "unmasked/": "text with names",
    "unfiltered/": "text and images, nothing excluded",
}
_METRICS = ("r1", "r5", "r10", "mrr")


def tables(results: Mapping[str, Any]) -> list[tuple[str, Cells]]:
    """Returns (title, cells) of every table that a results.json has of its tasks' other scores. The first row is the header.

    Each model is shown at its first view, beside the task's upper bounds (`ceilings`).
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
    """Returns the scores of each model by input, and R@1 by subset of the queries."""
    heads = ["R@1", "R@5", "R@10", "MRR"]
    cells = [["model", "input", *heads, *(["upper bound of R@1"] if ceilings else [])]]
    for model, scores in models.items():
        for prefix, name in _INPUTS.items():
            if f"{prefix}r1" in scores:
                values = [scores.get(prefix + metric) for metric in _METRICS]
                # ceilings.json has no upper bound for some prefixes, such as 'unfiltered/': the cell is then '-'.
                bounds = [ceilings.get(f"{prefix}r1")] if ceilings else []
                cells.append([model, name, *map(percent, [*values, *bounds])])
    subsets = _after_r1(models)
    prefixes = [prefix for prefix in list(_INPUTS)[:4] if any(f"{prefix}r1" in scores for scores in models.values())]
    bounded = [prefix for prefix in prefixes if f"{prefix}r1" in ceilings]
    heads = [_INPUTS[p] for p in prefixes] + [f"upper bound: {_INPUTS[p]}" for p in bounded]
    by_subset = [["model", "queries", *heads]]
    for model, scores in models.items():
        for subset in subsets:
            values = [scores.get(f"{prefix}r1/{subset}") for prefix in prefixes]
            values += [ceilings.get(f"{prefix}r1/{subset}") for prefix in bounded]
            by_subset.append([model, subset, *map(percent, values)])
    return [("Scores by input", cells), *([("R@1 by subset of the queries", by_subset)] if subsets else [])]


def _after_r1(models: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns the names X of all scores 'r1/X', in their order."""
    names = (name for scores in models.values() for name in scores if name.startswith("r1/"))
    return list(dict.fromkeys(name.removeprefix("r1/") for name in names))


def _universal(models: Mapping[str, Mapping[str, float]], ceilings: Mapping[str, float]) -> list[tuple[str, Cells]]:
    """Returns the scores of every domain."""
    del ceilings
    domains = _after_r1(models)
    metrics = [f"{m}{index}" for index in ("", "_separate") for m in ("r1", "mmp_at_5", "map_at_1000")]
    cells = [["model", "domain", *(_named(metric) for metric in metrics)]]
    for model, scores in models.items():
        cells.append([model, "mean", *(percent(scores.get(metric)) for metric in metrics)])
        cells += [[model, name, *(percent(scores.get(f"{m}/{name}")) for m in metrics)] for name in domains]
    return [("Domains", cells)]


def _named(metric: str) -> str:
    name = metric.removesuffix("_separate")
    short = {"r1": "R@1", "mmp_at_5": "mMP@5"}.get(name, SHORT.get(name, name))
    return f"{short}, separate index" if metric != name else short


_Maker = Callable[[Mapping[str, Mapping[str, float]], Mapping[str, float]], Sequence[tuple[str, Cells]]]
_TABLES: dict[str, _Maker] = {"mixed_retrieval": _mixed, "universal_retrieval": _universal}
