"""The trials of a search on disk, and the loop that trains them: each once, by one process or by several that share a folder."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NotRequired, Protocol, TypedDict

from embed import documents, files, ranges
from embed.curation import specialists
from embed.curation.proposals import Proposer, Trial
from embed.errors import DataError, InUse
from embed.metrics import higher_is_better

TRIAL, RESULT = "trial.json", "result.json"
POLL_SECONDS = 2.0  # how often a process that has nothing to do looks for work


class TrialFailed(Exception):
    """A trial that has no score, such as one whose loss was not finite. It is written down and not trained again."""


class _Described(TypedDict):
    """What trial.json holds: `basis` are the trials that a proposal was made from, `pending` those that were in training."""

    kind: ranges.Text
    rates: dict[str, ranges.Positive]
    goal: NotRequired[str | None]
    basis: NotRequired[list[ranges.Count]]
    pending: NotRequired[list[ranges.Count]]


class Result(TypedDict):
    """What a run has come to: the best step, its score by the run's best metric, and all its scores by metric."""

    step: ranges.Natural
    score: float
    scores: dict[str, float]


class _Outcome(TypedDict, total=False):
    """What result.json of a mixture holds: a result, or why there is none."""

    step: ranges.Natural
    score: float
    scores: dict[str, float]
    failed: ranges.Text


