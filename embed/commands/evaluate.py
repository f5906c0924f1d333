"""`embed evaluate`: models and baselines on a suite, at every Matryoshka size and precision; comparisons of results.

A suite is JSON: {"name": ..., "tasks": [{"name", "type", "path", "languages"?, "prompt"?, "mteb_task"?}]}, paths relative to
it. mteb_task names the task of MTEB that the data are: it is scored by that task's own rules, which are also fields of a task
(embed/evaluation/suites.py). A rule that the data or the type cannot follow is refused.

  retrieval               folder: queries.jsonl, corpus.jsonl, judgements of BEIR, MS MARCO or TREC    nDCG@10
  reranking               lines of {"query", "positives", "negatives"}, or MTEB's folder              MAP
  instruction_reranking   MTEB's folder, with top_ranked.jsonl and qrel_diff.jsonl                    p-MRR
  sts                     tsv: sentence1, sentence2, score                                            Spearman
  summarization           lines of {"human_summaries", "machine_summaries", "relevance"}              Spearman
  pair_classification     tsv: sentence1, sentence2, label                                            best AP
  bitext                  tsv: src, tgt                                                               weighted F1
  classification, multilabel_classification    folder: train.jsonl, test.jsonl of {"text", "label"}   accuracy
  regression              folder: train.jsonl, test.jsonl of {"text", "value"}                        Kendall's tau
  clustering              lines of {"text", "label"}, or of {"sentences", "labels"}, a set each       V-measure
  xor_retrieve            XOR-TyDi's questions; corpus_path to the passages                           R@5kt
  xtreme_up               folder of LANGUAGE.jsonl; corpus_path to the index                          MRR@10

Of images, for models that take them; rows name an image by its path in the folder, or the task is an .npz file
(embed/evaluation/image_readers.py):

  image_retrieval, image_text_retrieval        folder like retrieval's, whose rows have image, text or both    nDCG@10
  image_classification    folder: train.jsonl, test.jsonl of {"image", "label"}; linear, and neighbours        accuracy
  zero_shot_classification                     the same, with labels.jsonl of {"label", "text"}                accuracy
  image_clustering        folder: test.jsonl of {"image", "label"}                                             NMI
  visual_sts              folder: test.jsonl of {"image1", "image2", "score"}                                  Spearman
  compositionality        folder: test.jsonl of {"images": [...], "texts": [...]}                              accuracy
  universal_retrieval     a folder a domain: index.jsonl, queries.jsonl? of {"image", "label"}                 R@1
  dense                   folder: train.jsonl, test.jsonl of {"image", "classes", "depth"?, "normals"?}        mean IoU
                          and labels.jsonl?, the classes' names: pixels are then told by them too

The report shows pictures: what queries of images found, and of dense tasks the patches' components and the maps.

Each text is embedded once for all tasks, sizes and precisions that need it, and kept under ~/.cache/embed/vectors
(--vectors=DIR): a run that was killed goes on. On the same embeddings every score is MTEB's to 1e-6. Two rules differ on
purpose: candidates with equal scores are ordered by a hash of their text, because MTEB's order gives a model that says the
same to everything 90 on files whose answers stand first; and test sets with several labels a text are scored whole, where
MTEB cuts them at 3,000.
"""

import pathlib
import sys
from collections.abc import Sequence

from embed import environment
from embed.commands import options
from embed.errors import UsageError

SUMMARY = (
    "Score models on a suite of local files by MTEB's protocols, at every Matryoshka size; writes results.json, "
    "results.md, plots and a report that opens in a browser."
)


