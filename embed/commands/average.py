"""`embed average`: checkpoints into a soup, and a base and a tuned model into the best of both.

Models without a common ancestor are refused (--unrelated averages them), as are other vocabularies, and other prompts or text
normalisation (--other_prompts keeps those of the first). A choice by a suite leaves a table and a curve beside the model.
"""

from embed import environment
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
    from embed.workflows import average

    average.run(
        arguments.inputs,
        arguments.output,
        method=arguments.method,
        weights=options.numbers("weights", arguments.weights),
        alphas=options.numbers("alpha", arguments.alpha),
        suite=arguments.suite,
        tasks=arguments.tasks.split(",") if arguments.tasks else None,
        trials=arguments.trials,
        last=arguments.last,
        unrelated=arguments.unrelated,
        other_prompts=arguments.other_prompts,
        several_hosts=several,
    )
