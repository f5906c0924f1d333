"""`embed curate`: training data written and judged by a language model behind an OpenAI-compatible endpoint.

Any OpenAI-compatible endpoint is taken (vLLM, Gemini's own), with the key from EMBED_API_KEY alone; it is removed from all that is
written. --max_requests and --max_tokens count every HTTP request before it is sent, retries, failures and earlier runs included.
Redirects are not followed, and replies are read up to 8 MiB. Every reply is checked against a JSON schema, and what is left out
is counted with its reason. A budget well spent exits with 75, one spent on failures with 69. Text of your corpus is put
between marks that nobody can guess, and a reply that gives them away is refused. pick --likelihood fuses the grade with the
query's likelihood after the text, as Gemini Embedding does (vLLM tells it; chat endpoints do not). Needs the extra [curation].

captions asks a model that sees images: each is sent as a JPEG of at most 512 pixels with the text that was found beside it. The
rows are the records with `synthetic_caption`, and paths that start at --output: train on them with sources.ImageFiles.
"""

from embed.commands import options

SUMMARY = (
    "Have a language model write or judge training data. WHAT is: queries (for the passages of --input), texts (of given "
    "--labels), captions (of the images of --input), filter (drop pairs whose target does not answer, and negatives that do), "
    "pick (of mined negatives those that rank lowest), or prompts (write our prompts to a folder, to be edited and given back "
    "with --prompts). Every reply is kept: run the same command again after a stop, and nothing is asked twice."
)

log_path = options.log_beside_output


def add_arguments(parser) -> None:
    parser.add_argument("what", metavar="WHAT", help="queries, texts, captions, filter, pick or prompts")
    parser.add_argument(
        "--output", required=True, type=options.path, help="folder: rows.jsonl.gz, summary.json and the replies"
    )
    options.add_endpoint_arguments(parser)
    parser.add_argument(
        "--input",
        type=options.path,
        help="queries: texts (jsonl, tsv, txt, parquet); captions: jsonl with paths of images; filter and pick: jsonl of pairs",
    )
    parser.add_argument("--sample", type=options.count, help="queries and captions: take this many, drawn")
    parser.add_argument(
        "--least", type=options.up_to(5, 0), help="least rating of a query (4 of 5) or grade of a target (2 of 3)"
    )
    parser.add_argument("--labels", help="texts: the labels, separated by commas")
    parser.add_argument("--kind", help="texts: what is written, such as 'product reviews'")
    parser.add_argument("--count", type=options.up_to(10_000_000), help="texts: how many (100)")
    parser.add_argument("--keep", type=options.up_to(10_000), help="pick: negatives a pair (1)")
    parser.add_argument(
        "--likelihood",
        action="store_const",
        const=True,
        help="pick: fuse the grade with the query's likelihood after the negative (needs a completions endpoint with echo: vLLM)",
    )
    parser.add_argument("--image_field", help="captions: field of the image's path, from the file's folder (image)")
    parser.add_argument("--caption_field", help="captions: field of the text of the web beside the image (caption)")
    parser.add_argument("--query_field", default="query", help="field of the query (query)")
    parser.add_argument("--target_field", default="positive", help="field of the target (positive)")
    parser.add_argument("--title_field", help="filter and pick: field of the target's title, where it has one (title)")
    parser.add_argument("--negatives_field", default="negative", help="field of the negatives (negative)")
    parser.add_argument("--prompts", type=options.path, help="folder with prompts of your own, by the names of ours")
    parser.add_argument(
        "--seed", type=options.up_to(2**31 - 1, 0), default=0, help="of draws and of the model's sampling"
    )
    parser.add_argument("--price", help="IN,OUT: price of a million tokens, to tell the cost")
    parser.add_argument("--plain", action="store_true", help="ask without a JSON schema, for servers that know none")


def run(arguments) -> None:
    from embed.workflows import curate

    given = {name: value for name, value in vars(arguments).items() if name != "debug"}
    curate.run(**{**given, "price": options.numbers("price", arguments.price)})
