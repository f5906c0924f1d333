"""`embed search`: the texts and images of a corpus nearest to a query.

With a model of texts and images a query may be the path of an image, and rows of the corpus may have one. --image gives the query
an image beside its text: "[MASK_0] as an astronaut" --image=woman.png, where the model reads images in texts.
"""

from embed import environment
from embed.commands import options

SUMMARY = "Find the texts and images of a corpus (jsonl or jsonl.gz with a field text or image) nearest to each query."


def add_arguments(parser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", type=options.path, help="run folder, checkpoint step folder or bundle"
    )
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="what to look for")
    parser.add_argument(
        "--corpus",
        required=True,
        type=options.path,
        help="jsonl or jsonl.gz; fields: text or image (a path), and if there: id, title, file, line",
    )
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        type=options.path,
        metavar="PATH",
        help="image that is added to every query; a model that reads images in texts needs [MASK_0] in the text; may be repeated",
    )
    parser.add_argument("--prompt", default="query", help="name of the queries' prompt, e.g. 'code retrieval'")
    parser.add_argument("--top", type=options.count, default=5, help="results per query (default 5)")
    parser.add_argument("--dims", type=options.count, help="use this Matryoshka size")


def run(arguments) -> None:
    environment.start()
    from embed import markdown
    from embed.workflows import search

    results = search.run(
        arguments.model,
        arguments.queries,
        arguments.corpus,
        images=arguments.image,
        prompt=arguments.prompt,
        top=arguments.top,
        dims=arguments.dims,
    )
    for query, nearest in zip(arguments.queries, results):
        print(f"\n{markdown.printable(query)}")
        for rank, result in enumerate(nearest, 1):
            line = f"{result.location}  {_first_line(result.row['text'] or result.row['image'])}"
            print(f"  {rank}. {result.score:.4f}  {markdown.printable(line)}")


def _first_line(text: str, width: int = 90) -> str:
    line = text.strip().splitlines()[0]
    return line if len(line) <= width else line[: width - 3] + "..."
