"""`embed search`: the documents of an index, or of a corpus that is encoded for it, nearest to a query.

  embed search INDEX QUERY...                  INDEX is of `embed index`
  embed search MODEL QUERY... --corpus=FILE    encodes all of the corpus first

With a model of texts and images a query may be the path of an image, and rows of the corpus may have one. --image gives the query
an image beside its text: "[MASK_0] as an astronaut" --image=woman.png, where the model reads images in texts.
"""

from embed import environment
from embed.commands import options
from embed.errors import UsageError

SUMMARY = "Find the documents, texts or images, of an index or a corpus that are nearest to each query."


def add_arguments(parser) -> None:
    parser.add_argument("folder", metavar="INDEX|MODEL", type=options.path, help="an index; or, with --corpus, a model")
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="what to look for")
    parser.add_argument(
        "--corpus",
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
    parser.add_argument("--dims", type=options.count, help="with --corpus: use this Matryoshka size")
    parser.add_argument("--exact", action="store_true", help="compare all documents, where INDEX has a graph too")
    parser.add_argument("--model", type=options.path, help="where INDEX's model lies, if it was moved")


def run(arguments) -> None:
    environment.start()
    from embed import markdown
    from embed.workflows import search

    asking = {"images": arguments.image, "prompt": arguments.prompt, "top": arguments.top}
    if arguments.corpus is None:
        if arguments.dims is not None:
            raise UsageError("--dims goes with --corpus, as the index decides it; leave it out")
        results = search.run_index(
            arguments.folder, arguments.queries, model=arguments.model, exact=arguments.exact, **asking
        )
    else:
        for name in ("exact", "model"):
            if getattr(arguments, name):
                raise UsageError(f"--{name} goes with an index; leave it out")
        results = search.run(arguments.folder, arguments.queries, arguments.corpus, dims=arguments.dims, **asking)
    for query, nearest in zip(arguments.queries, results):
        print(f"\n{markdown.printable(query)}")
        for rank, result in enumerate(nearest, 1):
            line = f"{result.id}  {_first_line(result.row['text'] or result.row['image'])}"
            print(f"  {rank}. {result.score:.4f}  {markdown.printable(line)}")


def _first_line(text: str, width: int = 90) -> str:
    line = text.strip().splitlines()[0]
    return line if len(line) <= width else line[: width - 3] + "..."
