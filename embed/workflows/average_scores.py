"""Averages of checkpoints scored on a suite without being written, and the files that tell how they did."""

import math
import pathlib
from collections.abc import Sequence

import numpy as np

from embed import console, documents, hosts
from embed.averaging import soup
from embed.evaluation import outputs, plots, report, runner, suites
from embed.evaluation.embeddings import Embeddings
from embed.evaluation.views import View
from embed.inference import model as inference
from embed.inference import search
from embed.text import template


class Scorer:
    """Scores averages of the inputs on a suite, at full size, without writing them."""

    def __init__(
        self, folders: Sequence[pathlib.Path], described: pathlib.Path, method: str, suite, tasks: Sequence[str] | None
    ):
        self._folders, self._method = folders, method
        self._suite = suites.read_suite(suite, tasks)
        self._main = {t.name: t.main for t in self._suite.tasks}
        self._model = inference.open_model(described)
        self._view = View(self._model.embedding_dim)
        self._points: dict[tuple, dict[str, float]] = {}
        self._writes = hosts.is_main()

    def score(self, weights) -> float:
        """Returns the mean of the types that the average with these weights has; -inf where one of its scores is not defined."""
        used = [(f, w) for f, w in zip(self._folders, weights) if w]
        mixed = self._model.with_params(soup.average(*zip(*used)))
        prompt_template = lambda prompt: template(prompt, self._model.prompts)  # noqa: E731
        embeddings, mean = Embeddings(mixed.encode, prompt_template, agree=hosts.agree), np.zeros(1)
        if self._writes:
            scores = runner.run(self._suite, embeddings, [self._view], search.top_k, patches=mixed.patches).scores
            self._points[tuple(weights)] = {t: views[self._view.name][self._main[t]] for t, views in scores.items()}
            mean[0] = runner.means(scores, self._suite)[self._view.name]["mean of the types"]
        else:  # the main host scores what all embed
            self._points[tuple(weights)] = {}
            embeddings.embed([part for task in self._suite.tasks for part in task.parts().values()])
        agreed = float(hosts.agree(mean.view(np.uint8)).view(np.float64)[0])
        return -math.inf if math.isnan(agreed) else agreed

    def tell(self, trial) -> None:
        """Says what one average scored."""
        weights = " ".join(f"{w:.3g}" for w in trial.weights)
        console.say(f"{_percent(trial.score)}  {'kept' if trial.kept else '    '}  weights {weights}")

    def sweep(self, weights) -> float:
        """Scores the interpolation at every alpha and returns the best."""
        self._means = {}
        for alpha, both in weights.items():
            self._means[alpha] = self.score(both)
            listed = "  ".join(f"{n} {_percent(v)}" for n, v in self._points[tuple(both)].items())
            console.say(f"alpha {alpha:g}: mean of the types {_percent(self._means[alpha])}  {listed}")
        best = max(self._means, key=lambda a: (self._means[a], -a))
        console.say(f"best alpha {best:g} by the mean of the types of {self._suite.name}")
        return best

    def sweep_files(self, best: float) -> dict[str, bytes]:
        """Returns the table and the plot of the sweep, which lie beside the model."""
        if not self._writes:
            return {}
        points = dict(zip(self._means, self._points.values()))
        sweep = {
            "suite": self._suite.name,
            "best": best,
            "scores": {f"{a:g}": p for a, p in points.items()},
            "means": {f"{a:g}": _defined(m) for a, m in self._means.items()},
        }
        contents = {
            "sweep.json": documents.json_bytes(outputs.plain(sweep)),
            "sweep.md": report.sweep_table(sweep).encode(),
        }
        plot = plots.sweep(sweep)
        return {**contents, **({"sweep.png": plot} if plot else {})}

    def soup_files(self, trials) -> dict[str, bytes]:
        """Returns the table and the curve of the ingredients and of the averages that were tried."""
        if not self._writes:
            return {}
        record = {
            "suite": self._suite.name,
            "method": self._method,
            "inputs": [str(f) for f in self._folders],
            "trials": [
                {
                    "weights": t.weights,
                    "mean": _defined(t.score),
                    "kept": t.kept,
                    "scores": self._points[tuple(t.weights)],
                }
                for t in trials
            ],
        }
        print(f"\n{report.soup_table(record)}")
        contents = {
            "soup.json": documents.json_bytes(outputs.plain(record)),
            "soup.md": report.soup_table(record).encode(),
        }
        plot = plots.soup(record)
        return {**contents, **({"soup.png": plot} if plot else {})}


def _defined(score: float) -> float:
    """Returns a score, not a number where there is none."""
    return score if math.isfinite(score) else math.nan


def _percent(score: float) -> str:
    return report.percent(_defined(score))
