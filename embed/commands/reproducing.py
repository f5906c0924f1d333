"""The work of `embed reproduce`: command lines run once each, models scored, differences judged, tables written."""

import dataclasses
import json
import pathlib
import shlex
import string
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embed import config, files
from embed.commands.claims import Claim, Comparison
from embed.errors import DataError, UsageError, did_you_mean
from embed.evaluation import report, verdicts

DONE, RESULT = "done.json", "claim.json"


def read(names: Sequence[str]) -> dict[str, Claim]:
    """Returns the claims by name; without names all that are under gin/claims/."""
    folder = next((p / "claims" for p in config.search_paths() if (p / "claims").is_dir()), pathlib.Path("gin/claims"))
    known = {p.stem: p for p in sorted(folder.glob("*.gin")) if not p.stem.startswith("_")}
    paths = {}
    for name in names or known:
        path = known.get(name, pathlib.Path(name))
        if not path.is_file():
            raise UsageError(f"no claim {name!r}{did_you_mean(name, known)}")
        paths[path.stem] = path
    return {name: config.build(Claim, [str(path.resolve())])[0] for name, path in paths.items()}


def tell(claims: Mapping[str, Claim]) -> None:
    """Prints the claims and what they need."""
    cells = [["claim", "needs", "arms x seeds", "what it says"]]
    for name, claim in claims.items():
        size = f"{len(claim.arms)} x {len(claim.seeds)}" if claim.untestable is None else "not testable"
        cells.append([name, " ".join(f"--{n}" for n in sorted(claim.needs)) or "nothing", size, claim.title])
    print(report.align(cells))


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One claim, run in `folder` with what the user gave."""

    name: str
    claim: Claim
    folder: pathlib.Path
    given: Mapping[str, str | None]

    def run(self) -> dict[str, Any]:
        """Runs what is not done yet, and returns and writes what came out."""
        claim = self.claim
        if claim.untestable is not None:
            print(f"{self.name}: not testable: {claim.untestable}", flush=True)
            return self._result({}, [])
        for what in sorted(claim.needs):
            if not self.given.get(what):
                raise UsageError(f"claim {self.name} needs --{what}")
        with files.FolderLock(self.folder):
            self._lines("prepare", claim.prepare, self.folder / "prepare", {})
            scores: dict[str, dict[int, dict]] = {arm: {} for arm in claim.arms}
            for seed in claim.seeds:  # seed by seed: an early stop leaves all arms alike
                for arm, lines in claim.arms.items():
                    scores[arm][seed] = self._arm(arm, lines, seed)
            result = self._result(scores, [self._compare(c, scores) for c in claim.comparisons])
            files.write_json(self.folder / RESULT, result)
        print(f"\n{table(result)}\n", flush=True)
        return result

    def _arm(self, arm: str, lines: Sequence[str], seed: int) -> dict:
        """Returns {view: {mean or task/score: value}} of one arm with one seed."""
        run = self.folder / "arms" / arm.replace(" ", "-").replace("/", "-") / str(seed)
        dims = f" --dims={','.join(map(str, self.claim.dims))}" if self.claim.dims else ""
        tasks = f" --tasks={','.join(self.claim.tasks)}" if self.claim.tasks else ""
        score = f"evaluate model=$model --suite={self.claim.suite} --output=$run/scores --vectors=off{dims}{tasks}"
        self._lines(
            f"{arm}, seed {seed}",
            [*lines, score],
            run,
            {"run": str(run), "model": str(run / "model"), "seed": str(seed)},
        )
        found = files.read_json(run / "scores" / "results.json")
        own = found["models"]["model"]
        return {
            view: {
                **means,
                **{f"{task}/{s}": v for task, views in own["results"].items() for s, v in views[view].items()},
            }
            for view, means in own["means"].items()
        }

    def _lines(self, what: str, lines: Sequence[str], folder: pathlib.Path, places: Mapping[str, str]) -> None:
        """Runs the command lines that were not run to their end before; each must end without an error."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / DONE
        done = files.read_json(path)["lines"] if path.is_file() else []
        known = {"claim": str(self.folder), **{k: v for k, v in self.given.items() if v}, **places}
        wanted = [string.Template(line).substitute(known) for line in lines]
        if [d["line"] for d in done] != wanted[: len(done)]:
            raise DataError(
                f"{path}: was run with other lines than the claim has now; remove {folder} to run it anew, or give another "
                "--output"
            )
        for line in wanted[len(done) :]:
            print(f"{self.name}: {what}: embed {line}", flush=True)
            began = time.time()
            with open(folder / "log.txt", "a", encoding="utf-8") as log:
                log.write(f"\n$ embed {line}\n")
                log.flush()
                command = [sys.executable, "-m", "embed", *shlex.split(line)]
                code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
            if code:
                last = (folder / "log.txt").read_text(encoding="utf-8").strip().splitlines()[-1]
                raise DataError(
                    f"{self.name}: {what}: `embed {line}` ended with {code}: {last} (all of it: {folder}/log.txt)"
                )
            done.append({"line": line, "seconds": round(time.time() - began, 1)})
            files.write_json(path, {"lines": done})

    def _compare(self, comparison: Comparison, scores) -> dict[str, Any]:
        def values(arm: str) -> list[float]:
            found = []
            for seed in self.claim.seeds:
                views = scores[arm][seed]
                view = comparison.view or next(iter(views))
                if view not in views or comparison.metric not in views[view]:
                    where = views.get(view, views)
                    missing = view if view not in views else comparison.metric
                    raise DataError(
                        f"claim {self.name}: nothing called {missing!r} was scored{did_you_mean(missing, where)}"
                    )
                found.append(views[view][comparison.metric])
            return found

        better, than = values(comparison.better), values(comparison.than)
        difference = verdicts.paired(better, than)
        return {
            "comparison": comparison.name,
            "better": {"arm": comparison.better, "scores": better},
            "than": {"arm": comparison.than, "scores": than},
            "difference": list(difference.values),
            "mean": difference.mean,
            "deviation": difference.deviation,
            "interval": list(difference.interval),
            "least": comparison.least,
            "verdict": difference.verdict(comparison.least),
        }

    def _result(self, scores, comparisons: list[dict]) -> dict[str, Any]:
        found = {c["verdict"] for c in comparisons}
        if self.claim.untestable is not None:
            verdict = "not testable"
        elif found == {verdicts.REPRODUCED}:
            verdict = verdicts.REPRODUCED
        elif len(found) == 1:
            verdict = found.pop()
        else:
            held = sum(c["verdict"] == verdicts.REPRODUCED for c in comparisons)
            verdict = f"in part ({held} of {len(comparisons)})" if held else verdicts.WITHIN_NOISE
        return {
            "title": self.claim.title,
            "paper": self.claim.paper,
            "figure": self.claim.figure,
            "seeds": list(self.claim.seeds),
            "untestable": self.claim.untestable,
            "verdict": verdict,
            "comparisons": comparisons,
            "scores": scores,
            "seconds": self._seconds(),
        }

    def _seconds(self) -> float:
        """Returns how long all lines that were run took."""
        return sum(
            line["seconds"]
            for p in self.folder.rglob(DONE)
            for line in json.loads(p.read_text(encoding="utf-8"))["lines"]
        )


