"""`embed average`: checkpoints into a soup, and a base and a tuned model into the best of both."""

import functools
import pathlib

from embed import console, environment
from embed.commands import options

SUMMARY = (
    "Average the parameters of checkpoints into one bundle. Inputs must share tree, shapes, dtypes, vocabulary and an "
    "ancestor. With --suite every input and the soup are scored, and --method=greedy or learned choose the weights by it. "
    "--method=interpolate takes BASE and TUNED; with several alphas and a suite it keeps the best."
)

log_path = options.log_beside_output


def add_arguments(parser) -> None:
    parser.add_argument(
        "inputs", nargs="+", metavar="MODEL", type=options.path, help="run folders, checkpoint step folders or bundles"
    )
    parser.add_argument("--output", required=True, type=options.path, help="the new bundle")
    parser.add_argument(
        "--method",
        default="uniform",
        help="uniform (default), weighted, greedy or learned (by the scores of --suite), or interpolate (base, tuned)",
    )
    parser.add_argument("--weights", help="comma-separated, one per input, summing to 1 (weighted)")
    parser.add_argument(
        "--alpha", help="share of the second input (interpolate; default 0.5); several, with --suite, are a sweep"
    )
    parser.add_argument(
        "--suite",
        type=options.path,
        help="suite that inputs and averages are scored on; choose on what you do not report",
    )
    parser.add_argument("--tasks", help="comma-separated names of the suite's tasks to choose on")
    parser.add_argument("--trials", type=options.count, default=40, help="most averages that are scored (learned; 40)")
    parser.add_argument("--last", type=options.count, help="of each run folder take its newest LAST checkpoints")
    parser.add_argument("--unrelated", action="store_true", help="average models that have no common ancestor")
    parser.add_argument(
        "--other_prompts",
        action="store_true",
        help="average models of different prompts or text normalisation; those of the first are kept (interpolate: the second)",
    )
    parser.add_argument("--distributed", action="store_true", help="join the other hosts of a TPU pod or Slurm job")


def run(arguments) -> None:
    # Averaging alone needs no device, so it takes neither the time nor the memory of a start of JAX.
    several = environment.meets_other_hosts(arguments.distributed)
    if arguments.suite or several:
        environment.start(arguments.distributed)
    folders, weights, extra = _chosen(arguments)
    if several:
        from embed import hosts

        hosts.sync("the weights are chosen")  # every host has seen that the output is new
        if hosts.is_main():
            _write(arguments, folders, weights, extra)
    else:
        _write(arguments, folders, weights, extra)


def _chosen(arguments):
    """Returns the inputs, their weights, and the files that tell how they and the average score, where there is a suite."""
    from embed import files
    from embed.averaging import lineage, soup
    from embed.errors import DataError

    files.check_new(arguments.output)
    given, alphas = (options.numbers(name, getattr(arguments, name)) for name in ("weights", "alpha"))
    folders = soup.expand(arguments.inputs, arguments.last)
    found = soup.differences(folders, not arguments.other_prompts)  # before anything is scored
    if found:
        raise DataError(f"the inputs cannot be averaged: {'; '.join(found)}")
    _check(arguments, alphas, len(folders))
    if not arguments.unrelated:
        lineage.check(folders)
    return folders, *_weights(folders, given, alphas, arguments)


def _write(arguments, folders, weights, extra) -> None:
    from embed import bundles, files
    from embed.averaging import soup

    output = pathlib.Path(arguments.output)
    for folder, weight in zip(folders, weights):
        print(f"{weight:.4f}  {folder}", flush=True)
    # Prompts, lengths and sizes are those of the tuned model, which knows more than its base.
    described = folders[-1] if arguments.method == "interpolate" else folders[0]
    description = bundles.read_model_json(described)
    lengths = [max(bundles.read_model_json(folder)["lengths"].values()) for folder in folders]
    if len(set(lengths)) > 1:
        shown = ", ".join(map(str, dict.fromkeys(lengths)))
        print(
            f"note       the inputs cut texts at {shown} tokens; the average does at those of {described}", flush=True
        )
    description["lineage"] = soup.lineage(folders, weights, arguments.method)
    tokenizer = bundles.tokenizer_file(described)
    contents = {**bundles.contents(description, tokenizer.name, tokenizer.read_bytes()), **extra}
    average = soup.Average(folders, weights, not arguments.other_prompts)
    soup.write(output, average, contents, console.progress_bar("averaging"))
    print(
        f"wrote {output}: {arguments.method} average of {len(folders)} checkpoints, digest {files.folder_digest(output)[:12]}"
    )


def _check(arguments, alphas, count: int) -> None:
    """Raises UsageError for options that do not go together."""
    from embed.averaging import soup
    from embed.errors import UsageError

    if arguments.weights and arguments.method != "weighted":
        raise UsageError("--weights goes with --method=weighted")
    if alphas and arguments.method != "interpolate":
        raise UsageError("--alpha goes with --method=interpolate")
    if alphas is not None and len(alphas) > 1 and not arguments.suite:
        raise UsageError("a sweep needs several alphas and a suite: --alpha=0,0.25,0.5,0.75,1 --suite=FILE")
    if arguments.tasks and not arguments.suite:
        raise UsageError("--tasks names tasks of a suite; give the --suite")
    if arguments.method in soup.SEARCHED and not arguments.suite:
        raise UsageError(f"--method={arguments.method} chooses weights by scores; give a --suite")
    if arguments.method == "learned" and arguments.trials <= count:
        raise UsageError(f"--trials={arguments.trials}: the {count} inputs alone take {count}; give more")


