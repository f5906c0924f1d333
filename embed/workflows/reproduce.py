"""The work of `embed reproduce`: arms and seeds scored where no record has them, differences judged, tables written."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embed import config, documents, files, gin_statements, markdown
from embed.errors import DataError, UsageError, did_you_mean
from embed.evaluation import report, verdicts
from embed.workflows.bench import Bench, digest, digest_given
from embed.workflows.claims import Claim, Comparison

TABLE = "claims.md"
# The least seeds that claims are judged by, also while others are still to be measured.
MIN_SEEDS = 3


def run(
    claims: Sequence[str] = (),
    output="runs/claims",
    *,
    data=None,
    pictures=None,
    source: str | None = None,
    record=None,
    table_only: bool = False,
) -> None:
    """Runs the arms and seeds of claims, names or gin files (default: all), and writes the table of what holds.

    `data` is the folder of pairs and suites, `pictures` that of the sets of launch/image_data.sh, `source` the model that some
    claims start from or mine with. `record` is the folder of what was measured (default: `output`), which is not run again.
    `table_only` judges the record and runs nothing.
    """
    chosen = read(claims)
    output, record = pathlib.Path(output), pathlib.Path(record or output)
    given = {name: value for name, value in (("data", data), ("pictures", pictures), ("source", source)) if value}
    for name in ("data", "pictures"):
        if name in given and not pathlib.Path(given[name]).is_dir():
            raise UsageError(f"--{name}={given[name]}: no such folder")
    with contextlib.nullcontext() if table_only else files.FolderLock(output):
        digests = digest_given(given)
        experiments = {
            name: Experiment(name, claim, output, record / f"{name}.json", given, digests, name in chosen)
            for name, claim in {**read([]), **chosen}.items()
        }
        for name in chosen:
            if table_only:
                experiments[name].check_given()
                experiments[name].check_record()
            else:
                experiments[name].run()
                _write_table(experiments, chosen, record)
        if table_only:
            _write_table(experiments, chosen, record)


def _write_table(experiments, chosen, record: pathlib.Path) -> None:
    """Writes the table of the chosen claims and of those that were measured before."""
    write_table({n: e.result() for n, e in experiments.items() if n in chosen or e.is_kept}, record)


def read(names: Sequence[str]) -> dict[str, Claim]:
    """Returns the claims by name; without names all that are under gin/claims/."""
    folder = next(
        (p / "claims" for p in gin_statements.search_paths() if (p / "claims").is_dir()), pathlib.Path("gin/claims")
    )
    known = {p.stem: p for p in sorted(folder.glob("*.gin"))}
    paths = {}
    for name in names or known:
        path = known.get(name, pathlib.Path(name))
        if not path.is_file():
            raise UsageError(f"no claim {name!r}{did_you_mean(name, known)}")
        paths[path.stem] = path
    return {name: config.build(Claim, [str(path.resolve())])[0] for name, path in paths.items()}


def print_list(claims: Mapping[str, Claim]) -> None:
    """Prints the claims and what they need."""
    cells = [["claim", "needs", "arms x seeds", "what it says"]]
    for name, claim in claims.items():
        size = f"{len(claim.arms)} x {len(claim.seeds)}" if claim.untestable is None else "not testable"
        cells.append([name, " ".join(f"--{n}" for n in sorted(claim.needs)) or "nothing", size, claim.title])
    print(report.align(cells, markdown.printable))


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One claim, tried in `folder` with what the user gave; `record` is the file of what was measured.

    An arm and seed that the record has, made by the same lines, is not run: a record may come from another machine. A claim that
    is not `chosen` is judged by its record, whatever the user gave to the others.
    """

    name: str
    claim: Claim
    folder: pathlib.Path
    record: pathlib.Path
    given: Mapping[str, str]
    digests: Mapping[str, str]
    chosen: bool = True

    def run(self) -> None:
        """Runs what is not measured yet, and keeps the record."""
        if self.claim.untestable is not None:
            print(f"{self.name}: not testable: {self.claim.untestable}", flush=True)
            return
        self.check_given()
        missing = [
            (arm, seed) for seed in self.claim.seeds for arm in self.claim.arms if self._recorded(arm, seed) is None
        ]
        if missing:
            self._bench.prepare()
        else:
            print(f"{self.name}: measured before", flush=True)
        for arm, seed in missing:  # seed by seed: an early stop leaves all arms with the same seeds
            self._keep(arm, seed, *self._bench.score(arm, seed))
        print(f"\n{table(self.result())}\n", flush=True)

    def check_given(self) -> None:
        """Raises UsageError for what the claim needs and the user did not give."""
        for name in sorted(self.claim.needs) if self.claim.untestable is None else ():
            if not self.given.get(name):
                raise UsageError(f"claim {self.name} needs --{name}")

    def check_record(self) -> None:
        """Raises DataError for an arm of the record that was measured with other inputs, which a table would leave out."""
        for arm, record in self._measured.items():
            if arm in self.claim.arms and record.get("key") != self._key(arm):
                raise DataError(
                    f"{self.record}: {arm!r} was measured with another --data, --pictures, --source or claim than these; give "
                    "those, or run the claim again without --table"
                )

    @property
    def is_kept(self) -> bool:
        """Whether there is a record of it, or nothing to record."""
        return self.record.is_file() or self.claim.untestable is not None

    @functools.cached_property
    def _bench(self) -> Bench:
        return Bench(self.claim, self.folder, self.given, self.digests, self.name)

    @property
    def _measured(self) -> dict[str, Any]:
        return documents.read_json(self.record)["arms"] if self.record.is_file() else {}

    def _key(self, arm: str) -> str:
        """Returns the digest of all that decides the scores of an arm, but the seed."""
        return documents.digest_json([self._bench.keys[arm], digest([self._bench.scoring], self.digests)])[:12]

    def _recorded(self, arm: str, seed: int) -> dict[str, Any] | None:
        record = self._measured.get(arm, {})
        if self.chosen:
            same = record.get("key") == self._key(arm)
        else:
            made_by = {"lines": list(self.claim.arms[arm]), "scoring": self._bench.scoring}
            same = all(record.get(name, value) == value for name, value in made_by.items())
        return record["seeds"].get(str(seed)) if same else None

    def _keep(self, arm: str, seed: int, results: Mapping[str, Any], seconds: float) -> None:
        """Adds the means and main scores of an arm with a seed to the record."""
        model = results["models"]["model"]
        metrics = {c.metric for c in self.claim.comparisons}
        scores: dict[str, dict[str, float]] = {}
        for view, means in model["means"].items():
            scores[view] = dict(means)
            for task, views in model["results"].items():
                main = results["tasks"][task]["main"]
                named = {f"{task}/{s}": value for s, value in views[view].items()}
                scores[view] |= {n: x for n, x in named.items() if n == f"{task}/{main}" or n in metrics}
        measured = self._measured
        if measured.get(arm, {}).get("key") != self._key(arm):
            lines, scoring = list(self.claim.arms[arm]), self._bench.scoring
            measured[arm] = {"key": self._key(arm), "lines": lines, "scoring": scoring, "seeds": {}}
        environment = results["environment"]
        made_by = {k: environment[k] for k in ("embed", "python")} | {
            "jax": environment["packages"]["jax"],
            "device": environment["devices"]["kind"],
        }
        measured[arm]["seeds"][str(seed)] = {"seconds": round(seconds), **made_by, "scores": scores}
        self.record.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(self.record, {"title": self.claim.title, "arms": measured})

    def result(self) -> dict[str, Any]:
        """Returns what was measured so far, with a verdict from the seeds that all arms have, if those are at least three."""
        claim = self.claim
        arms = {} if claim.untestable is not None else claim.arms
        records = {arm: {seed: self._recorded(arm, seed) for seed in claim.seeds} for arm in arms}
        runs = [x for by_seed in records.values() for x in by_seed.values()]
        seeds = [s for s in claim.seeds if arms and all(records[arm][s] is not None for arm in arms)]
        compared = [self._compare(c, records, seeds) for c in claim.comparisons] if len(seeds) >= MIN_SEEDS else []
        if claim.untestable is not None:
            verdict = f"not testable: {claim.untestable}"
        elif not compared:
            verdict = f"not measured yet ({sum(x is not None for x in runs)} of {len(runs)} runs)"
        else:
            verdict = _verdict(claim.comparisons, [c["verdict"] for c in compared])
            if len(seeds) < len(claim.seeds):
                verdict += f"; {len(seeds)} of {len(claim.seeds)} seeds measured so far"
        return {
            "title": claim.title,
            "paper": claim.paper,
            "figure": claim.figure,
            "note": claim.note,
            "seeds": seeds,
            "verdict": verdict,
            "comparisons": compared,
            "seconds": sum(x["seconds"] for x in runs if x is not None),
        }

    def _compare(self, comparison: Comparison, records, seeds: Sequence[int]) -> dict[str, Any]:
        better, than = (
            [self._score(records[arm][seed], comparison) for seed in seeds]
            for arm in (comparison.better, comparison.than)
        )
        difference = verdicts.paired(than, better) if comparison.is_error else verdicts.paired(better, than)
        return {
            "comparison": comparison.name,
            "better": better,
            "than": than,
            "mean": difference.mean,
            "deviation": difference.deviation,
            "interval": list(difference.interval),
            "verdict": _judge(comparison, difference),
        }

    def _score(self, record: Mapping[str, Any], comparison: Comparison) -> float:
        """Returns the score of one arm with one seed that the comparison is about."""
        views = record["scores"]
        view = comparison.view or next(iter(views))
        if comparison.from_view is None:
            return self._at_view(views, view, comparison.metric)
        return self._at_view(views, view, comparison.metric) - self._at_view(
            views, comparison.from_view, comparison.metric
        )

    def _at_view(self, views: Mapping[str, Any], view: str, metric: str) -> float:
        if view not in views:
            missing, known = view, views
        elif metric not in views[view]:
            missing, known = metric, views[view]
        else:
            return views[view][metric]
        raise DataError(f"claim {self.name}: nothing called {missing!r} was scored{did_you_mean(missing, known)}")


