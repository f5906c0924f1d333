"""`embed prepare`: the vocabulary and the token caches of a recipe.

Tasks of more than 4,096 records are encoded by --workers processes on each host, to the same bytes as by one. A preparation that
was stopped goes on: what a process has finished is kept beside the cache until the cache is there.

--beam='--runner=DataflowRunner --project=... --region=...' has a Beam pipeline do it instead, with a cache folder in a bucket that
its workers reach. Beam wants older libraries than training, and so an environment of its own.
"""

import argparse
import os

from embed import environment
from embed.commands import options

_MOST = 16  # each holds tensorflow
SUMMARY = "Train the vocabulary (when it is missing) and write the token caches of a recipe's mixture, through its seqio tasks."


def add_arguments(parser) -> None:
    options.add_gin_arguments(parser)
    cores = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, _MOST)
    parser.add_argument(
        "--workers", type=options.up_to(256), default=cores, help=f"processes on each host (its cores, at most {_MOST})"
    )
    parser.add_argument("--distributed", action="store_true", help="join the other hosts of a TPU pod or Slurm job")
    parser.add_argument(
        "--beam",
        metavar="FLAGS",
        help="have a Beam pipeline encode, e.g. '--runner=DataflowRunner --project=...'; --workers are the shares of the work",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)  # INDEX/COUNT: what this command starts itself as


def run(arguments) -> None:
    if arguments.worker:  # of a host, and no host itself
        os.environ.pop("JAX_COORDINATOR_ADDRESS", None)
    environment.start(arguments.distributed and not arguments.worker)
    from embed import config
    from embed.workflows import beam, prepare
    from embed.workflows.recipe import Recipe

    recipe = config.build(Recipe, arguments.gin_file, arguments.gin_bindings)[0]
    if arguments.worker:
        prepare.work(recipe, *map(int, arguments.worker.split("/")))
        return
    if arguments.beam is not None:
        pipeline = beam.Helpers(arguments.beam, arguments.gin_file, arguments.gin_bindings, arguments.workers)
        prepare.run(recipe, pipeline=pipeline)
        return
    words = [f"--gin_file={path}" for path in arguments.gin_file]
    words += [f"--gin.{binding}" for binding in arguments.gin_bindings]
    prepare.run(recipe, workers=arguments.workers, command=["prepare", *words])