def add_arguments(parser) -> None:
    parser.add_argument(
        "models",
        nargs="*",
        type=options.path,
        metavar="[NAME=]MODEL",
        help="what to score; NAME is how the tables call it",
    )
    parser.add_argument("--suite", type=options.path, help="suite file (JSON)")
    parser.add_argument("--output", type=options.path, help="new folder for the results")
    parser.add_argument("--dims", help="comma-separated sizes (default: the model's Matryoshka sizes)")
    parser.add_argument(
        "--quantize",
        help="comma-separated precisions of the vectors: float32 (default), int8, binary, binary-rescored",
    )
    parser.add_argument(
        "--weights",
        help="comma-separated precisions of the weights, each scored as a model of its own: float32 (default), bfloat16, "
        "int8_blocks, int4_blocks, mixed_channels",
    )
    parser.add_argument(
        "--baselines",
        help="comma-separated: random (untrained weights of the first MODEL), bm25, specialists (for universal_retrieval: each "
        "domain is scored with the MODEL given as DOMAIN=MODEL)",
    )
    parser.add_argument("--against", metavar="NAME", help="the model that the others are compared with, item by item")
    parser.add_argument("--tasks", help="comma-separated names of the suite's tasks to run")
    parser.add_argument(
        "--max_length", type=options.count, help="tokens a text is cut at (default: the longest of training)"
    )
    parser.add_argument(
        "--vectors",
        type=options.path,
        metavar="DIR",
        help="where embedded texts are kept for the next run (default: $EMBED_VECTORS or ~/.cache/embed/vectors; 'off')",
    )
    parser.add_argument(
        "--mteb",
        metavar="NAME",
        help="run MTEB itself: a benchmark such as 'MTEB(Multilingual, v2)', or names of its tasks separated by commas",
    )
    parser.add_argument("--distributed", action="store_true", help="join the other hosts of a TPU pod or Slurm job")
    parser.add_argument(
        "--compare",
        nargs="+",
        type=options.path,
        metavar="results.json",
        help="make one report of results that are there, and score nothing",
    )


# Options that need a suite, and options that need a model to score.
_OF_SUITES = ("weights", "baselines", "tasks", "vectors")
_OF_SCORING = ("dims", "quantize", "max_length", "distributed")


def _check_unused(arguments, option: str, names: Sequence[str]) -> None:
    """Raises UsageError for an option that has no effect together with `option`."""
    for name in names:
        if getattr(arguments, name):
            raise UsageError(f"--{name} has no effect with {option}; leave it out")


def run(arguments) -> None:
    if arguments.compare:
        if arguments.models or arguments.suite:
            raise UsageError("--compare takes results only; leave out MODEL and --suite")
        if not arguments.output:
            raise UsageError("--compare needs --output=DIR")
        _check_unused(arguments, "--compare", (*_OF_SUITES, *_OF_SCORING, "mteb"))
        from embed.workflows import compare

        compare.run(arguments.compare, arguments.output, against=arguments.against)
        return
    if arguments.mteb and arguments.suite:
        raise UsageError("--mteb brings its own tasks; leave out --suite")
    if arguments.mteb:
        _check_unused(arguments, "--mteb", (*_OF_SUITES, "against"))
    if not arguments.models or not (arguments.suite or arguments.mteb) or not arguments.output:
        raise UsageError("give at least one MODEL, --suite=FILE and --output=DIR (or --compare A/results.json ...)")
    environment.start(arguments.distributed)
    models = _named(arguments.models)
    shared = {
        "dims": options.numbers("dims", arguments.dims, int) or (),
        "precisions": (arguments.quantize or "float32").split(","),
        "max_length": arguments.max_length,
    }
    if arguments.mteb:
        from embed.workflows import evaluate_mteb

        evaluate_mteb.run(models, arguments.mteb, arguments.output, **shared)
        return
    from embed.workflows import evaluate

    evaluate.run(
        models,
        arguments.suite,
        arguments.output,
        tasks=arguments.tasks.split(",") if arguments.tasks else None,
        weights=(arguments.weights or "float32").split(","),
        baselines=[name for name in (arguments.baselines or "").split(",") if name],
        against=arguments.against,
        vectors=arguments.vectors,
        command=["embed", *sys.argv[1:]],
        **shared,
    )


def _named(models) -> dict[str, str]:
    """Returns {name: path} of each [NAME=]MODEL; two of one name are a UsageError."""
    given = [(m.partition("=")[0], m.partition("=")[2]) if "=" in m else (pathlib.Path(m).name, m) for m in models]
    names = [name for name, _ in given]
    for (name, path), model in zip(given, models):
        if not name or not path:
            raise UsageError(f"{model!r} has no {'path' if name else 'name'}; give NAME=MODEL, or MODEL alone")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two models are called {name!r}; give them names: NAME=MODEL")
    return dict(given)
