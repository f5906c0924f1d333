"""`embed reproduce`: the arms and seeds of a claim, run, scored and judged; resumable; one table of all claims."""

import contextlib
import pathlib

from embed.commands import options

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
    from embed import files
    from embed.errors import UsageError
    from embed.workflows import bench, reproduce

    if bool(arguments.claims) == (arguments.all or arguments.list):
        raise UsageError("give a CLAIM, or --all, or --list")
    if arguments.table and arguments.list:
        raise UsageError("--list lists the claims and --table judges them: give one of the two")
    chosen = reproduce.read(arguments.claims)
    if arguments.list:
        reproduce.print_list(chosen)
        return
    output, record = pathlib.Path(arguments.output), pathlib.Path(arguments.record or arguments.output)
    given = {name: getattr(arguments, name) for name in ("data", "source") if getattr(arguments, name)}
    if "data" in given and not pathlib.Path(given["data"]).is_dir():
        raise UsageError(f"--data={given['data']}: no such folder")
    with contextlib.nullcontext() if arguments.table else files.FolderLock(output):
        digests = bench.digest_given(given)
        experiments = {
            name: reproduce.Experiment(name, claim, output, record / f"{name}.json", given, digests)
            for name, claim in {**reproduce.read([]), **chosen}.items()
        }
        for name in chosen:
            if arguments.table:
                experiments[name].check_given()
                experiments[name].check_record()
            else:
                experiments[name].run()
                _write_table(experiments, chosen, record)
        if arguments.table:
            _write_table(experiments, chosen, record)


def _write_table(experiments, chosen, record: pathlib.Path) -> None:
    """Writes the table of the chosen claims and of those that were measured before."""
    from embed.workflows import reproduce

    shown = {n: e.result() for n, e in experiments.items() if n in chosen or e.is_kept}
    reproduce.write_table(shown, record)
