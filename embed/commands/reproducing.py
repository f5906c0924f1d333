"""The work of `embed reproduce`: arms and seeds scored where no record has them, differences judged, tables written."""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embed import config, files, markdown
from embed.commands.bench import Bench, digest
from embed.commands.claims import Claim, Comparison
from embed.errors import DataError, UsageError, did_you_mean
from embed.evaluation import report, verdicts

TABLE = "claims.md"


def read(names: Sequence[str]) -> dict[str, Claim]:
    """Returns the claims by name; without names all that are under gin/claims/."""
    folder = next((p / "claims" for p in config.search_paths() if (p / "claims").is_dir()), pathlib.Path("gin/claims"))
    known = {p.stem: p for p in sorted(folder.glob("*.gin"))}
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
    print(report.align(cells, markdown.printable))


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One claim, tried in `folder` with what the user gave; `record` is the file of what was measured.

    An arm and seed that the record has, made by the same lines, is not run: a record may come from another machine.
    """

    name: str
    claim: Claim
    folder: pathlib.Path
    record: pathlib.Path
    given: Mapping[str, str]
    digests: Mapping[str, str]

    def run(self) -> None:
        """Runs what is not measured yet, and keeps the record."""
        if self.claim.untestable is not None:
            print(f"{self.name}: not testable: {self.claim.untestable}", flush=True)
            return
        for what in sorted(self.claim.needs):
            if not self.given.get(what):
                raise UsageError(f"claim {self.name} needs --{what}")
        left = [(arm, seed) for seed in self.claim.seeds for arm in self.claim.arms if self._found(arm, seed) is None]
        if left:
            self._bench.prepare()
        else:
            print(f"{self.name}: measured before", flush=True)
        for arm, seed in left:  # seed by seed: an early stop leaves all arms alike
            self._keep(arm, seed, *self._bench.score(arm, seed))
        print(f"\n{table(self.result())}\n", flush=True)

    @property
    def is_kept(self) -> bool:
        """Whether there is a record of it, or nothing to record."""
        return self.record.is_file() or self.claim.untestable is not None

    @functools.cached_property
    def _bench(self) -> Bench:
        return Bench(self.claim, self.folder, self.given, self.digests, self.name)

    @property
    def _measured(self) -> dict[str, Any]:
        return files.read_json(self.record)["arms"] if self.record.is_file() else {}

    def _key(self, arm: str) -> str:
        """Returns the digest of all that decides the scores of an arm, but the seed."""
        return files.digest_json([self._bench.keys[arm], digest([self._bench.scoring], self.digests)])[:12]

    def _found(self, arm: str, seed: int) -> dict[str, Any] | None:
        own = self._measured.get(arm, {})
        return own["seeds"].get(str(seed)) if own.get("key") == self._key(arm) else None

    def _keep(self, arm: str, seed: int, results: Mapping[str, Any], seconds: float) -> None:
        """Adds the means and main scores of an arm with a seed to the record."""
        model = results["models"]["model"]
        wanted = {c.metric for c in self.claim.comparisons}
        scores: dict[str, dict[str, float]] = {}
        for view, means in model["means"].items():
            scores[view] = dict(means)
            for task, views in model["results"].items():
                main = results["tasks"][task]["main"]
                named = {f"{task}/{s}": value for s, value in views[view].items()}
                scores[view] |= {n: x for n, x in named.items() if n == f"{task}/{main}" or n in wanted}
        measured = self._measured
        if measured.get(arm, {}).get("key") != self._key(arm):
            measured[arm] = {"key": self._key(arm), "lines": list(self.claim.arms[arm]), "seeds": {}}
        environment = results["environment"]
        made_by = {k: environment[k] for k in ("embed", "python")} | {
            "jax": environment["packages"]["jax"],
            "device": environment["devices"]["kind"],
        }
        measured[arm]["seeds"][str(seed)] = {"seconds": round(seconds), **made_by, "scores": scores}
        self.record.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(self.record, {"title": self.claim.title, "arms": measured})

    def result(self) -> dict[str, Any]:
        """Returns what was measured so far, and the verdict once that is all."""
        claim = self.claim
        arms = {} if claim.untestable is not None else claim.arms
        found = {arm: {seed: self._found(arm, seed) for seed in claim.seeds} for arm in arms}
        runs = [x for own in found.values() for x in own.values()]
        complete = all(x is not None for x in runs)
        compared = [self._compare(c, found) for c in claim.comparisons] if complete and arms else []
        if claim.untestable is not None:
            verdict = f"not testable: {claim.untestable}"
        elif not complete:
            verdict = f"not measured yet ({sum(x is not None for x in runs)} of {len(runs)} runs)"
        else:
            verdict = _verdict(claim.comparisons, [c["verdict"] for c in compared])
        return {
            "title": claim.title,
            "paper": claim.paper,
            "figure": claim.figure,
            "note": claim.note,
            "seeds": list(claim.seeds),
            "verdict": verdict,
            "comparisons": compared,
            "seconds": sum(x["seconds"] for x in runs if x is not None),
        }

    def _compare(self, comparison: Comparison, found) -> dict[str, Any]:
        def values(arm: str) -> list[float]:
            scores = []
            for seed in self.claim.seeds:
                views = found[arm][seed]["scores"]
                view = comparison.view or next(iter(views))
                if view not in views or comparison.metric not in views[view]:
                    where = views.get(view, views)
                    missing = view if view not in views else comparison.metric
                    raise DataError(
                        f"claim {self.name}: nothing called {missing!r} was scored{did_you_mean(missing, where)}"
                    )
                scores.append(views[view][comparison.metric])
            return scores

        better, than = values(comparison.better), values(comparison.than)
        difference = verdicts.paired(better, than)
        return {
            "comparison": comparison.name,
            "better": better,
            "than": than,
            "mean": difference.mean,
            "deviation": difference.deviation,
            "interval": list(difference.interval),
            "verdict": _judge(comparison, difference),
        }


def _judge(comparison: Comparison, difference: verdicts.Difference) -> str:
    if comparison.kind == "no worse":
        return difference.no_worse(comparison.least)
    found = difference.verdict(comparison.least)
    return f"told only: {found}" if comparison.kind == "told" else found


def _verdict(comparisons: Sequence[Comparison], found: Sequence[str]) -> str:
    """Returns the verdict of a claim from those of the comparisons that it stands or falls by."""
    judged = [verdict for comparison, verdict in zip(comparisons, found) if comparison.kind != "told"]
    counts = collections.Counter(judged)
    if len(counts) == 1:
        return judged[0]
    return ", ".join(f"{number} of {len(judged)} {verdict}" for verdict, number in counts.most_common())


def _spread(scores: Sequence[float]) -> str:
    return f"{100 * np.mean(scores):.2f} ± {100 * np.std(scores, ddof=1):.2f}"


def _cells(result: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            c["comparison"],
            _spread(c["better"]),
            _spread(c["than"]),
            f"{c['mean']:+.2f} ± {c['deviation']:.2f}",
            f"{c['interval'][0]:+.2f} to {c['interval'][1]:+.2f}",
            c["verdict"],
        ]
        for c in result["comparisons"]
    ]


HEADER = ["comparison", "better", "than", "difference", "95 % interval", "verdict"]


def table(result: Mapping[str, Any]) -> str:
    """Returns one claim as markdown: what it says, the paper's figure, the comparisons and the verdict."""
    head = f"{result['title']}\n{result['paper']}: {result['figure']}"
    cells = f"\n\n{report.align([HEADER, *_cells(result)])}" if result["comparisons"] else ""
    spent = f" ({len(result['seeds'])} seeds, {result['seconds'] / 60:.0f} minutes)" if cells else ""
    note = f"\n{result['note']}" if result["note"] else ""
    return f"{head}{cells}\n\nverdict: {result['verdict']}{spent}{note}"


