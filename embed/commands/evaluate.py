"""`embed evaluate`: models and baselines on a suite, at every Matryoshka size."""

import pathlib
import sys

from embed.commands import runtime

SUMMARY = (
    "Score models on a suite of local files, at every Matryoshka size; writes results.json, results.md and a plot."
)


def add_arguments(parser) -> None:
    parser.add_argument(
        "models", nargs="+", metavar="[NAME=]MODEL", help="what to score; NAME is how the table calls it"
    )
    parser.add_argument("--suite", required=True, help="suite file (JSON)")
    parser.add_argument("--output", required=True, help="new folder for the results")
    parser.add_argument("--dims", help="comma-separated sizes (default: the model's Matryoshka sizes)")
    parser.add_argument(
        "--baselines", default="", help="comma-separated: random (untrained weights of the first MODEL), bm25"
    )
    parser.add_argument("--tasks", help="comma-separated names of the suite's tasks to run")
    parser.add_argument("--max_length", type=int, help="tokens a text is cut at (default: the longest of training)")


def run(arguments) -> None:
    runtime.start()
    from embed import files
    from embed.errors import UsageError, did_you_mean
    from embed.evaluation import bm25, report, runner, suites

    baselines = [b for b in arguments.baselines.split(",") if b]
    for baseline in baselines:
        if baseline not in ("random", "bm25"):
            raise UsageError(f"--baselines: {baseline!r}{did_you_mean(baseline, ['random', 'bm25'])}")
    only = arguments.tasks.split(",") if arguments.tasks else None
    suite_name, tasks = suites.read_suite(arguments.suite, only)
    results = {"suite": suite_name, "environment": runtime.environment(), "models": {}}
    with files.new_folder(arguments.output) as folder:
        for task in tasks:
            if left_out := runner.unjudged(task):
                print(f"{task.name}: {left_out} queries without a relevant document are left out")
        if "random" in baselines:
            results["models"]["random"] = _score(_path(arguments.models[0]), arguments, tasks, random=True)
        for given in arguments.models:
            name = given.partition("=")[0] if "=" in given else pathlib.Path(given).name
            if name in results["models"]:
                raise UsageError(f"two models are called {name!r}; give them names: NAME=MODEL")
            print(f"scoring {name}", flush=True)
            results["models"][name] = _score(_path(given), arguments, tasks)
        if "bm25" in baselines:
            found = {t.name: {"all": bm25.score_bm25(t)} for t in tasks if t.type == "retrieval"}
            results["models"]["bm25"] = {"model": bm25.DESCRIPTION, "results": found}
        files.write_json(folder / "results.json", results)
        (folder / "results.md").write_text(report.table(results), encoding="utf-8")
        _plot(report, results, folder)
    print(f"\n{report.table(results)}")
    print(f"wrote {arguments.output}/results.json, results.md, dimensions.png")


def _path(given: str) -> str:
    return given.partition("=")[2] if "=" in given else given


def _plot(report, results, folder) -> None:
    import importlib.util

    if importlib.util.find_spec("matplotlib"):
        report.plot_dimensions(results, folder / "dimensions.png")
    else:
        print("no plot: matplotlib is not installed; run: pip install 'embed[plots]'", file=sys.stderr)


def _score(path: str, arguments, tasks, random: bool = False) -> dict:
    """Returns one model's entry of results.json."""
    from embed.data.text import template
    from embed.errors import UsageError
    from embed.evaluation import runner
    from embed.inference import model as inference
    from embed.inference import search

    cut = [0, 0]

    def overflow(truncated: int, total: int) -> None:
        cut[0] += truncated
        cut[1] += total

    model = inference.open_model(path, max_length=arguments.max_length, random=random, overflow=overflow)
    dims = runtime.numbers("dims", arguments.dims, int) or list(model.matryoshka_dims)
    size = model.encoder.model.embedding_dim
    if any(not 1 <= d <= size for d in dims):
        raise UsageError(f"--dims={arguments.dims}: this model gives 1 to {size}")
    scores = runner.score(tasks, runtime.with_progress(model.encode), search.top_k, dims, print)
    return {
        "model": str(path),
        "folder": str(model.folder),
        "digest": model.digest,
        "precision": "float32",
        "dims": dims,
        "max_length": model.encoder.max_length,
        "truncated_texts": {"cut": cut[0], "of": cut[1]},
        "prompts": {
            t.name: {"query": template(t.prompt, model.prompts), "document": template("document", model.prompts)}
            for t in tasks
        },
        "results": scores,
    }
