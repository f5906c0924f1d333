"""MTEB itself, run on models of ours at several sizes and precisions."""

import pathlib
from collections.abc import Mapping, Sequence

import jax

from embed import console, files, markdown
from embed.errors import UsageError
from embed.evaluation import mteb, references, report, views
from embed.inference import model as inference


def run(
    models: Mapping[str, str],
    benchmark: str,
    output,
    *,
    dims: Sequence[int] = (),
    precisions: Sequence[str] = ("float32",),
    max_length: int | None = None,
) -> None:
    """Runs `benchmark`, MTEB's name for one or names of tasks separated by commas, on every model {name: MODEL} and view.

    A folder `output` that is there goes on where it stopped, as MTEB's own cache does. `dims` default to the full size; one that a
    model does not have is a DataError, before anything is written.
    """
    if jax.process_count() > 1:
        raise UsageError("--mteb runs MTEB itself, which knows one host; start it on one")
    tasks, scores = mteb.chosen_tasks(benchmark), {}
    folder = pathlib.Path(output)
    views.views(list(dims) or [1], list(precisions))  # refuses what is none
    for name, path in models.items():
        model = inference.open_model(path, max_length=max_length)
        for size in dims:
            model.check_dims(size)
        folder.mkdir(parents=True, exist_ok=True)
        for view in views.views(list(dims) or [model.embedding_dim], list(precisions)):
            console.say(markdown.printable(f"{name} {view.name}: {len(tasks)} tasks of {benchmark}"))
            scores[f"{name} {view.name}"] = mteb.evaluate(mteb.MtebEncoder(model, name, view), tasks, folder)
    ranks = mteb.borda({n: {task: s["score"] for task, s in by_task.items()} for n, by_task in scores.items()})
    cells = [["model", "Mean (Task)", "Mean (TaskType)", "Borda"]]
    for name, by_task in scores.items():
        means = (report.percent(mean(by_task)) for mean in (mteb.task_mean, mteb.type_mean))
        cells.append([name, *means, str(ranks[name])])
    for name, published in references.of_benchmark(benchmark).items():
        means = (report.percent(published.get(kind)) for kind in ("task", "type"))
        cells.append([f"{name} ({references.source(name)})", *means, "-"])
    files.write_json(folder / "summary.json", {"mteb": benchmark, "scores": scores, "borda": ranks})
    table = report.align(cells, markdown.printable)
    print(f"\n{table}\n\nwrote {folder}/summary.json and MTEB's own files beside it")
