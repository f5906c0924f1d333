"""`embed reproduce`: the arms and seeds of a claim, run, scored and judged; resumable; one table of all claims."""

import pathlib

SUMMARY = (
    "Run the arms and seeds of a claim of a paper at small scale, from a gin file under gin/claims/, and say whether it holds: "
    "means, paired differences, verdict, beside the paper's figure. What is done is kept: run the same command again to go on. "
    "--all runs every claim and writes one table."
)


def add_arguments(parser) -> None:
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="name of a file under gin/claims/, or a gin file")
    parser.add_argument("--all", action="store_true", help="every claim under gin/claims/")
    parser.add_argument("--output", default="runs/claims", help="folder for models and scores (runs/claims)")
    parser.add_argument("--data", help="folder of pairs (train/) and suites (suites/) that the claims refer to")
    parser.add_argument("--source", help="model that mines for some claims: what embed convert takes")
    parser.add_argument(
        "--record",
        help="folder of what was measured, one file a claim, and of the table (default: --output); what it has is not run again",
    )
    parser.add_argument("--list", action="store_true", help="list the claims and what they need, and run nothing")


def run(arguments) -> None:
    from embed import files
    from embed.commands import bench, reproducing
    from embed.errors import UsageError

    if bool(arguments.claims) == (arguments.all or arguments.list):
        raise UsageError("give a CLAIM, or --all, or --list")
    found = reproducing.read(arguments.claims)
    if arguments.list:
        reproducing.tell(found)
        return
    output, record = pathlib.Path(arguments.output), pathlib.Path(arguments.record or arguments.output)
    given = {name: getattr(arguments, name) for name in ("data", "source") if getattr(arguments, name)}
    for name, place in given.items():
        if name == "data" and not pathlib.Path(place).is_dir():
            raise UsageError(f"--data={place}: no such folder")
    with files.FolderLock(output):
        digests = bench.digest_given(given)
        experiments = {
            name: reproducing.Experiment(name, claim, output, record / f"{name}.json", given, digests)
            for name, claim in {**reproducing.read([]), **found}.items()
        }
        for name in found:
            experiments[name].run()
            reproducing.write_table({n: e.result() for n, e in experiments.items() if n in found or e.is_kept}, record)
