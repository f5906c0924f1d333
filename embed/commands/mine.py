"""`embed mine`: hard negatives for files of pairs, from a model's own nearest texts."""

from embed import environment
from embed.commands import options
from embed.errors import UsageError

SUMMARY = (
    "Find hard negatives: texts near a query that do not answer it. Every file of pairs is mined in its own targets, and in "
    "--corpus where one is given; a positive of a query in any of the files is never its negative. What is written has the "
    "fields of what was read, and training reads it as it is. Run the same command again after a kill: what is done is "
    "verified and kept."
)

log_path = options.log_beside_output


def add_arguments(parser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", type=options.path, help="run folder, checkpoint step folder or bundle"
    )
    parser.add_argument(
        "--pairs", required=True, nargs="+", type=options.path, help="jsonl files of pairs (.gz, or patterns with *)"
    )
    parser.add_argument(
        "--output", required=True, type=options.path, help="folder for one NAME.jsonl.gz a file of pairs"
    )
    parser.add_argument(
        "--corpus", nargs="+", type=options.path, default=[], help="more texts to search: jsonl with `text` and `title`"
    )
    parser.add_argument("--negatives", type=options.count, default=1, help="negatives a query (1)")
    parser.add_argument(
        "--ranks", default="1:50", help="FIRST:LAST, the ranks they come from, without positives (1:50)"
    )
    parser.add_argument(
        "--ceiling", default="0.95", help="most of the positive's score that a negative may have (0.95); 'off'"
    )
    parser.add_argument(
        "--margin", type=options.non_negative, help="least cosine that a negative must lie below the positive"
    )
    parser.add_argument("--order", default="nearest", help="which of those left: nearest (default), random or farthest")
    parser.add_argument("--seed", type=options.natural, default=0, help="of the random order")
    parser.add_argument(
        "--consistent",
        type=options.count,
        help="drop pairs whose target is not among this many texts nearest to the query",
    )
    parser.add_argument(
        "--replace", action="store_true", help="drop the negatives that a pair has; else they stay first"
    )
    parser.add_argument("--query_field", default="query", help="field of the query (query)")
    parser.add_argument("--target_field", default="positive", help="field of the target (positive)")
    parser.add_argument("--title_field", help="field of the target's title")
    parser.add_argument("--negatives_field", default="negative", help="field the negatives go to (negative)")
    parser.add_argument("--query_prompt", default="query", help="prompt of queries by name, or a template (query)")
    parser.add_argument("--target_prompt", default="document", help="prompt of targets (document)")
    parser.add_argument(
        "--max_length", type=options.count, help="tokens a text is cut at (default: what the model was made for)"
    )
    parser.add_argument("--distributed", action="store_true", help="join the other hosts of a TPU pod or Slurm job")


def run(arguments) -> None:
    rule = _rule(arguments)
    environment.start(arguments.distributed)
    from embed.workflows import mine

    mine.run(
        arguments.model,
        arguments.pairs,
        arguments.output,
        corpus=arguments.corpus,
        rule=rule,
        replace=arguments.replace,
        query_field=arguments.query_field,
        target_field=arguments.target_field,
        title_field=arguments.title_field,
        negatives_field=arguments.negatives_field,
        query_prompt=arguments.query_prompt,
        target_prompt=arguments.target_prompt,
        max_length=arguments.max_length,
    )


def _rule(arguments):
    from embed.workflows.mine import Rule

    first, separator, last = arguments.ranks.partition(":")
    try:
        first, last = int(first), int(last if separator else first)
        ceiling = None if arguments.ceiling == "off" else float(arguments.ceiling)
    except ValueError as e:
        raise UsageError(
            f"--ranks={arguments.ranks} --ceiling={arguments.ceiling}: ranks are FIRST:LAST, a ceiling is a number or 'off'"
        ) from e
    return Rule(
        arguments.negatives,
        first,
        last,
        ceiling,
        arguments.margin,
        arguments.order,
        arguments.seed,
        arguments.consistent,
    )
