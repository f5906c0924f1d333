"""`embed train`: one run from a gin recipe."""

import pathlib

from embed import console, environment
from embed.commands import options

SUMMARY = (
    "Train a model from a gin recipe. Running the same command again resumes the run, or says that it is complete."
)


def log_path(arguments) -> pathlib.Path:
    """Returns where output is kept that cannot be printed any more."""
    return pathlib.Path(arguments.run_dir) / console.LOG


def add_arguments(parser) -> None:
    parser.add_argument(
        "--run_dir",
        required=True,
        type=options.path,
        help="folder of the run: config, checkpoints, metrics, evaluations",
    )
    parser.add_argument("--distributed", action="store_true", help="join the other hosts of a TPU pod or Slurm job")
    options.add_gin_arguments(parser)


def run(arguments) -> None:
    environment.start(arguments.distributed)
    from embed import config
    from embed.workflows import train
    from embed.workflows.recipe import Recipe

    recipe, given, operative = config.build(Recipe, arguments.gin_file, arguments.gin_bindings)
    train.run(recipe, arguments.run_dir, {"config.gin": given, "operative_config.gin": operative})
