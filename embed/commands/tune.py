"""`embed tune`: the rates of a mixture, by a grid around those that tasks alone suggest, or by Bayesian optimisation.

--search=grid (default) trains every task of the recipe alone until its score gets no better, then mixtures whose rates are in
proportion to those steps and a grid around them, and writes the best as rates.gin.

--search=bayesian begins with that grid, or with --start=recipe with the recipe's own rates, and with random mixtures from a
Dirichlet distribution. A Gaussian process of the scores then proposes mixtures: where it expects the largest improvement (exploit),
where it knows least (explore), and where it expects the largest improvement in one type of tasks (specialise). The best mixture,
and those that are best in a type, are written as mixture-1.gin and so on, and their best checkpoints are averaged.

Mixtures are chosen on Recipe.suite by Recipe.best_metric, 'mean of the types' where it is not bound. Report what --test_suite says.

What is done is kept: run the same command again to go on. Several processes that run it at once, on one machine or on hosts with a
common file system, divide the runs among them. Each trains on the devices that it sees; of one machine, give each its own.
"""

from embed.commands import options
from embed.errors import UsageError, did_you_mean

SUMMARY = (
    "Find the rates of a recipe's mixture: tasks alone and a grid, or Bayesian optimisation on top. The recipe must have a "
    "suite, evaluate_every and, for a grid, best_metric. What is done is kept: run the same command again to go on."
)
_SEARCHES = ("grid", "bayesian")
_STARTS = ("steps", "recipe")
_OF_GRID = ("factors", "whole", "patience")
_OF_BAYESIAN = ("start", "trials", "dirichlet", "seed", "mixtures", "test_suite")

log_path = options.log_beside_output


def add_arguments(parser) -> None:
    parser.add_argument(
        "--output", required=True, type=options.path, help="folder for the runs, the tables and the rates"
    )
    parser.add_argument("--search", default="grid", help="grid (default) or bayesian")
    parser.add_argument("--factors", help="grid: what a rate is multiplied by, one at a time (0.5,2)")
    parser.add_argument(
        "--whole", action="store_true", default=None, help="grid: take every combination of the factors"
    )
    parser.add_argument(
        "--patience",
        type=options.count,
        help="grid: evaluations without a better one that end the run of a task alone (2)",
    )
    parser.add_argument(
        "--start",
        help="bayesian: steps (tasks alone and the grid; default), or recipe (the rates that the recipe gives)",
    )
    parser.add_argument(
        "--trials",
        type=options.count,
        help="bayesian: mixtures, with the best of the grid and the random ones (24)",
    )
    parser.add_argument("--dirichlet", type=options.natural, help="bayesian: random mixtures to begin with (10)")
    parser.add_argument("--seed", type=options.natural, help="bayesian: of the random mixtures and the proposals (0)")
    parser.add_argument("--mixtures", type=options.count, help="bayesian: mixtures that are kept and averaged (3)")
    parser.add_argument(
        "--test_suite",
        type=options.path,
        help="bayesian: suite that the chosen mixtures are scored on, once, in the end",
    )
    options.add_gin_arguments(parser)


def run(arguments) -> None:
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    _check(given)
    factors = options.numbers("factors", arguments.factors)
    from embed.workflows import tune

    grid = {name: given[name] for name in _OF_GRID if name in given} | ({} if factors is None else {"factors": factors})
    of_search = {name: given[name] for name in _OF_BAYESIAN if name in given and name != "start"}
    tune.run(
        arguments.gin_file,
        arguments.output,
        bindings=arguments.gin_bindings,
        grid=None if arguments.start == "recipe" else tune.Grid(**grid),
        bayesian=tune.Bayesian(**of_search) if arguments.search == "bayesian" else None,
    )


def _check(given) -> None:
    """Raises UsageError for words that are not known, and for options without an effect."""
    for name, known in (("search", _SEARCHES), ("start", _STARTS)):
        if name in given and given[name] not in known:
            raise UsageError(f"--{name}={given[name]}{did_you_mean(given[name], known)}")
    idle = [name for name in _OF_BAYESIAN if name in given] if given["search"] == "grid" else []
    if idle:
        raise UsageError(f"--{idle[0]} has an effect with --search=bayesian only; give that, or leave --{idle[0]} out")
    idle = [name for name in _OF_GRID if name in given] if given.get("start") == "recipe" else []
    if idle:
        raise UsageError(f"--{idle[0]} has no effect with --start=recipe, which trains no grid; leave it out")
