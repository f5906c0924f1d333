"""Prints the quickstart's last screen: one table of scores, the seconds, where the pictures are, what to try; writes summary.json.

python launch/summary.py RUN --functions=FOLDER --embed=COMMAND
"""

import argparse
import itertools
import json
import pathlib
import shlex
from collections.abc import Mapping

from embed import files
from embed.evaluation.report import SHORT, align
from embed.sources.lines import read_json_lines

METRICS = ("ndcg_at_10", "mrr_at_10", "recall_at_1", "recall_at_10", "recall_at_100")
# From the weakest to the best, whatever of it was scored.
LABELS = {
    "random": "random weights",
    "bm25": "BM25",
    "base": "all-MiniLM-L6-v2",
    "best": "best checkpoint",
    "tuned": "tuned",
    "soup": "soup",
}
SOUPS = {True: "soup: half released, half tuned", False: "soup: the last three checkpoints"}
PAIRS_IN_EXAMPLE = 500


def seconds_by_command(run: pathlib.Path) -> dict[str, float]:
    """Returns how long each command took; one that was run several times counts all its runs."""
    seconds: dict[str, float] = {}
    for line in (run / "timings.tsv").read_text().splitlines():
        name, began, ended = line.split("\t")
        seconds[name] = seconds.get(name, 0.0) + float(ended) - float(began)
    return {name: round(value, 1) for name, value in seconds.items()}


def scores_table(scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Returns {model: {size: {score: value}}} as a table in percent."""
    cells = [["model", "dims", *(SHORT[name] for name in METRICS)]]
    labels = {**LABELS, "soup": SOUPS["base" in scores]}
    for name in sorted(scores, key=list(LABELS).index):
        for size, values in scores[name].items():
            dims = "-" if size == "all" else size
            cells.append([labels[name], dims, *(f"{100 * values[metric]:.1f}" for metric in METRICS)])
    return align(cells)


def write_example_pairs(path: pathlib.Path, functions: pathlib.Path) -> None:
    """Writes some pairs of the harvest in the form that a user's own pairs must have."""
    rows = itertools.islice(read_json_lines(str(functions / "train.jsonl.gz")), PAIRS_IN_EXAMPLE)
    pairs = ({"query": row["query"], "positive": row["target"]} for _, row in rows)
    files.write_atomic(path, "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs))


def suggestions(run: pathlib.Path, functions: pathlib.Path, embed: str) -> list[tuple[str, list[str]]]:
    """Returns three things to try: what each is, and its command as words."""
    search = [embed, "search", f"{run}/soup", "open a file and return its lines", "--prompt=code retrieval"]
    ask = ("Ask a question of your own", [*search, f"--corpus={functions}/dev/corpus.jsonl.gz"])
    exported = run / "exported"
    if not exported.is_dir():  # trained from nothing
        return [
            ask,
            ("Start from a released model, which is far better", ["launch/quickstart.sh"]),
            ("Export it for sentence-transformers", [embed, "export", f"{run}/soup", str(exported)]),
        ]
    train = [
        *(embed, "train", "--gin_file=gin/recipes/finetune_sentence_transformer.gin", "--run_dir=runs/my-pairs"),
        *(f"--gin.SOURCE='{functions.parent.parent}/base'", f"--gin.PAIRS='{run}/pairs.jsonl'"),
        *("--gin.recipe.Recipe.num_negatives=0", "--gin.TRAIN_STEPS=50", "--gin.WARMUP_STEPS=5"),
    ]
    load = f"from sentence_transformers import SentenceTransformer as S; m = S('{exported}', truncate_dim=128)"
    return [
        ask,
        (f"Tune on your own pairs: {run}/pairs.jsonl shows the form; name your file instead", train),
        (
            "Load it in sentence-transformers (pip install sentence-transformers)",
            ["python3", "-c", f"{load}; print(m.encode('parse a date').shape)"],
        ),
    ]


def quoted(word: str) -> str:
    """Returns a word for a shell; in double quotes where that is enough, because gin values hold single ones."""
    if shlex.quote(word) == word:
        return word
    return shlex.quote(word) if set(word) & set('"$`\\!') else f'"{word}"'


def pictures(run: pathlib.Path) -> list[str]:
    """Returns the report and the pictures that the evaluation wrote."""
    names = ("report.html", "dimensions.png", "types.png")
    return [f"{run}/scores/{name}" for name in names if (run / "scores" / name).is_file()]


def main(arguments=None) -> None:
    """Reads RUN/timings.tsv and scores/results.json; writes summary.json and pairs.jsonl, and prints the last screen."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--functions", type=pathlib.Path, required=True)
    parser.add_argument("--embed", required=True)
    given = parser.parse_args(arguments)
    run = given.run
    seconds = seconds_by_command(run)
    total = sum(seconds.values())
    results = json.loads((run / "scores" / "results.json").read_text(encoding="utf-8"))
    scores = {name: model["results"]["held-out-packages"] for name, model in results["models"].items()}
    write_example_pairs(run / "pairs.jsonl", given.functions)
    summary = {"seconds": seconds, "total_seconds": round(total, 1), "scores": scores}
    files.write_json(run / "summary.json", summary)
    print(f"\nCode search on packages that were not trained on, percent\n\n{scores_table(scores)}\n")
    print(f"seconds   {', '.join(f'{name} {value:.0f}' for name, value in seconds.items())}; all {total:.0f}")
    print(f"pictures  {', '.join(pictures(run))}")
    print(f"numbers   {run}/summary.json, {run}/scores/results.json\n\nTry next, in {pathlib.Path.cwd()}")
    for title, words in suggestions(run, given.functions, given.embed):
        print(f"  # {title}\n  {' '.join(map(quoted, words))}")


if __name__ == "__main__":
    main()
