"""`embed evaluate`: models and baselines on a suite, at every Matryoshka size and precision; comparisons of results."""

import os
import pathlib
import sys

from embed import console, environment
from embed.commands import options

SUMMARY = (
    "Score models on a suite of local files by MTEB's protocols, at every Matryoshka size; writes results.json, "
    "results.md, plots and a report that opens in a browser."
)


def add_arguments(parser) -> None:
    parser.add_argument(
        "models",
        nargs="*",
        type=options.path,
        metavar="[NAME=]MODEL",
        help="what to score; NAME is how the tables call it",
    )
    parser.add_argument("--suite", type=options.path, help="suite file (JSON)")
    parser.add_argument("--output", type=options.path, help="new folder for the results")
    parser.add_argument("--dims", help="comma-separated sizes (default: the model's Matryoshka sizes)")
    parser.add_argument(
        "--quantize",
        default="float32",
        help="comma-separated precisions of the vectors: float32, int8, binary, binary-rescored",
    )
    parser.add_argument(
        "--weights",
        default="float32",
        help="comma-separated precisions of the weights, each scored as a model of its own: float32, bfloat16, int8, int4",
    )
    parser.add_argument(
        "--baselines", default="", help="comma-separated: random (untrained weights of the first MODEL), bm25"
    )
    parser.add_argument("--against", metavar="NAME", help="the model that the others are compared with, item by item")
    parser.add_argument("--tasks", help="comma-separated names of the suite's tasks to run")
    parser.add_argument(
        "--max_length", type=options.count, help="tokens a text is cut at (default: the longest of training)"
    )
    parser.add_argument(
        "--vectors",
        type=options.path,
        metavar="DIR",
        help="where embedded texts are kept for the next run (default: $EMBED_VECTORS or ~/.cache/embed/vectors; 'off')",
    )
    parser.add_argument(
        "--mteb",
        metavar="NAME",
        help="run MTEB itself: a benchmark such as 'MTEB(Multilingual, v2)', or names of its tasks separated by commas",
    )
    parser.add_argument("--distributed", action="store_true", help="join the other hosts of a TPU pod or Slurm job")
    parser.add_argument(
        "--compare",
        nargs="+",
        type=options.path,
        metavar="results.json",
        help="make one report of results that are there, and score nothing",
    )


def run(arguments) -> None:
    from embed.errors import UsageError

    if arguments.compare:
        if arguments.models or arguments.suite:
            raise UsageError("--compare takes results only; leave out MODEL and --suite")
        _compare(arguments)
        return
    if arguments.mteb and arguments.suite:
        raise UsageError("--mteb brings its own tasks; leave out --suite")
    if not arguments.models or not (arguments.suite or arguments.mteb) or not arguments.output:
        raise UsageError("give at least one MODEL, --suite=FILE and --output=DIR (or --compare A/results.json ...)")
    environment.start(arguments.distributed)
    if arguments.mteb:
        _mteb(arguments)
    else:
        _evaluate(arguments)


def _evaluate(arguments) -> None:
    from embed import files, hosts
    from embed.errors import UsageError, did_you_mean
    from embed.evaluation import bm25, outputs, runner, suites

    baselines = [b for b in arguments.baselines.split(",") if b]
    for baseline in baselines:
        if baseline not in ("random", "bm25"):
            raise UsageError(f"--baselines: {baseline!r}{did_you_mean(baseline, ['random', 'bm25'])}")
    given = _named(arguments.models)
    levels = _levels(given, arguments.weights.split(","))
    names = [name for name, _, _ in levels]
    for name in baselines:
        if name in names:
            raise UsageError(
                f"a model and a baseline are both called {name!r}; give the model another name: NAME=MODEL"
            )
    if arguments.against is not None and arguments.against not in (*names, *baselines):
        raise UsageError(f"--against={arguments.against}{did_you_mean(arguments.against, [*names, *baselines])}")
    suite = suites.read_suite(arguments.suite, arguments.tasks.split(",") if arguments.tasks else None)
    if hosts.is_main():
        files.check_new(pathlib.Path(arguments.output))
    collected = outputs.Collected(suite, environment.describe(), ["embed", *sys.argv[1:]])
    for task in suite.tasks:
        left_out = runner.unjudged(task)
        told = [f"{left_out} queries without any judged document are left out"] if left_out else []
        for remark in (*told, *task.remarks):
            collected.note(task.name, remark)
            _say(f"{task.name}: {remark}")
    if "random" in baselines:
        _score(collected, "random", given[0][1], arguments, suite, random=True)
    for name, path, weights in levels:
        _say(f"scoring {name}")
        _score(collected, name, path, arguments, suite, weights=weights)
    hosts.sync("all models are scored")
    if not hosts.is_main():
        return
    if "bm25" in baselines:
        scored = {t.name: bm25.score(t) for t in suite.tasks if bm25.applies(t)}
        if not scored:
            print("bm25: no task of the suite ranks documents, so it has no row")
        else:
            collected.add_level("bm25", bm25.DESCRIPTION, scored)
    _write(collected.results(arguments.against), collected.samples, arguments.output)