def _spread(scores: Sequence[float]) -> str:
    return f"{100 * np.mean(scores):.2f} ± {100 * np.std(scores, ddof=1):.2f}"


def _cells(result: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for c in result["comparisons"]:
        low, high = c["interval"]
        rows.append(
            [
                c["comparison"],
                f"{_spread(c['better']['scores'])}",
                f"{_spread(c['than']['scores'])}",
                f"{c['mean']:+.2f} ± {c['deviation']:.2f}",
                f"{low:+.2f} to {high:+.2f}",
                c["verdict"],
            ]
        )
    return rows


HEADER = ["comparison", "better", "than", "difference", "95 % interval", "verdict"]


def table(result: Mapping[str, Any]) -> str:
    """Returns one claim as markdown: what it says, the paper's figure, the comparisons and the verdict."""
    head = f"{result['title']}\n{result['paper']}: {result['figure']}"
    if result["untestable"] is not None:
        return f"{head}\nnot testable: {result['untestable']}"
    seeds, minutes = len(result["seeds"]), result["seconds"] / 60
    cells = report.align([HEADER, *_cells(result)])
    return f"{head}\n\n{cells}\n\nverdict: {result['verdict']} ({seeds} seeds, {minutes:.0f} minutes)"


def write_table(told: Mapping[str, Mapping[str, Any]], output: pathlib.Path) -> None:
    """Writes all claims that were run as one table."""
    rows = [["claim", "paper", "paper's figure", *HEADER]]
    for name, result in told.items():
        own = _cells(result) or [["-", "-", "-", "-", "-", f"not testable: {result['untestable']}"]]
        for number, cells in enumerate(own):
            first = [name, result["paper"], result["figure"]] if number == 0 else ["", "", ""]
            rows.append([*first, *cells])
    text = (
        "Scores in percent, mean and standard deviation over seeds; differences in points, paired by seed.\n\n"
        f"{report.align(rows)}\n"
    )
    output.mkdir(parents=True, exist_ok=True)
    files.write_atomic(output / "claims.md", text)
    print(f"wrote {output}/claims.md: {len(told)} claims")
