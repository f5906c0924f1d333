"""`embed search`: the texts of a corpus nearest to a query."""

import sys

from embed import environment
from embed.commands import options

SUMMARY = "Find the texts of a corpus (jsonl or jsonl.gz with a field text) nearest to each query."


def add_arguments(parser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", type=options.path, help="run folder, checkpoint step folder or bundle"
    )
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="what to look for")
    parser.add_argument(
        "--corpus",
        required=True,
        type=options.path,
        help="jsonl or jsonl.gz; fields: text, and if there: id, title, file, line",
    )
    parser.add_argument("--prompt", default="query", help="name of the queries' prompt, e.g. 'code retrieval'")
    parser.add_argument("--top", type=options.count, default=5, help="results per query (default 5)")
    parser.add_argument("--dims", type=options.count, help="use this Matryoshka size")


def run(arguments) -> None:
    environment.start()
    from embed import markdown
    from embed.data.lines import read_json_lines
    from embed.errors import DataError, UsageError
    from embed.inference import model as inference
    from embed.inference import search

    if arguments.top < 1:
        raise UsageError(f"--top={arguments.top}: at least 1")
    for number, query in enumerate(arguments.queries, 1):
        if not query.strip():
            raise UsageError(f"query {number} of {len(arguments.queries)} is empty; say what to look for")
    rows = [(location, _checked(row, location)) for location, row in read_json_lines(arguments.corpus)]
    if not rows:
        raise DataError(f"{arguments.corpus}: no texts in it; give a corpus")
    model = inference.open_model(arguments.model)
    model.check_dims(arguments.dims)
    queries = model.encode(arguments.queries, prompt=arguments.prompt, dims=arguments.dims)
    print(f"{model.folder}: encoding {len(rows)} texts", file=sys.stderr, flush=True)
    texts, titles = ([r[field] for _, r in rows] for field in ("text", "title"))
    corpus = model.encode(texts, prompt="document", titles=titles, dims=arguments.dims)
    scores, indices = search.top_k(queries, corpus, arguments.top)
    for query, row_scores, row_indices in zip(arguments.queries, scores, indices):
        print(f"\n{markdown.printable(query)}")
        for rank, (score, index) in enumerate(zip(row_scores, row_indices), 1):
            location, row = rows[index]
            line = f"{_location(location, row)}  {_first_line(row['text'])}"
            print(f"  {rank}. {score:.4f}  {markdown.printable(line)}")


def _checked(row: dict, location: str) -> dict:
    """Returns a row of the corpus with a text, and a title or ""; what is neither is a DataError."""
    from embed.data.fields import checked_text
    from embed.errors import DataError, did_you_mean

    if "text" not in row:
        raise DataError(f"{location}: no field 'text'{did_you_mean('text', row)}")
    title = row.get("title")
    is_titled = title is not None and not (isinstance(title, str) and not title.strip())
    return {
        **row,
        "text": checked_text(row.get("text"), "text", location),
        "title": checked_text(title, "title", location) if is_titled else "",
    }


def _location(location: str, row: dict) -> str:
    return f"{row['file']}:{row['line']}" if "file" in row and "line" in row else str(row.get("id", location))


def _first_line(text: str, width: int = 90) -> str:
    line = text.strip().splitlines()[0]
    return line if len(line) <= width else line[: width - 3] + "..."
