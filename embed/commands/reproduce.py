"""`embed reproduce`: the arms and seeds of a claim, run, scored and judged; resumable; one table of all claims.

A claim is a gin file: arms that are command lines, seeds, and what must be better than what. The 95 % interval of the difference,
paired by seed, decides. Arms that claims share are run once; --record=DIR keeps what was measured, so that another machine goes
on, and --table judges the record and runs nothing.
"""

from embed.commands import options
from embed.errors import UsageError

log_path = options.log_beside_output
SUMMARY = (
    "Run the arms and seeds of a claim of a paper at small scale, from a gin file under gin/claims/, and say whether it holds: "
    "means, paired differences, verdict, beside the paper's figure. What is done is kept: run the same command again to go on. "
    "--all runs every claim and writes one table."
)


def add_arguments(parser) -> None:
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="name of a file under gin/claims/, or a gin file")
    parser.add_argument("--all", action="store_true", help="every claim under gin/claims/")
    parser.add_argument(
        "--output", type=options.path, default="runs/claims", help="folder for models and scores (runs/claims)"
    )
    parser.add_argument(
        "--data", type=options.path, help="folder of pairs (train/) and suites (suites/) that the claims refer to"
    )
    parser.add_argument(
        "--pictures",
        type=options.path,
        help="folder of the sets of launch/image_data.sh (scenes/) that some claims train on",
    )
    parser.add_argument(
        "--source", type=options.path, help="model that mines for some claims: what embed convert takes"
    )
    parser.add_argument(
        "--record",
        type=options.path,
        help="folder of what was measured, one file a claim, and of the table (default: --output); what it has is not run again",
    )
    parser.add_argument(
        "--table", action="store_true", help="judge what the record has and write the table; run nothing"
    )
    parser.add_argument("--list", action="store_true", help="list the claims and what they need, and run nothing")


def run(arguments) -> None:
    from embed.workflows import reproduce

    if bool(arguments.claims) == (arguments.all or arguments.list):
        raise UsageError("give a CLAIM, or --all, or --list")
    if arguments.table and arguments.list:
        raise UsageError("--list lists the claims and --table judges them: give one of the two")
    if arguments.list:
        reproduce.print_list(reproduce.read(arguments.claims))
        return
    reproduce.run(
        arguments.claims,
        arguments.output,
        data=arguments.data,
        pictures=arguments.pictures,
        source=arguments.source,
        record=arguments.record,
        table_only=arguments.table,
    )
