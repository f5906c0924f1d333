"""The end of a Bayesian search: mixtures are chosen, their best checkpoints averaged, and all scored on both suites."""

import pathlib
from collections.abc import Mapping, Sequence

from embed.curation import proposals, specialists
from embed.curation.proposals import Trial
from embed.curation.trials import Search
from embed.workflows import command_lines, tune_report

SOUP = "soup"


def finish(search: Search, types: Sequence[str], count: int, suite: str, test_suite: str | None) -> None:
    """Chooses up to `count` mixtures, averages them, scores them and the best seed on `suite` and `test_suite`, and reports.

    Mixtures are chosen by the scores of their trials, on `suite`. `test_suite` is scored once: the same call again finds what it
    scored. Source: arXiv:2509.20354 s2.3, the unweighted average of one checkpoint a mixture.
    """
    metric, seed = search.plan.proposer.metric, tune_report.best_seed(search)
    at_least = -float("inf") if seed is None else proposals.value(seed, metric)
    chosen = specialists.choose(search.trials(), metric, types, count, at_least)
    if len(chosen) < count:
        print(f"tune: {len(chosen)} of {count} mixtures: no more have a score", flush=True)
    models, seed_name = _models(search, chosen, seed)
    folder = search.folder / "final"
    lines = []
    if len(chosen) > 1:
        runs = [models[f"mixture-{number}"] for number in range(1, len(chosen) + 1)]
        lines.append(["average", *runs, f"--output={folder / SOUP}"])
        models = {SOUP: str(folder / SOUP), **models}
    suites = {"dev": suite, **({} if test_suite is None else {"test": test_suite})}
    for name, file in suites.items():
        named = [f"{model}={path}" for model, path in models.items()]
        words = [f"--suite={file}", f"--output={folder / name}", f"--against={seed_name}", "--vectors=off"]
        lines.append(["evaluate", *named, *words])
    command_lines.run("tune: in the end", lines, folder)
    scores = {name: tune_report.read_scores(folder / name / "results.json", metric) for name in suites}
    facts = {"seed_name": seed_name, "soup": SOUP in models, "test_suite": test_suite, "test": {}, **scores}
    tune_report.write_search(search, tune_report.record(search, chosen, suite, facts), types)


def _models(search: Search, chosen: Sequence[tuple[Trial, str]], seed: Trial | None) -> tuple[Mapping[str, str], str]:
    """Returns the run of every chosen mixture and of the best seed, by name, and the name of that seed."""
    runs = {f"mixture-{n}": trial for n, (trial, _) in enumerate(chosen, 1)}
    seed_name = next((name for name, trial in runs.items() if trial.number == seed.number), "best-seed")
    runs.setdefault(seed_name, seed)
    return {name: str(_run_of(search, trial)) for name, trial in runs.items()}, seed_name


def _run_of(search: Search, trial: Trial) -> pathlib.Path:
    return search.trial_folder(trial.number) / "run"
