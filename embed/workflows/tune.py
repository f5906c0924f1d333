"""The work of `embed tune`: the rates of a mixture by tasks alone, a grid, and Bayesian optimisation."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from embed import bundles, config, documents, files, ranges
from embed.buckets import addresses
from embed.curation import proposals, rates, simplex
from embed.curation.proposals import Proposer
from embed.curation.trials import Plan, Result, Search, TrialFailed
from embed.errors import ConfigError, DataError, NumericError, UsageError
from embed.evaluation import suites
from embed.evaluation.suites import Suite
from embed.workflows import best_metric, command_lines, tune_final, tune_report
from embed.workflows.best_metric import OBJECTIVE
from embed.workflows.recipe import Recipe

# Exit codes of a training run that fails again when it is repeated; others, such as a full disk, end the search.
_FAILS_AGAIN = (1, DataError.exit_code, NumericError.exit_code, ConfigError.exit_code)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Every task is trained alone until `patience` evaluations are no better, and mixtures around the rates that follow are
    trained: rates are multiplied by `factors`, one at a time, or with `whole` in every combination."""

    factors: Sequence[float] = (0.5, 2.0)
    whole: bool = False
    patience: ranges.Count = 2


@dataclasses.dataclass(frozen=True)
class Bayesian:
    """`trials` mixtures: the best of the grid or the recipe's own, `dirichlet` random ones, and those that are proposed from what
    they scored, by `seed`. The best `mixtures` of all are averaged; `test_suite` is scored once, in the end."""

    trials: ranges.Count = 24
    dirichlet: ranges.Natural = 10
    seed: ranges.Natural = 0
    mixtures: ranges.Count = 3
    test_suite: str | None = None

    def __post_init__(self):
        ranges.check_fields(self)
        if self.trials <= self.dirichlet + 1:
            raise UsageError(
                f"--trials={self.trials}: the search begins with {self.dirichlet + 1} mixtures, and none is left to propose; give "
                f"more than {self.dirichlet + 1}, or a smaller --dirichlet"
            )


def run(
    gin_files: Sequence[str],
    output,
    *,
    bindings: Sequence[str] = (),
    grid: Grid | None = Grid(),  # noqa: B008 - frozen
    bayesian: Bayesian | None = None,
) -> None:
    """Finds rates of the mixture of a recipe, given as gin files and NAME=VALUE `bindings`, and writes them to `output`.

    Without `bayesian` the grid alone is searched. With it and no `grid` the search begins with the recipe's own rates. The same
    call again goes on, and calls side by side, on one machine or on hosts that share `output`, divide the runs among them.
    """
    if bayesian is not None:
        proposals.check_available()
    recipe, bindings = _recipe(gin_files, list(bindings), bayesian is not None)
    output = pathlib.Path(output)
    given = [*(f"--gin_file={file}" for file in gin_files), *(f"--gin.{binding}" for binding in bindings)]
    suite = None if recipe.suite is None else suites.read_suite(recipe.suite)
    test = _test_suite(bayesian, suite)
    Job(output, recipe, given, grid, bayesian, suite, test).run(config.digest(gin_files))


def _recipe(gin_files: Sequence[str], bindings: list[str], is_bayesian: bool) -> tuple[Recipe, list[str]]:
    """Returns the recipe and its bindings, with the objective bound where the recipe leaves it open."""
    recipe = config.build(Recipe, gin_files, bindings)[0]
    if is_bayesian and recipe.suite is None:
        raise ConfigError("Recipe.suite is not bound: mixtures are chosen by the types of its tasks; bind it")
    if is_bayesian and recipe.best_metric is None:
        bindings = [*bindings, f"recipe.Recipe.best_metric={OBJECTIVE!r}"]
        recipe = config.build(Recipe, gin_files, bindings)[0]
    if recipe.best_metric is None:
        raise ConfigError("Recipe.best_metric is not bound: what rates are to be best by; bind it, and Recipe.suite")
    if len(recipe.mixture.tasks) < 2:
        raise UsageError(f"the mixture has one task, {recipe.mixture.tasks[0].name!r}: there are no rates to find")
    return recipe, bindings


