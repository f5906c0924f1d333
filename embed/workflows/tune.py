"""The work of `embed tune`: tasks alone, then mixtures around the rates that follow, each trained once, in a table."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from embed import bundles, config, files
from embed.curation import rates
from embed.errors import ConfigError, DataError, UsageError
from embed.evaluation import report
from embed.workflows import command_lines
from embed.workflows.recipe import Recipe


def run(
    gin_files: Sequence[str],
    output,
    *,
    bindings: Sequence[str] = (),
    factors: Sequence[float] = (0.5, 2.0),
    whole: bool = False,
    patience: int = 2,
) -> None:
    """Finds the rates of the mixture of a recipe, given as gin files and NAME=VALUE `bindings`, and writes them to `output`.

    Every task is trained alone until `patience` evaluations are no better, then mixtures whose rates are multiplied by
    `factors`, one at a time, or with `whole` in every combination. The same call again goes on.
    """
    recipe = config.build(Recipe, gin_files, bindings)[0]
    if recipe.best_metric is None:
        raise ConfigError("Recipe.best_metric is not bound: what rates are to be best by; bind it, and Recipe.suite")
    given = [*(f"--gin_file={file}" for file in gin_files), *(f"--gin.{binding}" for binding in bindings)]
    output = pathlib.Path(output)
    with files.FolderLock(output):
        names = [task.name for task in recipe.mixture.tasks]
        Job(output, names, recipe.best_metric, given, factors, whole, patience).run()


@dataclasses.dataclass(frozen=True)
class Job:
    """The search for the rates of tasks `names` by `metric`. `given` are the options that name the recipe."""

    output: pathlib.Path
    names: Sequence[str]
    metric: str
    given: Sequence[str]
    factors: Sequence[float]
    whole: bool
    patience: int

    def run(self) -> None:
        """Trains what was not trained, writes the table and the best rates as gin."""
        if len(self.names) < 2:
            raise UsageError(f"the mixture has one task, {self.names[0]!r}: there are no rates to find")
        self._check()
        rates.grid(dict.fromkeys(self.names, 1 / len(self.names)), self.factors, self.whole)  # before hours of training
        alone = {
            name: self._train(f"{name} alone", self.output / "alone" / str(number), self._only(name))
            for number, name in enumerate(self.names)
        }
        steps = {name: best["step"] for name, best in alone.items()}
        points = rates.grid(rates.from_steps(steps), self.factors, self.whole)
        print(f"tune: {len(points)} mixtures around {_rates_text(points[0])}", flush=True)
        scored = []
        for number, point in enumerate(points):
            what = f"mixture {number + 1} of {len(points)}"
            best = self._train(what, self.output / "mixtures" / str(number), self._rates(point))
            scored.append((best["score"], point))
        self._write(alone, scored)

    def _check(self) -> None:
        """Writes down what is searched, or checks that the folder is of this search."""
        now = {"given": list(self.given), "factors": list(self.factors), "whole": self.whole, "patience": self.patience}
        now["recipe"] = config.digest(
            [g.removeprefix("--gin_file=") for g in self.given if g.startswith("--gin_file=")]
        )
        files.begin_job(self.output / "job.json", now)

    def _only(self, name: str) -> list[str]:
        return [
            f"--gin.tasks.Mixture.only={(name,)!r}",
            "--gin.tasks.Mixture.rates=proportional",
            "--gin.tasks.Mixture.temperature=2.0",
            f"--gin.loop.Schedule.patience={self.patience}",
        ]

    def _rates(self, point: Mapping[str, float]) -> list[str]:
        # Rates that are given leave no effect to what makes rates of sizes.
        rates_given = f"--gin.tasks.Mixture.rates={ {name: round(x, 6) for name, x in point.items()}!r}"
        return [rates_given, "--gin.tasks.Mixture.maximum=None", "--gin.tasks.Mixture.temperature=2.0"]

    def _train(self, what: str, folder: pathlib.Path, more: Sequence[str]) -> dict:
        """Returns {"step", "score"} of the best checkpoint of a run."""
        command_lines.run(f"tune: {what}", [["train", *self.given, f"--run_dir={folder / 'run'}", *more]], folder)
        best = bundles.read_best(folder / "run")
        if best is None:
            raise DataError(f"{folder / 'run'}: no step was scored; lower EVALUATE_EVERY below the steps of the run")
        last = max(int(p.parent.name) for p in (folder / "run" / "evaluation").glob("*/scores.json"))
        if best["step"] == last:
            print(
                f"tune: {what}: was best at its last step, {last}, and may not have converged; raise TRAIN_STEPS",
                flush=True,
            )
        return best

    def _write(self, alone: Mapping[str, dict], scored: Sequence[tuple[float, Mapping[str, float]]]) -> None:
        best_score, best = max(scored, key=lambda s: s[0])
        tasks = [["task", "steps to its best alone", f"{self.metric} alone", "rate from steps", "best rate"]]
        for name, scores in alone.items():
            tasks.append(
                [
                    name,
                    f"{scores['step']:,}",
                    f"{100 * scores['score']:.2f}",
                    f"{scored[0][1][name]:.3f}",
                    f"{best[name]:.3f}",
                ]
            )
        mixtures = [["mixture", self.metric, *alone]]
        for number, (score, point) in sorted(enumerate(scored), key=lambda s: -s[1][0]):
            mixtures.append([str(number), f"{100 * score:.2f}", *(f"{point[name]:.3f}" for name in alone)])
        text = f"{report.align(tasks)}\n\n{report.align(mixtures)}\n"
        files.write_atomic(self.output / "rates.md", text)
        rates = {name: round(x, 6) for name, x in best.items()}
        files.write_atomic(
            self.output / "rates.gin",
            "# Rates found by embed tune; include after a recipe.\nfrom __gin__ import dynamic_registration\n\n"
            f"from embed.data import tasks\n\ntasks.Mixture.rates = {rates!r}\ntasks.Mixture.maximum = None\n",
        )
        print(
            f"\n{text}\nwrote {self.output}: rates.md, rates.gin; best {self.metric} {100 * best_score:.2f} with "
            f"{_rates_text(best)}"
        )


def _rates_text(point: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {x:.3f}" for name, x in point.items())