class Train(Protocol):
    """Trains one run in a folder, or goes on with it, and returns its result. A run without a score raises TrialFailed."""

    def __call__(self, title: str, folder: pathlib.Path, bindings: Sequence[str]) -> Result: ...


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a search trains. `alone` maps tasks to the bindings of a run of that task alone; `grid(steps)` gives the first
    mixtures from the steps that those runs took, `grid_size` is how many they are, and `kind` what they are called. Then come the
    mixtures `random`, and `proposals` of the proposer. `bindings(rates)` are those of a run of a mixture."""

    alone: Mapping[str, Sequence[str]]
    grid: Callable[[Mapping[str, int]], Sequence[Mapping[str, float]]]
    grid_size: int
    kind: str
    random: Sequence[Mapping[str, float]]
    proposals: int
    proposer: Proposer
    bindings: Callable[[Mapping[str, float]], Sequence[str]]

    @property
    def seeds(self) -> int:
        """How many mixtures are trained before the first proposal."""
        return self.grid_size + len(self.random)

    @property
    def mixtures(self) -> int:
        """How many mixtures are trained in all."""
        return self.seeds + self.proposals


@dataclasses.dataclass(frozen=True)
class Search:
    """The runs of a plan in `folder`. Several processes may `work` on one at once.

    A run is trained by the process that holds the lock of its folder (flock, which file systems shared by hosts must have); when
    that process ends, however it ends, the next one that looks for work goes on with the run. A process takes the first run that
    is not finished and not held: tasks alone, seeds, then proposals. The rates of a proposal are written down before it is trained.

    What is deterministic: with one process, everything; it may be killed at any point. With several, the seeds are; a proposal
    depends on the trials that were finished, and those that were in training, when it was made (`basis` and `pending` in its
    trial.json), and so on which were faster.
    """

    folder: pathlib.Path
    plan: Plan
    train: Train

    def work(self) -> None:
        """Trains what nobody else does until all runs are finished. Raises DataError where all seeds failed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        finished = len(self.alone()) + len(self._finished())
        if finished:
            print(
                f"tune: going on; {finished} of {len(self.plan.alone) + self.plan.mixtures} runs are finished",
                flush=True,
            )
        is_waiting = False
        while True:
            self._check_seeds()
            with files.Lock(self.folder / ".plan.lock", self.folder, wait=lambda holder: None):
                claimed = self._claim()
            if claimed is not None:
                job, lock = claimed
                try:
                    job()
                finally:
                    lock.__exit__(None, None, None)
                is_waiting = False
            elif self._is_finished():
                return
            else:
                if not is_waiting:
                    print(
                        "tune: waiting for runs of other processes, which this one takes over if they end", flush=True
                    )
                is_waiting = True
                time.sleep(POLL_SECONDS)

    def trials(self) -> list[Trial]:
        """Returns the mixtures that are finished, that failed or that were begun, by number."""
        numbers = sorted(int(p.parent.name) for p in (self.folder / "mixtures").glob(f"[0-9]*/{TRIAL}"))
        return [self._read(number) for number in numbers]

    def alone(self) -> dict[str, Result]:
        """Returns the results of the tasks alone that are finished, by name."""
        paths = {name: self.alone_folder(name) / RESULT for name in self.plan.alone}
        return {name: documents.read_json(path, Result) for name, path in paths.items() if path.is_file()}

    def alone_folder(self, name: str) -> pathlib.Path:
        """Returns the folder of a task alone."""
        return self.folder / "alone" / str(list(self.plan.alone).index(name) + 1)

    def trial_folder(self, number: int) -> pathlib.Path:
        """Returns the folder of a mixture."""
        return self.folder / "mixtures" / str(number)

    def _read(self, number: int) -> Trial:
        described = documents.read_json(self.trial_folder(number) / TRIAL, _Described)
        path = self.trial_folder(number) / RESULT
        result = documents.read_json(path, _Outcome) if path.is_file() else {}
        return Trial(
            number,
            described["kind"],
            described["rates"],
            described.get("goal"),
            result.get("scores"),
            result.get("failed"),
        )

    def _claim(self) -> tuple[Callable[[], None], files.FolderLock] | None:
        """Returns the next job and the lock of its folder, which is held; None where all that can be begun is held."""
        for folder, job in self._begun_or_known():
            lock = _try_lock(folder)
            if lock is None:
                continue
            if not (folder / RESULT).is_file():  # the holder before may have finished it meanwhile
                return job, lock
            lock.__exit__(None, None, None)
        return self._claim_proposal()

    def _begun_or_known(self) -> Iterator[tuple[pathlib.Path, Callable[[], None]]]:
        """Yields the folders and jobs that are not finished and need no proposal."""
        for name in self.plan.alone:
            if not (self.alone_folder(name) / RESULT).is_file():
                yield self.alone_folder(name), lambda name=name: self._train_alone(name)
        begun = {trial.number: trial for trial in self.trials()}
        for trial in [*self._seeds(), *(begun[n] for n in begun if n > self.plan.seeds)]:
            trial = begun.get(trial.number, trial)
            if not trial.is_finished:
                yield self.trial_folder(trial.number), lambda trial=trial: self._train(trial, {})

    def _seeds(self) -> list[Trial]:
        """Returns the mixtures before the first proposal whose rates are known already."""
        alone = self.alone()
        known = []
        if len(alone) == len(self.plan.alone):
            grid = self.plan.grid({name: result["step"] for name, result in alone.items()})
            known = [Trial(number, self.plan.kind, rates) for number, rates in enumerate(grid, 1)]
        first = self.plan.grid_size + 1
        return [*known, *(Trial(number, "Dirichlet", rates) for number, rates in enumerate(self.plan.random, first))]

    def _claim_proposal(self) -> tuple[Callable[[], None], files.FolderLock] | None:
        """Returns a new proposal, once all seeds are begun and at least one is finished."""
        trials = self.trials()
        finished = [trial.number for trial in trials if trial.is_finished]
        if not self.plan.seeds <= len(trials) < self.plan.mixtures or not finished:
            return None
        number = len(trials) + 1
        kind, goal, rates = self.plan.proposer.propose(number - self.plan.seeds - 1, trials)
        pending = [t.number for t in trials if t.number not in finished]
        lock = files.FolderLock(self.trial_folder(number)).__enter__()
        basis = {"basis": finished, "pending": pending}
        trial = Trial(number, kind, rates, goal)
        self._describe(trial, basis)
        return (lambda: self._train(trial, basis)), lock

    def _describe(self, trial: Trial, basis: Mapping[str, Any]) -> None:
        described = {"kind": trial.kind, "rates": dict(trial.rates), "goal": trial.goal, **basis}
        files.write_json(self.trial_folder(trial.number) / TRIAL, described)

    def _train_alone(self, name: str) -> None:
        folder = self.alone_folder(name)
        try:
            result = self.train(f"{name} alone", folder, self.plan.alone[name])
        except TrialFailed as e:
            raise DataError(f"tune: {name} alone {e}; correct that, or leave the task out") from e
        files.write_json(folder / RESULT, result)

    def _train(self, trial: Trial, basis: Mapping[str, Any]) -> None:
        """Trains one mixture, and writes down what it scored or why it failed."""
        folder, metric = self.trial_folder(trial.number), self.plan.proposer.metric
        if not (folder / TRIAL).is_file():
            self._describe(trial, basis)
        title = f"mixture {trial.number} of {self.plan.mixtures} ({trial.how})"
        print(f"tune: {title}: {rates_text(trial.rates)}", flush=True)
        files.failpoint(f"tune.before_trial_{trial.number}")
        try:
            result = self.train(title, folder, self.plan.bindings(trial.rates))
            if not math.isfinite(result["scores"].get(metric, math.nan)):
                raise TrialFailed(f"has no finite score {metric!r}")
            files.write_json(folder / RESULT, result)
        except TrialFailed as e:
            files.write_json(folder / RESULT, {"failed": str(e)})
            print(f"tune: {title} failed: it {e}", flush=True)
            return
        best = specialists.best(self.trials(), metric)
        print(
            f"tune: {title}: {metric} {score_text(result['scores'][metric], metric)}; best so far "
            f"{score_text(best.scores[metric], metric)}, mixture {best.number} ({best.how})",
            flush=True,
        )
        files.failpoint(f"tune.after_trial_{trial.number}")

    def _is_finished(self) -> bool:
        return len(self._finished()) == self.plan.mixtures

    def _finished(self) -> list[int]:
        return [trial.number for trial in self.trials() if trial.is_finished]

    def _check_seeds(self) -> None:
        """Raises DataError where every seed was trained and failed."""
        seeds = [trial for trial in self.trials() if trial.number <= self.plan.seeds]
        if len(seeds) == self.plan.seeds and all(trial.failed is not None for trial in seeds):
            raise DataError(
                f"all {len(seeds)} mixtures that the search begins with failed; the first {seeds[0].failed}; correct that and "
                f"remove {self.folder}"
            )


def rates_text(rates: Mapping[str, float]) -> str:
    """Returns the rates of a mixture for people."""
    return ", ".join(f"{name} {rate:.3f}" for name, rate in rates.items())


def score_text(score: float | None, metric: str) -> str:
    """Returns a score for people: in percent, a loss as it is, a dash where there is none."""
    if score is None or not math.isfinite(score):
        return "-"
    return f"{100 * score:.2f}" if higher_is_better(metric) else f"{score:.4f}"


def _try_lock(folder: pathlib.Path) -> files.FolderLock | None:
    """Returns the lock of a folder, held, or None where another process holds it."""
    try:
        return files.FolderLock(folder).__enter__()
    except InUse:
        return None