def write_table(told: Mapping[str, Mapping[str, Any]], folder: pathlib.Path) -> None:
    """Writes all claims as one file: a table of verdicts, then every claim with its comparisons."""
    rows = [["claim", "what it says", "the paper's figure", "verdict", "minutes"]]
    for name, result in told.items():
        minutes = f"{result['seconds'] / 60:.0f}" if result["seconds"] else "-"
        rows.append(
            [
                markdown.code_cell(name),
                result["title"],
                f"{result['paper']}: {result['figure']}",
                result["verdict"],
                minutes,
            ]
        )
    parts = [f"## {name}\n\n{table(result)}" for name, result in told.items() if result["comparisons"]]
    text = (
        "# Claims of the papers at small scale\n\n"
        "Made by `embed reproduce`; every number was measured. Scores in percent, mean and standard deviation over seeds; "
        "differences in points, paired by seed. A claim is reproduced where every seed agrees in sign, or the 95 % interval "
        "of the difference leaves out zero.\n\n"
        f"{report.align(rows)}\n\n" + "\n\n".join(parts)
    )
    folder.mkdir(parents=True, exist_ok=True)
    files.write_atomic(folder / TABLE, text.rstrip() + "\n")
    print(f"wrote {folder}/{TABLE}: {len(told)} claims")
