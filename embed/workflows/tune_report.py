"""What a mixture search leaves for people: tables, gin files of rates, and plots."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from embed import files, markdown
from embed.curation import proposals, simplex, specialists
from embed.curation.proposals import Trial
from embed.curation.trials import Search, rates_text, score_text
from embed.evaluation import outputs, plots, report, stored
from embed.metrics import higher_is_better

GIN = (
    "# Rates found by embed tune; include after a recipe.\nfrom __gin__ import dynamic_registration\n\n"
    "from embed.data import tasks\n\ntasks.Mixture.rates = {rates!r}\ntasks.Mixture.maximum = None\n"
)


def write_rates(path: pathlib.Path, rates: Mapping[str, float]) -> None:
    """Writes rates as a gin file that goes after a recipe."""
    rounded = {name: round(rate, simplex.DIGITS) for name, rate in rates.items()}
    files.write_atomic(path, GIN.format(rates=rounded))


def write_grid(search: Search) -> None:
    """Writes and prints what a grid search has found: rates.md and rates.gin."""
    alone, trials, metric = search.alone(), search.trials(), search.plan.proposer.metric
    best = specialists.best(trials, metric)
    tasks = [["task", "steps to its best alone", f"{metric} alone", "rate from steps", "best rate"]]
    for name, result in alone.items():
        shown = score_text(result["score"], metric)
        tasks.append([name, f"{result['step']:,}", shown, f"{trials[0].rates[name]:.3f}", f"{best.rates[name]:.3f}"])
    text = f"{report.align(tasks)}\n\n{trials_table(trials, metric, ())}\n"
    files.write_atomic(search.folder / "rates.md", text)
    write_rates(search.folder / "rates.gin", best.rates)
    print(
        f"\n{text}\nwrote {search.folder}: rates.md, rates.gin; best {metric} {score_text(best.scores[metric], metric)} with "
        f"{rates_text(best.rates)}"
    )


def trials_table(trials: Sequence[Trial], metric: str, types: Sequence[str], escape=markdown.cell) -> str:
    """Returns the trials as a markdown table, best first; those that failed come last."""
    names = list(trials[0].rates)
    kinds = [kind for kind in types if kind != metric]
    cells = [["mixture", "proposed", metric, *(kind.replace("_", " ") for kind in kinds), *names]]
    for trial in sorted(trials, key=lambda t: (-proposals.value(t, metric), t.number)):
        scores = trial.scores or {}
        how = trial.how if trial.failed is None else f"{trial.how}, failed"
        shown = [score_text(scores.get(metric), metric), *(report.percent(scores.get(kind)) for kind in kinds)]
        cells.append([str(trial.number), how, *shown, *(f"{trial.rates[n]:.3f}" for n in names)])
    return report.align(cells, escape)


def scores_table(scores: Mapping[str, Mapping[str, float]], escape=markdown.cell) -> str:
    """Returns scores {model: {metric: score}} as a markdown table, in percent."""
    columns = list(dict.fromkeys(name for values in scores.values() for name in values))
    cells = [["model", *(name.replace("_", " ") for name in columns)]]
    cells += [[model, *(report.percent(values.get(c)) for c in columns)] for model, values in scores.items()]
    return report.align(cells, escape)


def record(search: Search, chosen: Sequence[tuple[Trial, str]], suite: str, scores: Mapping[str, Any]) -> dict:
    """Returns a Bayesian search as plain values: what search.json holds and plots are made of."""
    metric, trials = search.plan.proposer.metric, search.trials()
    seed = best_seed(search)
    return {
        "metric": metric,
        "higher_is_better": higher_is_better(metric),
        "suite": suite,
        "seeds": search.plan.seeds,
        "trials": [
            {
                "number": trial.number,
                "kind": trial.kind,
                "goal": trial.goal,
                "rates": dict(trial.rates),
                "score": None if trial.scores is None else trial.scores[metric],
                "scores": trial.scores,
                "failed": trial.failed,
            }
            for trial in trials
        ],
        "chosen": [
            {"name": f"mixture-{n}", "trial": trial.number, "for": goal, "rates": dict(trial.rates)}
            for n, (trial, goal) in enumerate(chosen, 1)
        ],
        "best_seed": dict(seed.rates),
        **scores,
    }


def best_seed(search: Search) -> Trial | None:
    """Returns the best mixture of those that a search began with."""
    seeds = [trial for trial in search.trials() if trial.number <= search.plan.seeds]
    return specialists.best(seeds, search.plan.proposer.metric)


def write_search(search: Search, outcome: Mapping[str, Any], types: Sequence[str]) -> None:
    """Writes and prints what a Bayesian search has found: search.md, search.json, the rates of the chosen mixtures, plots."""
    folder = search.folder
    for mixture in outcome["chosen"]:
        write_rates(folder / f"{mixture['name']}.gin", mixture["rates"])
    files.write_json(folder / "search.json", outputs.plain(outcome))
    files.write_atomic(folder / "search.md", _text(search, outcome, types, markdown.cell))
    written = ["search.md", "search.json", *(f"{mixture['name']}.gin" for mixture in outcome["chosen"])]
    for name, draw in (("search.png", plots.search_progress), ("rates.png", plots.search_rates)):
        picture = draw(outcome)
        if picture is not None:
            files.write_atomic(folder / name, picture)
            written.append(name)
    print(f"\n{_text(search, outcome, types, markdown.printable)}")
    if not plots.available():
        print("tune: no plots: matplotlib is not installed; run: pip install 'embed[plots]'")
    print(f"wrote {folder}: {', '.join(written)}{_models_text(outcome)}", flush=True)


def _models_text(outcome: Mapping[str, Any]) -> str:
    """Returns where the soup and the reports are."""
    folders = [
        name for name, key in (("final/soup", "soup"), ("final/dev", "dev"), ("final/test", "test")) if outcome[key]
    ]
    return f"; models and reports: {', '.join(folders)}" if folders else ""


def _text(search: Search, outcome: Mapping[str, Any], types: Sequence[str], escape) -> str:
    metric, trials = outcome["metric"], search.trials()
    parts = [
        f"Mixtures, best first by {metric} on {outcome['suite']}, in percent. Numbers up to {outcome['seeds']} are seeds.",
        trials_table(trials, metric, types, escape),
        "Chosen mixtures: the best, then those that gain most in a type",
        _chosen_table(outcome, {trial.number: trial for trial in trials}, escape),
        f"Scores on {outcome['suite']}, which the mixtures were chosen on: they are too high",
        scores_table(outcome["dev"], escape),
    ]
    if outcome["test"]:
        parts += [
            f"Scores on {outcome['test_suite']}, which nothing was chosen on: report these",
            scores_table(outcome["test"], escape),
        ]
    return "\n\n".join([*parts, *_gains(outcome)]) + "\n"


def _chosen_table(outcome: Mapping[str, Any], trials: Mapping[int, Trial], escape) -> str:
    cells = [["name", "mixture", "proposed", "chosen for", "score", "rates"]]
    for mixture in outcome["chosen"]:
        trial = trials[mixture["trial"]]
        score = score_text(trial.scores.get(mixture["for"]), mixture["for"])
        how = trial.how if trial.number > outcome["seeds"] else f"{trial.how} (seed)"
        goal = mixture["for"].replace("_", " ")
        cells.append([mixture["name"], str(trial.number), how, goal, score, rates_text(trial.rates)])
    return report.align(cells, escape)


def _gains(outcome: Mapping[str, Any]) -> list[str]:
    """Returns what the best mixture and the soup gain over the best seed, in points, on each suite."""
    lines = []
    for key, title in (("dev", outcome["suite"]), ("test", outcome["test_suite"])):
        scores = outcome[key]
        if not scores:
            continue
        column = next(iter(next(iter(scores.values()))))
        seed = scores[outcome["seed_name"]].get(column, math.nan)
        gains = [
            f"{name} {report.signed(scores[name].get(column, math.nan) - seed)}"
            for name in ("mixture-1", "soup")
            if name in scores and name != outcome["seed_name"]
        ]
        what = ", ".join(gains) if gains else "the best seed is the best mixture"
        lines.append(f"Over the best seed, points of {column} on {title}: {what}")
    return lines


def read_scores(path: pathlib.Path, metric: str) -> dict[str, dict[str, float]]:
    """Returns {model: {metric: score}} of a results.json at the full size: the metric, where it is of a task, means and types."""
    results = stored.read_results(path)
    scores = {}
    for name, model in results["models"].items():
        view = max(model["views"], key=lambda v: v["dim"])["name"]
        task, _, score = metric.rpartition("/")
        means = {k: v for k, v in model["means"][view].items() if k != "mean of the tasks" or k == metric}
        of_task = model["results"].get(task, {}).get(view, {})
        values = {metric: of_task[score]} if score in of_task else {}
        values |= {metric: means[metric]} if metric in means else {}
        scores[name] = {**values, "mean of the types": means["mean of the types"], **means}
    return scores
