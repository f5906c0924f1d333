"""`embed average`: checkpoints into a soup, and a base and a tuned model into the best of both."""

import pathlib

from embed.commands import runtime

SUMMARY = (
    "Average the parameters of checkpoints into one bundle. Inputs must share tree, shapes, dtypes and vocabulary. "
    "--method=interpolate takes BASE and TUNED; with several alphas and a suite it scores each and keeps the best."
)


def add_arguments(parser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="MODEL", help="run folders, checkpoint step folders or bundles")
    parser.add_argument("--output", required=True, help="the new bundle")
    parser.add_argument("--method", default="uniform", help="uniform (default), weighted, or interpolate (base, tuned)")
    parser.add_argument("--weights", help="comma-separated, one per input, summing to 1 (weighted)")
    parser.add_argument(
        "--alpha", help="share of the second input (interpolate; default 0.5); several, with --suite, are a sweep"
    )
    parser.add_argument("--suite", help="suite that a sweep of alphas is scored on; the best mean score is kept")
    parser.add_argument("--last", type=int, help="of each run folder take its newest LAST checkpoints")
    parser.add_argument("--item", default="params", help="params (default), or ema for the moving averages")


def run(arguments) -> None:
    runtime.start()
    from embed import bundles, checkpoints, files
    from embed.averaging import soup
    from embed.errors import UsageError

    output = pathlib.Path(arguments.output)
    files.check_new(output)
    given, alphas = (runtime.numbers(name, getattr(arguments, name)) for name in ("weights", "alpha"))
    if alphas and arguments.method != "interpolate":
        raise UsageError("--alpha goes with --method=interpolate")
    if bool(arguments.suite) != (alphas is not None and len(alphas) > 1):
        raise UsageError("a sweep needs several alphas and a suite: --alpha=0,0.25,0.5,0.75,1 --suite=FILE")
    folders = soup.expand(arguments.inputs, arguments.last)
    extra = {}
    if arguments.suite:
        soup.weights_for(arguments.method, len(folders), None, alphas[0])
        alphas, extra = _sweep(folders, alphas, arguments)
    weights = soup.weights_for(arguments.method, len(folders), given, alphas[0] if alphas else None)
    for folder, weight in zip(folders, weights):
        print(f"{weight:.4f}  {folder}", flush=True)
    params = soup.average(folders, weights, arguments.item)
    # Prompts, lengths and sizes are those of the tuned model, which knows more than its base.
    described = folders[-1] if arguments.method == "interpolate" else folders[0]
    description = bundles.read_model_json(described)
    description["lineage"] = soup.lineage(folders, weights, arguments.method)
    tokenizer = bundles.tokenizer_file(described)
    contents = bundles.contents(description, tokenizer.name, tokenizer.read_bytes())
    checkpoints.write_bundle(output, params, {**contents, **extra})
    print(
        f"wrote {output}: {arguments.method} average of {len(folders)} checkpoints, digest {files.folder_digest(output)[:12]}"
    )


def _sweep(folders, alphas, arguments):
    """Scores the interpolation at every alpha. Returns ([the best alpha], the sweep's files)."""
    from embed import files
    from embed.averaging import soup
    from embed.data.text import template
    from embed.evaluation import plots, report, runner, suites
    from embed.evaluation.embeddings import Embeddings
    from embed.evaluation.views import View
    from embed.inference import model as inference
    from embed.inference import search

    suite = suites.read_suite(arguments.suite)
    main = {t.name: t.main for t in suite.tasks}
    tuned = inference.open_model(folders[1])
    view = View(tuned.encoder.model.embedding_dim)
    points, means = {}, {}
    for alpha in sorted(set(alphas)):
        params = soup.average(folders, soup.weights_for("interpolate", 2, None, alpha), arguments.item)
        mixed = tuned.with_params(params)
        embeddings = Embeddings(mixed.encode, lambda prompt: template(prompt, tuned.prompts))
        scores = runner.run(suite, embeddings, [view], search.top_k).scores
        points[alpha] = {t: own[view.name][main[t]] for t, own in scores.items()}
        means[alpha] = runner.means(scores, suite)[view.name]["mean of the types"]
        listed = "  ".join(f"{n} {100 * v:.2f}" for n, v in points[alpha].items())
        print(f"alpha {alpha:g}: mean of the types {100 * means[alpha]:.2f}  {listed}", flush=True)
    best = max(means, key=lambda a: (means[a], -a))
    print(f"best alpha {best:g} by the mean of the types of {suite.name}")
    sweep = {
        "suite": suite.name,
        "best": best,
        "scores": {f"{a:g}": p for a, p in points.items()},
        "means": {f"{a:g}": m for a, m in means.items()},
    }
    extra = {"sweep.json": files.json_bytes(sweep), "sweep.md": report.sweep_table(sweep).encode()}
    plot = plots.sweep(sweep)
    return [best], {**extra, **({"sweep.png": plot} if plot else {})}
