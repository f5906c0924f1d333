"""What an evaluation leaves behind: results.json, the samples for later comparisons, markdown, plots and the HTML report."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from embed import digests, files
from embed.errors import DataError, UsageError, did_you_mean
from embed.evaluation import bootstrap, html, part_scores, pictures, plots, references, report, runner, stored
from embed.evaluation.stored import FORMAT
from embed.evaluation.suites import Suite
from embed.evaluation.tasks import Scored
from embed.evaluation.views import View

SAMPLES = "samples.npz"


class Collected:
    """The results of one evaluation, model by model. `samples` are by 'model/task/view'."""

    def __init__(self, suite: Suite, environment: Mapping, command: Sequence[str]):
        self._suite, self._environment, self._command = suite, environment, list(command)
        self._models: dict[str, dict[str, Any]] = {}
        self._notes: dict[str, list[str]] = {}
        self.samples: dict[str, bootstrap.Sample] = {}
        self.pictures: dict[str, dict[str, Sequence[pictures.Row]]] = {}

    def note(self, task: str, text: str) -> None:
        """Adds a remark to a task."""
        self._notes.setdefault(task, []).append(text)

    def add(self, name: str, facts: Mapping, views: Sequence[View], outcome: runner.Results) -> None:
        """Adds a model's scores; confidence intervals are those of its first view."""
        first = views[0].name
        described = [
            {"name": v.name, "dim": v.dim, "precision": v.precision, "bytes": v.bytes_per_vector} for v in views
        ]
        self._models[name] = {
            **facts,
            "views": described,
            "results": outcome.scores,
            "intervals": {
                t: {first: list(bootstrap.interval(samples[first]))} for t, samples in outcome.samples.items()
            },
            "means": runner.means(outcome.scores, self._suite),
        }
        for task, samples in outcome.samples.items():
            for view, sample in samples.items():
                self._add_sample(f"{name}/{task}/{view}", sample)
        if outcome.pictures:
            self.pictures[name] = {task: draw() for task, draw in outcome.pictures.items()}

    def add_level(self, name: str, description: str, scored: Mapping[str, Scored]) -> None:
        """Adds a baseline that has no sizes; its only view is 'all'."""
        scores = {task: {"all": s.scores} for task, s in scored.items()}
        self._models[name] = {"model": description, "results": scores, "means": runner.means(scores, self._suite)}
        if scores:
            for mean in report.MEANS:  # of some types alone, it compares with nobody's
                self._models[name]["means"]["all"].pop(mean)
        for task, s in scored.items():
            if s.sample is not None:
                self._add_sample(f"{name}/{task}/all", s.sample)

    def first_scores(self, task: str) -> dict[str, dict[str, float]]:
        """Returns the scores of each model on a task, of its first view."""
        return {
            name: next(iter(m["results"][task].values())) for name, m in self._models.items() if task in m["results"]
        }

    def _add_sample(self, key: str, sample: bootstrap.Sample) -> None:
        if key in self.samples:
            raise UsageError(f"two results are both called {key!r}; give the models names without '/': NAME=MODEL")
        self.samples[key] = sample

    def results(self, against: str | None = None) -> dict[str, Any]:
        """Returns the content of results.json; differences to the model `against` when one is named."""
        tasks = {
            t.name: {
                "type": t.type,
                "group": self._suite.groups[t.name],
                "main": t.main,
                "languages": list(t.languages),
                "notes": self._notes.get(t.name, []),
                "references": references.of_task(self._suite.mteb_tasks.get(t.name)),
                **({"mteb_task": self._suite.mteb_tasks[t.name]} if t.name in self._suite.mteb_tasks else {}),
                **({"ceilings": dict(t.ceilings)} if getattr(t, "ceilings", None) else {}),
            }
            for t in self._suite.tasks
        }
        content = {
            "format": FORMAT,
            "suite": self._suite.name,
            "suite_digest": self._suite.digest,
            "command": self._command,
            "environment": dict(self._environment),
            "tasks": tasks,
            "models": self._models,
        }
        return with_differences(content, self.samples, against)


def with_differences(results: dict[str, Any], samples: Mapping[str, bootstrap.Sample], against: str | None):
    """Returns results with every model's difference to `against`, by draws of the same items, at the first view of the model.

    A baseline of one score, `all`, is compared with the first view of any model. There is no difference where the model `against`
    has not that view, or was scored on other data.
    """
    if against is None:
        return results
    if against not in results["models"]:
        raise UsageError(f"--against={against}{did_you_mean(against, results['models'])}")
    rows = []
    for name, model in results["models"].items():
        for task, views in model["results"].items() if name != against else ():
            theirs = results["models"][against]["results"].get(task, {})
            view = next(iter(views))
            other = view if view in theirs else "all" if "all" in theirs else next(iter(theirs), None)
            if "all" not in (view, other) and view != other:
                continue
            data = [results["models"][n].get("data", {}).get(task) for n in (name, against)]
            if None not in data and data[0] != data[1]:
                continue
            one, two = samples.get(f"{name}/{task}/{view}"), samples.get(f"{against}/{task}/{other}")
            if one is None or two is None:
                continue
            try:
                value, low, high = bootstrap.difference(one, two)
            except ValueError as e:
                raise DataError(f"{task}: {name} and {against}: {e}") from e
            rows.append({"task": task, "model": name, "view": view, "difference": value, "interval": [low, high]})
    return {**results, "differences": {"against": against, "rows": rows}}


