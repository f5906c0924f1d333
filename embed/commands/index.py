"""`embed index`: an index of a corpus on disk, for `embed search`.

  embed index MODEL --corpus=FILE --output=INDEX    encodes the corpus; run again, an interrupted job goes on
  embed index INDEX --add=FILE                      encodes further documents; --replace replaces those with the same id
  embed index INDEX --remove ID... | --remove_file=FILE
  embed index INDEX --compact                       removed documents leave the disk, segments become one, a graph is built again;
                                                    nothing is encoded, and the index needs its room twice meanwhile
  embed index INDEX --approximate                   adds a graph (HNSW) for approximate search, and measures its recall
  embed index INDEX --export=FORMAT --output=PATH   writes documents and vectors for other programs: a parquet file, or a folder
                                                    that TensorBoard's projector opens
  embed index INDEX                                 says what it holds

Documents are rows of a jsonl or jsonl.gz file with text, image (a path from the file's folder) or both, and if there id or _id,
title, file and line. A row without an id is called by its file and line, and is not replaced by --add. Search is exact unless the
index has a graph, which pays from about a million documents on. Every file has a digest, which is verified when a machine first
opens the index and when a file has changed.
"""

from embed import environment
from embed.commands import options
from embed.errors import UsageError

SUMMARY = "Make an index of a corpus on disk, which `embed search` answers from without encoding the corpus again."
_CREATE = ("prompt", "dims", "max_length", "dtype")
_GRAPH = ("connectivity", "expansion_add", "expansion_search", "queries")


def add_arguments(parser) -> None:
    parser.add_argument("folder", metavar="MODEL|INDEX", type=options.path, help="a model with --corpus, else an index")
    work = parser.add_mutually_exclusive_group()
    work.add_argument("--corpus", type=options.path, metavar="FILE", help="make an index of these documents")
    work.add_argument("--add", type=options.path, metavar="FILE", help="add these documents")
    work.add_argument("--remove", nargs="+", metavar="ID", help="remove the documents with these ids")
    work.add_argument(
        "--remove_file", type=options.path, metavar="FILE", help="remove the documents whose ids are its lines"
    )
    work.add_argument(
        "--compact", action="store_true", help="write the documents once more, without those that were removed"
    )
    work.add_argument(
        "--approximate", action="store_true", help="add a graph for approximate search, or bring it up to date"
    )
    work.add_argument(
        "--export", choices=("parquet", "projector"), help="write documents and vectors for viewers of embeddings"
    )
    parser.add_argument(
        "--output",
        type=options.path,
        metavar="PATH",
        help="with --corpus: folder to write; with --export: file or folder",
    )
    parser.add_argument("--prompt", help="with --corpus: the documents' prompt, a name or a template (document)")
    parser.add_argument("--dims", type=options.count, help="with --corpus: use this Matryoshka size")
    parser.add_argument("--max_length", type=options.count, help="with --corpus: cut texts at this many tokens")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="with --corpus: what the encoder computes in")
    parser.add_argument("--replace", action="store_true", help="with --add: replace documents whose ids the index has")
    parser.add_argument("--model", type=options.path, help="where the index's model lies, if it was moved")
    parser.add_argument(
        "--connectivity", type=options.up_to(256, 2), help="with --approximate: neighbours a document (16)"
    )
    parser.add_argument(
        "--expansion_add", type=options.up_to(8192), help="with --approximate: breadth of building (128)"
    )
    parser.add_argument(
        "--expansion_search", type=options.up_to(8192), help="with --approximate: breadth of search (128)"
    )
    parser.add_argument(
        "--queries",
        type=options.path,
        metavar="FILE",
        help="with --approximate: queries, one a line, that measure the recall",
    )


def run(arguments) -> None:
    for names, name in ((_CREATE, "corpus"), (("replace",), "add"), (_GRAPH, "approximate")):
        for option in names:
            if getattr(arguments, option) and not getattr(arguments, name):
                raise UsageError(f"--{option} goes with --{name}; leave it out")
    if arguments.output and not (arguments.corpus or arguments.export):
        raise UsageError("--output goes with --corpus or --export; leave it out")
    if arguments.model and not (arguments.add or arguments.queries):
        raise UsageError("--model goes with --add or --queries; leave it out")
    if arguments.corpus and not arguments.output:
        raise UsageError("--corpus needs --output, the folder of the index")
    if arguments.export and not arguments.output:
        raise UsageError("--export needs --output, the file or folder to write")
    environment.start()
    from embed.workflows import index

    if arguments.corpus:
        given = {name: getattr(arguments, name) for name in _CREATE if getattr(arguments, name)}
        index.create(arguments.folder, arguments.corpus, arguments.output, **given)
    elif arguments.add:
        index.add(arguments.folder, arguments.add, replace=arguments.replace, model=arguments.model)
    elif arguments.remove or arguments.remove_file:
        index.remove(arguments.folder, arguments.remove or index.lines_of(arguments.remove_file))
    elif arguments.compact:
        index.compact(arguments.folder)
    elif arguments.approximate:
        chosen = {name: getattr(arguments, name) for name in _GRAPH[:3] if getattr(arguments, name)}
        queries = index.lines_of(arguments.queries) if arguments.queries else ()
        index.approximate(arguments.folder, chosen, queries, arguments.model)
    elif arguments.export:
        index.export(arguments.folder, arguments.output, arguments.export)
    else:
        index.show(arguments.folder)