def _say(line: str) -> None:
    """Prints one line on the main host; names in it send no control characters to the terminal."""
    from embed import markdown
    from embed.console import say

    say(markdown.printable(line))


def _named(models) -> list[tuple[str, str]]:
    """Returns (name, path) of each [NAME=]MODEL; two of one name are a UsageError."""
    from embed.errors import UsageError

    given = [(m.partition("=")[0], m.partition("=")[2]) if "=" in m else (pathlib.Path(m).name, m) for m in models]
    names = [name for name, _ in given]
    for (name, path), model in zip(given, models):
        if not name or not path:
            raise UsageError(f"{model!r} has no {'path' if name else 'name'}; give NAME=MODEL, or MODEL alone")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two models are called {name!r}; give them names: NAME=MODEL")
    return given


def _levels(given, weights: list[str]) -> list[tuple[str, str, str]]:
    """Returns (name, path, precision of the weights) of every model to score; what cannot be opened or named is refused."""
    from embed import bundles
    from embed.errors import UsageError, did_you_mean
    from embed.inference.weights import KINDS

    for kind in weights:
        if kind not in KINDS:
            raise UsageError(f"--weights: {kind!r}{did_you_mean(kind, KINDS)}")
    for _, path in given:
        bundles.resolve(path)
    levels = [
        (name if kind == "float32" else f"{name} {kind}-weights", path, kind)
        for name, path in given
        for kind in weights
    ]
    names = [name for name, _, _ in levels]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name!r} would be scored twice; give each precision of --weights once, and other names")
    return levels


def _mteb(arguments) -> None:
    """Runs MTEB on every model and view; a folder that is there goes on where it stopped, as MTEB's own cache does."""
    import jax

    from embed import files, markdown
    from embed.errors import UsageError
    from embed.evaluation import mteb, references, report, views
    from embed.inference import model as inference

    if jax.process_count() > 1:
        raise UsageError("--mteb runs MTEB itself, which knows one host; start it on one")
    tasks, found = mteb.chosen_tasks(arguments.mteb), {}
    folder = pathlib.Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in _named(arguments.models):
        model = inference.open_model(path, max_length=arguments.max_length)
        dims = options.numbers("dims", arguments.dims, int) or [model.encoder.model.embedding_dim]
        for view in views.views(dims, arguments.quantize.split(",")):
            _say(f"{name} {view.name}: {len(tasks)} tasks of {arguments.mteb}")
            found[f"{name} {view.name}"] = mteb.evaluate(mteb.MtebEncoder(model, name, view), tasks, folder)
    ranks = mteb.borda({n: {t: s["score"] for t, s in own.items()} for n, own in found.items()})
    cells = [["model", "Mean (Task)", "Mean (TaskType)", "Borda"]]
    for name, own in found.items():
        means = (report.percent(f(own)) for f in (mteb.task_mean, mteb.type_mean))
        cells.append([name, *means, str(ranks[name])])
    for name, published in references.of_benchmark(arguments.mteb).items():
        means = (report.percent(published.get(kind)) for kind in ("task", "type"))
        cells.append([f"{name} ({references.source(name)})", *means, "-"])
    files.write_json(folder / "summary.json", {"mteb": arguments.mteb, "scores": found, "borda": ranks})
    table = report.align(cells, markdown.printable)
    print(f"\n{table}\n\nwrote {folder}/summary.json and MTEB's own files beside it")