def _judge(comparison: Comparison, difference: verdicts.Difference) -> str:
    if comparison.kind == "no worse":
        return difference.no_worse(comparison.least)
    verdict = difference.verdict(comparison.least)
    return f"not judged: {verdict}" if comparison.kind == "shown" else verdict


def _verdict(comparisons: Sequence[Comparison], judgements: Sequence[str]) -> str:
    """Returns the verdict of a claim from those of the comparisons that it stands or falls by."""
    judged = [verdict for comparison, verdict in zip(comparisons, judgements) if comparison.kind != "shown"]
    if len(set(judged)) == 1:
        return judged[0]
    counts = {verdict: judged.count(verdict) for verdict in verdicts.ORDER if verdict in judged}
    # A verdict may hold a comma itself.
    return "; ".join(f"{count} of {len(judged)} {verdict}" for verdict, count in counts.items())


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


EXPLANATION = (
    "Made by `embed reproduce`; every number was measured. Scores in percent, mean and standard deviation over seeds; "
    "differences in points, paired by seed, with the 95 % interval of their mean (Student's t). The interval decides. "
    "*Reproduced*: it leaves out zero on the claimed side, or, where the claim is 'no worse' (>=), it lies within the margin. "
    "*Reversed*: it lies on the other side. *Same sign, within noise*: every seed is on the claimed side, but the interval is "
    "not; *opposite sign, within noise*: every seed is on the other side. *Not reproduced*: the seeds disagree. "
    "*Smaller than claimed*: better, but by fewer points than the claim asks for."
)
HEADER = ["comparison", "better", "than", "difference", "95 % interval", "verdict"]