def _weights(folders, given, alphas, arguments) -> tuple[list[float], dict[str, bytes]]:
    """Returns the weights of the inputs, and the files that tell how they and the average score, where there is a suite."""
    from embed.averaging import search, soup

    fixed = functools.partial(soup.weights_for, arguments.method, len(folders), given)
    if not arguments.suite:
        return fixed(alphas[0] if alphas else None), {}
    if arguments.method == "interpolate":
        many = {a: fixed(a) for a in sorted(set(alphas or [0.5]))}
        scorer = _Scorer(folders, folders[1], arguments)
        best = scorer.sweep(many)
        return many[best], scorer.sweep_files(best)
    first = None if arguments.method in soup.SEARCHED else fixed(None)
    scorer = _Scorer(folders, folders[0], arguments)
    if arguments.method == "greedy":
        trials = search.greedy(len(folders), scorer.score, scorer.tell)
    elif arguments.method == "learned":
        trials = search.learned(len(folders), scorer.score, arguments.trials, scorer.tell)
    else:
        trials = search.compared(len(folders), scorer.score, first, scorer.tell)
    return list([t for t in trials if t.kept][-1].weights), scorer.soup_files(trials)


class _Scorer:
    """Scores averages of the inputs on a suite, at full size, without writing them."""

    def __init__(self, folders, described, arguments):
        from embed import hosts
        from embed.evaluation import suites
        from embed.evaluation.views import View
        from embed.inference import model as inference

        self._folders, self._method = folders, arguments.method
        self._suite = suites.read_suite(arguments.suite, arguments.tasks.split(",") if arguments.tasks else None)
        self._main = {t.name: t.main for t in self._suite.tasks}
        self._model = inference.open_model(described)
        self._view = View(self._model.encoder.model.embedding_dim)
        self._points: dict[tuple, dict[str, float]] = {}
        self._writes = hosts.is_main()

    def score(self, weights) -> float:
        """Returns the mean of the types that the average with these weights has."""
        import numpy as np

        from embed import hosts
        from embed.averaging import soup
        from embed.data.text import template
        from embed.evaluation import runner
        from embed.evaluation.embeddings import Embeddings
        from embed.inference import search

        used = [(f, w) for f, w in zip(self._folders, weights) if w]
        mixed = self._model.with_params(soup.average(*zip(*used)))
        words = lambda prompt: template(prompt, self._model.prompts)  # noqa: E731
        embeddings, mean = Embeddings(mixed.encode, words, agree=hosts.agree), np.zeros(1)
        if self._writes:
            scores = runner.run(self._suite, embeddings, [self._view], search.top_k).scores
            self._points[tuple(weights)] = {t: own[self._view.name][self._main[t]] for t, own in scores.items()}
            mean[0] = runner.means(scores, self._suite)[self._view.name]["mean of the types"]
        else:  # the main host scores what all embed
            self._points[tuple(weights)] = {}
            embeddings.embed([part for task in self._suite.tasks for part in task.parts().values()])
        return float(hosts.agree(mean.view(np.uint8)).view(np.float64)[0])

    def tell(self, trial) -> None:
        """Says what one average scored."""
        from embed.console import say

        weights = " ".join(f"{w:.3g}" for w in trial.weights)
        say(f"{100 * trial.score:.2f}  {'kept' if trial.kept else '    '}  weights {weights}")

    def sweep(self, weights) -> float:
        """Scores the interpolation at every alpha and returns the best."""
        from embed.console import say

        self._means = {}
        for alpha, both in weights.items():
            self._means[alpha] = self.score(both)
            listed = "  ".join(f"{n} {100 * v:.2f}" for n, v in self._points[tuple(both)].items())
            say(f"alpha {alpha:g}: mean of the types {100 * self._means[alpha]:.2f}  {listed}")
        best = max(self._means, key=lambda a: (self._means[a], -a))
        say(f"best alpha {best:g} by the mean of the types of {self._suite.name}")
        return best

    def sweep_files(self, best: float) -> dict[str, bytes]:
        """Returns the table and the plot of the sweep, which lie beside the model."""
        from embed import documents
        from embed.evaluation import plots, report

        if not self._writes:
            return {}
        points = dict(zip(self._means, self._points.values()))
        sweep = {
            "suite": self._suite.name,
            "best": best,
            "scores": {f"{a:g}": p for a, p in points.items()},
            "means": {f"{a:g}": m for a, m in self._means.items()},
        }
        found = {"sweep.json": documents.json_bytes(sweep), "sweep.md": report.sweep_table(sweep).encode()}
        plot = plots.sweep(sweep)
        return {**found, **({"sweep.png": plot} if plot else {})}

    def soup_files(self, trials) -> dict[str, bytes]:
        """Returns the table and the curve of the ingredients and of the averages that were tried."""
        from embed import documents
        from embed.evaluation import plots, report

        if not self._writes:
            return {}
        told = {
            "suite": self._suite.name,
            "method": self._method,
            "inputs": [str(f) for f in self._folders],
            "trials": [
                {"weights": t.weights, "mean": t.score, "kept": t.kept, "scores": self._points[tuple(t.weights)]}
                for t in trials
            ],
        }
        print(f"\n{report.soup_table(told)}")
        found = {"soup.json": documents.json_bytes(told), "soup.md": report.soup_table(told).encode()}
        plot = plots.soup(told)
        return {**found, **({"soup.png": plot} if plot else {})}