def _score(collected, name: str, path: str, arguments, suite, random: bool = False, weights: str = "float32") -> None:
    """Scores one model and adds it to what is collected. All hosts embed, the main one scores."""
    from embed import hosts
    from embed.data.text import template
    from embed.errors import ConfigError, UsageError
    from embed.evaluation import runner, views
    from embed.evaluation.embeddings import Embeddings
    from embed.inference import model as inference
    from embed.inference import search

    cut = [0, 0]

    def overflow(truncated: int, total: int) -> None:
        cut[0] += truncated
        cut[1] += total

    hosts.sync("the model before is scored")
    model = inference.open_model(
        path, max_length=arguments.max_length, random=random, overflow=overflow, weights=weights
    )
    dims = options.numbers("dims", arguments.dims, int) or list(model.matryoshka_dims)
    size = model.encoder.model.embedding_dim
    if any(not 1 <= d <= size for d in dims):
        raise UsageError(f"--dims={arguments.dims}: this model gives 1 to {size}")
    served = views.views(dims, arguments.quantize.split(","))
    words = lambda prompt: template(prompt, model.prompts)  # noqa: E731
    for task in suite.tasks:
        for texts in task.parts().values():
            try:
                words(texts.prompt)
            except ConfigError as e:
                raise ConfigError(f"{arguments.suite}: task {task.name!r}: {e}") from e
    kept = None if random or not hosts.is_main() else _vectors_folder(arguments.vectors, model)
    embeddings = Embeddings(model.encode, words, kept, _say, hosts.agree)
    parts = [part for task in suite.tasks for part in task.parts().values()]
    new, total = len(embeddings.missing(parts)), sum(len(p.texts) for p in parts)
    _say(f"{name}: {new} texts to embed, {total} in all tasks, as {', '.join(v.name for v in served)}")
    if not hosts.is_main():
        embeddings.embed(parts)
        return
    with console.text_bar(new, every_minute=True) as progress:
        found = runner.run(suite, embeddings, served, search.top_k, _say, progress)
    facts = {
        "model": str(path),
        "folder": str(model.folder),
        "digest": model.digest,
        "dtype": model.dtype,
        "weights": weights,
        "weight_bytes": model.weight_bytes,
        "max_length": model.encoder.max_length,
        "embedding_dim": size,
        "texts": {"all": total, "embedded_now": new, "cut_at_max_length": cut[0]},
        "prompts": {t.name: {n: words(p.prompt) for n, p in t.parts().items()} for t in suite.tasks},
    }
    collected.add(name, facts, served, found)


def _vectors_folder(given: str | None, model):
    """Returns where a model's vectors are kept, by all that they depend on; None keeps none."""
    if given == "off":
        return None
    base = given or os.environ.get("EMBED_VECTORS") or pathlib.Path.home() / ".cache" / "embed" / "vectors"
    digest, _, weights = model.digest.partition("-")
    parts = [digest[:24], str(model.encoder.max_length), model.dtype, *([weights] if weights else [])]
    return pathlib.Path(base) / "-".join(parts)


def _compare(arguments) -> None:
    from embed.errors import UsageError
    from embed.evaluation import outputs

    if not arguments.output:
        raise UsageError("--compare needs --output=DIR")
    results, samples = outputs.merge([pathlib.Path(p) for p in arguments.compare], arguments.against)
    _write(results, samples, arguments.output)


def _write(results, samples, output: str) -> None:
    from embed import files, markdown
    from embed.evaluation import outputs, plots, report

    with files.new_folder(output) as folder:
        written = outputs.write(results, samples, folder)
    print(f"\n{report.table(results, markdown.printable)}")
    if not plots.available():
        print("no plots: matplotlib is not installed; run: pip install 'embed[plots]'", file=sys.stderr)
    print(f"wrote {output}/: {', '.join(written)}")