def _test_suite(bayesian: Bayesian | None, suite: Suite | None) -> Suite | None:
    """Returns the suite that is scored in the end, which must be another one than mixtures are chosen by."""
    if bayesian is None or bayesian.test_suite is None:
        return None
    test = suites.read_suite(bayesian.test_suite)
    if test.digest == suite.digest:
        raise UsageError(
            f"--test_suite={bayesian.test_suite}: holds what Recipe.suite does, which mixtures are chosen by; give data that "
            "nothing is chosen on"
        )
    return test


@dataclasses.dataclass(frozen=True)
class Job:
    """A search in `output`. `given` are the options that name the recipe; `suite` and `test` are its suites, read."""

    output: pathlib.Path
    recipe: Recipe
    given: Sequence[str]
    grid: Grid | None
    bayesian: Bayesian | None
    suite: Suite | None
    test: Suite | None

    @property
    def names(self) -> list[str]:
        """The tasks of the mixture."""
        return [task.name for task in self.recipe.mixture.tasks]

    @property
    def metric(self) -> str:
        """What rates are to be best by."""
        return self.recipe.best_metric

    @property
    def types(self) -> list[str]:
        """The types of the suite's tasks."""
        return [] if self.suite is None else list(dict.fromkeys(self.suite.groups.values()))

    def run(self, recipe_digest: str) -> None:
        """Trains what was not trained, and writes the tables, the rates, and what is made of the best mixtures."""
        plan = self._plan()
        self._check_metric()
        self.output.mkdir(parents=True, exist_ok=True)
        with files.Lock(self.output / ".plan.lock", self.output, wait=lambda holder: None):
            files.begin_job(self.output / "job.json", self._identity(recipe_digest))
        for line in self._lines(plan):
            print(f"tune: {line}", flush=True)
        search = Search(self.output, plan, self._train)
        search.work()
        with files.Lock(self.output / ".final.lock", self.output, wait=_say_waiting):
            if self.bayesian is None:
                tune_report.write_grid(search)
            else:
                count = self.bayesian.mixtures
                tune_final.finish(search, self.types, count, self.recipe.suite, self.bayesian.test_suite)

    def _identity(self, recipe_digest: str) -> dict[str, Any]:
        """Returns what must be the same when the search goes on."""
        options = {} if self.bayesian is None else dataclasses.asdict(self.bayesian)
        around = {} if self.grid is None else {**dataclasses.asdict(self.grid), "factors": list(self.grid.factors)}
        return {
            "given": [addresses.restored(word) for word in self.given],
            "search": "grid" if self.bayesian is None else "bayesian",
            **dict.fromkeys(("factors", "whole", "patience")),
            **around,
            **options,
            "recipe": recipe_digest,
            "suite": None if self.suite is None else self.suite.digest,
            "test": None if self.test is None else self.test.digest,
        }

    def _check_metric(self) -> None:
        """Raises ConfigError for an objective that is not scored, before hours of training."""
        best_metric.check(self.metric, self.suite, self.recipe.validation_share is not None)

    def _plan(self) -> Plan:
        names, options = self.names, self.bayesian
        if self.grid is None:
            alone, kind, first = {}, "recipe", [self._own_rates()]
            grid = lambda steps: first  # noqa: E731
        else:
            alone, kind = {name: self._only(name) for name in names}, "grid"
            grid = lambda steps: rates.grid(rates.from_steps(steps), self.grid.factors, self.grid.whole)  # noqa: E731
            first = rates.grid(dict.fromkeys(names, 1 / len(names)), self.grid.factors, self.grid.whole)
        proposer = Proposer(names, self.metric, self.types, 0 if options is None else options.seed)
        count = 0 if options is None else options.dirichlet
        left = 0 if options is None else options.trials - options.dirichlet - 1
        return Plan(alone, grid, len(first), kind, proposer.seeds(count), left, proposer, _rates)

    def _own_rates(self) -> dict[str, float]:
        """Returns the rates that the recipe gives, summing to 1."""
        given = self.recipe.mixture.rates
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"Mixture.rates = {given!r}: --start=recipe begins with rates that are given; bind {{task: rate}}, such as the "
                "rates.gin of a grid search, or leave --start out"
            )
        total = sum(given[name] for name in self.names)
        return {name: round(given[name] / total, simplex.DIGITS) for name in self.names}

    def _lines(self, plan: Plan) -> list[str]:
        """Returns what will happen, for people."""
        parts = [f"{len(plan.alone)} of a task alone"] if plan.alone else []
        parts += [f"{plan.grid_size} of {'a grid' if plan.alone else 'the rates of the recipe'}"]
        parts += [f"{len(plan.random)} of random mixtures (Dirichlet)"] if plan.random else []
        parts += [f"{plan.proposals} of proposed mixtures"] if plan.proposals else []
        lines = [f"{len(plan.alone) + plan.mixtures} runs: {', '.join(parts)}"]
        suite = "" if self.suite is None else f", suite {self.recipe.suite} ({', '.join(self.types)})"
        lines.append(f"chosen by {self.metric!r}{suite}")
        if self.bayesian is not None:
            test = self.bayesian.test_suite
            lines.append(
                f"reported on {test}, which is scored once, in the end"
                if test
                else "no --test_suite: scores of the chosen mixtures will be of the suite that chose them, and too high"
            )
        return lines

    def _only(self, name: str) -> list[str]:
        return [
            f"tasks.Mixture.only={(name,)!r}",
            "tasks.Mixture.rates=proportional",
            "tasks.Mixture.temperature=2.0",
            f"loop.Schedule.patience={self.grid.patience}",
        ]

    def _train(self, title: str, folder: pathlib.Path, bindings: Sequence[str]) -> Result:
        """Trains one run by `embed train` and returns what its best checkpoint scored."""
        run_dir = folder / "run"
        words = ["train", *self.given, f"--run_dir={run_dir}", *(f"--gin.{binding}" for binding in bindings)]
        try:
            command_lines.run(f"tune: {title}", [words], folder)
        except command_lines.LineFailed as e:
            if e.code not in _FAILS_AGAIN:
                raise
            raise TrialFailed(f"ended with {e.code}: {e.last} (all of it: {e.log})") from e
        try:
            best = bundles.read_best(run_dir)
            scored = sorted((int(p.parent.name), p) for p in (run_dir / "evaluation").glob("*/scores.json"))
            scores = {} if best is None else documents.read_json(dict(scored)[best["step"]])
            scores = {name: score for name, score in scores.items() if score is not None}
        except DataError as e:  # a score that is not a number
            raise TrialFailed(f"has scores that cannot be read: {e}") from e
        if best is None and scored:
            raise TrialFailed(f"has no step whose {self.metric} is a number")
        if best is None:
            raise DataError(f"{run_dir}: no step was scored; lower EVALUATE_EVERY below the steps of the run")
        if best["step"] == scored[-1][0]:
            print(
                f"tune: {title}: was best at its last step, {best['step']}, and may not have converged; raise TRAIN_STEPS",
                flush=True,
            )
        return {"step": best["step"], "score": best["score"], "scores": scores}


def _rates(point: Mapping[str, float]) -> list[str]:
    """Returns the bindings of a run of a mixture. Rates that are given leave no effect to what makes rates of sizes."""
    given = {name: round(x, simplex.DIGITS) for name, x in point.items()}
    return [f"tasks.Mixture.rates={given!r}", "tasks.Mixture.maximum=None", "tasks.Mixture.temperature=2.0"]


def _say_waiting(holder: str) -> None:
    print(f"tune: waiting for {holder}, which writes the results", flush=True)
