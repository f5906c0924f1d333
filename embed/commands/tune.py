"""`embed tune`: the rates of a mixture, from each task's own steps to its best score and a grid around them.

Every task of the recipe is trained alone until its score gets no better; rates in proportion to those steps, and a grid around
them, are trained, and the best is written as rates.gin.
"""

from embed.commands import options

SUMMARY = (
    "Find the rates of a recipe's mixture: every task is trained alone until its score gets no better, rates are set in "
    "proportion to the steps that took, and a grid around them is trained and scored. The recipe must have a suite, "
    "best_metric and evaluate_every. What is done is kept: run the same command again to go on."
)

log_path = options.log_beside_output


def add_arguments(parser) -> None:
    parser.add_argument(
        "--output", required=True, type=options.path, help="folder for the runs, the table and rates.gin"
    )
    parser.add_argument("--factors", default="0.5,2", help="what a rate is multiplied by, one at a time (0.5,2)")
    parser.add_argument("--whole", action="store_true", help="take every combination of the factors")
    parser.add_argument(
        "--patience", type=options.count, default=2, help="evaluations without a better one that end a task's run (2)"
    )
    options.add_gin_arguments(parser)


def run(arguments) -> None:
    factors = options.numbers("factors", arguments.factors)
    from embed.workflows import tune

    tune.run(
        arguments.gin_file,
        arguments.output,
        bindings=arguments.gin_bindings,
        factors=factors,
        whole=arguments.whole,
        patience=arguments.patience,
    )
