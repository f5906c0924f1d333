"""`embed train`: one run from a gin recipe.

The run folder holds config.gin, operative_config.gin, environment.json, checkpoints/<step>/, metrics.jsonl, tensorboard/ and
evaluation/<step>/. A run is resumed on any number of hosts; another starting point, seed or data set is refused.

Each batch comes from one task (tasks.Mixture.one_task_per_batch = False mixes them), drawn in proportion to the rates in
every window of steps. A batch that memory does not hold is computed in micro-batches and still compared as a whole, to the
same gradient (cached gradients, arXiv:2101.06983). Their number follows from the compiler's own count of the step's memory.

Every Schedule.evaluate_every steps Recipe.suite is scored, and the loss on Recipe.validation_share of the examples, into
metrics.jsonl and TensorBoard. Recipe.best_metric ('task/score', a type, 'mean of the types', 'validation/loss') keeps the
best checkpoint, and loop.Schedule.patience ends a run that gets no better. recipe.Recipe.lora trains adapters,
recipe.Recipe.ema_decay serves a moving average, and contrastive.Contrastive.learn_temperature learns the temperature.

At the end a line says how the time was spent; the share of stepping is the goodput.

With several hosts, one that gives no sign of life for 25 seconds, or a step of ten times the usual length, ends all of them
with a line that says where each stands, and exit code 75.
"""

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
    parser.add_argument(
        "--profile_steps",
        type=options.natural,
        default=0,
        metavar="N",
        help="trace N steps with JAX's profiler into RUN_DIR/profile, which TensorBoard and xprof show (0)",
    )
    parser.add_argument(
        "--copy_to", metavar="ADDRESS", help="keep the run in a bucket too: gs://BUCKET/PATH or s3://..."
    )
    parser.add_argument(
        "--wandb",
        metavar="PROJECT",
        help="write the metrics to this project of Weights & Biases too, as one run however often it is resumed",
    )
    options.add_gin_arguments(parser)


def run(arguments) -> None:
    environment.start(arguments.distributed)
    from embed import config
    from embed.workflows import train
    from embed.workflows.recipe import Recipe

    recipe, given, operative = config.build(Recipe, arguments.gin_file, arguments.gin_bindings)
    configuration = {"config.gin": given, "operative_config.gin": operative}
    watching = {"profile_steps": arguments.profile_steps, "wandb_project": arguments.wandb or None}
    train.run(recipe, arguments.run_dir, configuration, copy_to=arguments.copy_to, **watching)
