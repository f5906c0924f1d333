"""The fault table: every kind of fault, tried many times with seeds, and what came of it.

    python tests/faults/run.py [--rows=kills,fuzz] [--tries=N] [--seed=S] [--list]

Each try must end as the table wants: with the same bits, or with an error of one line, and never silently wrong. What was tried is
added to results.json beside this file, and results.md is written anew from all of it. A seed that was tried is not tried again.
The process ends with 1 where a fault was not survived; these stay in the table.
"""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

RESULTS = HERE / "results.json"


def entries() -> list[dict]:
    """Returns what was tried so far."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else []


def table(tried: list[dict], rows) -> str:
    """Returns results.md."""
    lines = [
        "# The fault table",
        "",
        "Made by `python tests/faults/run.py`. A try is survived when it ends as the row says; no try is left out. The counts are",
        "sums over all seeds; what is below its aim is to be tried on.",
        "",
        "| row | fault | ends with | survived / tried | aim | seeds | minutes | what came of them |",
        "|---|---|---|---:|---:|---|---:|---|",
    ]
    for row in rows:
        of_row = [entry for entry in tried if entry["row"] == row.name]
        survived, total = (sum(entry[key] for entry in of_row) for key in ("survived", "tried"))
        outcomes: dict[str, int] = {}
        for entry in of_row:
            for name, count in entry["outcomes"].items():
                outcomes[name] = outcomes.get(name, 0) + count
        shown = ", ".join(f"{name} {count:,}" for name, count in sorted(outcomes.items(), key=lambda item: -item[1]))
        seeds = ", ".join(map(str, sorted({entry["seed"] for entry in of_row}))) or "-"
        minutes = sum(entry["seconds"] for entry in of_row) / 60
        counts = f"{survived:,} / {total:,}" if of_row else "not tried"
        lines.append(
            f"| `{row.name}` | {row.fault} | {row.wanted} | {counts} | {row.aim:,} | {seeds} | {minutes:.1f} | {shown} |"
        )
    failures = [(entry, failure) for entry in tried for failure in entry["failures"]]
    if failures:
        lines += ["", "Not survived:", ""]
        lines += [f"- `{entry['row']}`, seed {entry['seed']}: {failure}" for entry, failure in failures]
    return "\n".join(lines) + "\n"


def write(tried: list[dict], rows) -> None:
    """Writes both files of results."""
    RESULTS.write_text(json.dumps(tried, indent=1) + "\n", encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(table(tried, rows), encoding="utf-8")


def main() -> int:
    """Runs the rows that were asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", help="names, separated by commas (all)")
    parser.add_argument("--tries", type=int, help="tries of each row (what its aim still lacks)")
    parser.add_argument("--seed", type=int, help="of the tries (the first that a row has not had)")
    parser.add_argument("--list", action="store_true", help="list the rows and end")
    parser.add_argument(
        "--keep", action="store_true", help="show what came of them, and leave the files of results as they are"
    )
    given = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from rows import ROWS

    if given.list:
        for row in ROWS:
            print(f"{row.name:12} {row.aim:>10,}  {row.fault}")
        return 0
    names = given.rows.split(",") if given.rows else [row.name for row in ROWS]
    unknown = set(names) - {row.name for row in ROWS}
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; --list lists them")
    survived = True
    for row in ROWS:
        if row.name not in names:
            continue
        tried = entries()
        of_row = [entry for entry in tried if entry["row"] == row.name]
        seed = given.seed if given.seed is not None else max((entry["seed"] for entry in of_row), default=-1) + 1
        tries = given.tries or row.aim - sum(entry["tried"] for entry in of_row)
        if tries <= 0 or any(entry["seed"] == seed for entry in of_row) and not given.keep:
            continue
        begun = time.time()
        with tempfile.TemporaryDirectory() as work, contextlib.chdir(work):
            report = row.run(pathlib.Path(work), tries, seed)
        entry = {
            "row": row.name,
            "seed": seed,
            "tried": report.tried,
            "survived": report.survived,
            "outcomes": dict(report.outcomes),
            "failures": report.failures[:20],
            "seconds": round(time.time() - begun, 1),
        }
        print(json.dumps(entry), flush=True)
        survived &= report.survived == report.tried
        if not given.keep:
            write([*entries(), entry], ROWS)
    return 0 if survived else 1


if __name__ == "__main__":
    sys.exit(main())