def merge(paths: Sequence[pathlib.Path], against: str | None = None):
    """Returns (results, samples, pictures) of several results.json as one.

    The same model's name in two gets its folder's in front.

    A damaged file, and samples that are not those of their results, are DataErrors.
    """
    merged: dict[str, Any] = {}
    samples: dict[str, bootstrap.Sample] = {}
    remarks: list[str] = []
    drawn: dict[str, Any] = {}
    for path in paths:
        path = path / "results.json" if path.is_dir() else path
        results = stored.read_results(path)
        if not merged:
            merged = {**results, "models": {}, "tasks": {}, "sources": []}
            for of_one in ("differences", "remarks", "samples_digest", "digest"):
                merged.pop(of_one, None)
        _add_tasks(merged["tasks"], results["tasks"], path)
        read_samples, missing = _samples(path, results)
        remarks += missing
        drawn_here = pictures.read(path.parent)
        for name, model in results["models"].items():
            new = name if name not in merged["models"] else f"{path.resolve().parent.name}/{name}"
            if new in merged["models"]:
                raise DataError(f"{path}: a model {new!r} is there twice; give the results folders of their own")
            merged["models"][new] = model
            drawn |= {new: drawn_here[name]} if name in drawn_here else {}
            keys = [f"/{task}/{view}" for task, views in model["results"].items() for view in views]
            samples |= {f"{new}{key}": read_samples[f"{name}{key}"] for key in keys if f"{name}{key}" in read_samples}
        remarks += [remark for remark in results.get("remarks", ()) if remark not in remarks]
        merged["sources"].append(
            {"path": str(path), "suite_digest": results["suite_digest"], "command": results["command"]}
        )
    if len({s["suite_digest"] for s in merged["sources"]}) > 1:
        remarks.append(
            "These results are of different suites or data: means compare only where the tasks are the same, and differences are "
            "of tasks with the same data alone."
        )
    if remarks:
        merged["remarks"] = list(dict.fromkeys(remarks))
    return with_differences(merged, samples, against), samples, drawn


def _add_tasks(merged: dict[str, Any], tasks: Mapping[str, Any], path: pathlib.Path) -> None:
    """Adds the tasks of one file to those of the files before, which must be scored alike."""
    for task, facts in tasks.items():
        before = merged.setdefault(task, facts)
        for field in ("main", "type", "group"):
            if before[field] != facts[field]:
                what = "scored by" if field == "main" else f"of {field}"
                raise DataError(f"{path}: task {task!r} is {what} {facts[field]}, elsewhere by another score or type")
        notes = [note for note in facts["notes"] if note not in before["notes"]]
        merged[task] = {**before, "notes": [*before["notes"], *notes]}


def _samples(path: pathlib.Path, results: Mapping[str, Any]) -> tuple[dict[str, bootstrap.Sample], list[str]]:
    """Returns (the samples that belong to a results.json, remarks)."""
    file = path.with_name(SAMPLES)
    if not file.is_file():
        return {}, [f"{path}: has no {SAMPLES} beside it, so that its models have no differences."]
    if files.sha256_file(file) != results["samples_digest"]:
        raise DataError(
            f"{file}: not the samples of {path.name} beside it; restore both from one evaluation, or remove it"
        )
    return bootstrap.load(file), []


def plain(value):
    """Returns the value with null for what is not a number, which JSON has no word for."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(
    results: Mapping, samples: Mapping[str, bootstrap.Sample], folder: pathlib.Path, drawn: pictures.Rows | None = None
) -> list[str]:
    """Writes everything into `folder` and returns the files' names. `drawn` are the pictures of its models and tasks."""
    bootstrap.save(folder / SAMPLES, samples)
    results = {**results, "samples_digest": files.sha256_file(folder / SAMPLES)}
    digests.write_sealed(folder / "results.json", plain(results))
    kept = report.loss_table(results)
    text = report.table(results) + (f"\nWhat the views keep\n\n{kept}\n" if kept else "")
    for title, cells in part_scores.tables(results):
        text += f"\n{title}, percent\n\n{report.align(cells)}\n"
    (folder / "results.md").write_text(text, encoding="utf-8")
    plotted = plots.write_all(results, folder) if plots.available() else []
    pictures.write(folder, drawn or {})
    page = html.page(results, {name: (folder / name).read_bytes() for name in plotted}, drawn or {})
    (folder / "report.html").write_text(page, encoding="utf-8")
    folders = [f"{pictures.FOLDER}/"] if drawn else []
    return ["report.html", "results.json", "results.md", SAMPLES, *plotted, *folders]