def table(result: Mapping[str, Any]) -> str:
    """Returns one claim as markdown: what it says, the paper's figure, the comparisons and the verdict."""
    head = f"{result['title']}\n{result['paper']}: {result['figure']}"
    cells = f"\n\n{report.align([HEADER, *_cells(result)])}" if result["comparisons"] else ""
    spent = f" ({len(result['seeds'])} seeds, {result['seconds'] / 60:.0f} minutes)" if cells else ""
    note = f"\n{result['note']}" if result["note"] else ""
    return f"{head}{cells}\n\nverdict: {result['verdict']}{spent}{note}"


def write_table(results: Mapping[str, Mapping[str, Any]], folder: pathlib.Path) -> None:
    """Writes all claims as one file: a table of verdicts, then every claim with its comparisons."""
    rows = [["claim", "what it says", "the paper's figure", "verdict", "seeds", "minutes"]]
    for name, result in results.items():
        minutes = f"{result['seconds'] / 60:.0f}" if result["seconds"] else "-"
        seeds = str(len(result["seeds"])) if result["comparisons"] else "-"
        figure = f"{result['paper']}: {result['figure']}"
        rows.append([markdown.code_cell(name), result["title"], figure, result["verdict"], seeds, minutes])
    parts = [f"## {name}\n\n{table(result)}" for name, result in results.items() if result["comparisons"]]
    text = f"# Claims of the papers at small scale\n\n{EXPLANATION}\n\n{report.align(rows)}\n\n" + "\n\n".join(parts)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_atomic(folder / TABLE, text.rstrip() + "\n")
    print(f"wrote {folder}/{TABLE}: {len(results)} claims")
