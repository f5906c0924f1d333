"""Prints the quickstart's one summary table and writes summary.json: seconds per command and the scores."""

import json
import pathlib
import sys

from embed import files
from embed.evaluation.report import SHORT, align


def seconds(run: pathlib.Path) -> dict[str, float]:
    """Returns how long each command took; one that was interrupted and run again counts all its runs."""
    total: dict[str, float] = {}
    for line in (run / "timings.tsv").read_text().splitlines():
        name, began, ended = line.split("\t")
        total[name] = total.get(name, 0.0) + float(ended) - float(began)
    return {name: round(value, 1) for name, value in total.items()}


def main(run: pathlib.Path) -> None:
    """Reads `run`/timings.tsv and scores/results.json; writes summary.json and prints the table."""
    took = seconds(run)
    models = json.loads((run / "scores" / "results.json").read_text(encoding="utf-8"))["models"]
    scores = {name: next(iter(m["results"].values())) for name, m in models.items()}
    files.write_json(
        run / "summary.json", {"seconds": took, "total_seconds": round(sum(took.values()), 1), "scores": scores}
    )
    shown = [n for n in SHORT if n in next(iter(next(iter(scores.values())).values()))]
    cells = [["model", "dims", *(SHORT[n] for n in shown)]]
    cells += [
        [name, dim, *(f"{100 * v[n]:.1f}" for n in shown)] for name, dims in scores.items() for dim, v in dims.items()
    ]
    print(f"\nCode search on packages never trained on (percent)\n\n{align(cells)}\n")
    print(
        align(
            [["command", "seconds"], *([n, f"{s:.0f}"] for n, s in took.items()), ["all", f"{sum(took.values()):.0f}"]]
        )
    )
    print(
        f"\nmodel     {run}/soup\nresults   {run}/scores/results.json, {run}/scores/dimensions.png\nsummary   {run}/summary.json"
    )


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
