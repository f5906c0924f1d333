"""One report of results that are there: their tables, comparisons and plots. Loads no JAX."""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from embed import files, markdown
from embed.evaluation import outputs, part_scores, plots, report
from embed.evaluation.pictures import Rows


def run(results: Sequence[str], output, *, against: str | None = None) -> None:
    """Writes the report of several results.json as the new folder `output`, each model compared with the model `against`."""
    merged, samples, drawn = outputs.merge([pathlib.Path(path) for path in results], against)
    write(merged, samples, output, drawn)


def write(results: Mapping[str, Any], samples: Mapping[str, Any], output, drawn: Rows | None = None) -> None:
    """Writes results, samples, tables, plots and the pictures `drawn` as the new folder `output`, and prints the table."""
    with files.new_folder(output) as folder:
        written = outputs.write(results, samples, folder, drawn or {})
    print(f"\n{report.table(results, markdown.printable)}")
    for title, cells in part_scores.tables(results):
        print(f"{title}, percent\n\n{report.align(cells, markdown.printable)}\n")
    if not plots.available():
        print("no plots: matplotlib is not installed; run: pip install 'embed[plots]'", file=sys.stderr)
    print(f"wrote {output}/: {', '.join(written)}")
