"""The next mixture to train, proposed from those that are trained: Bayesian optimisation with a Gaussian process.

Source: arXiv:2509.20354 s2.3, which gives the seeds and says that exploration and exploitation gave mixtures specialised in
different domains; the Gaussian process, its kernel and the turns below are our choice.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from embed.curation import simplex
from embed.errors import UsageError
from embed.metrics import higher_is_better

EXPLOIT, EXPLORE, SPECIALIZE, RANDOM = "exploit", "explore", "specialise", "random"
MIN_DISTANCE = 0.01  # our choice: the share of draws by which a proposal differs from every trial
_NOISE = 0.05  # our choice: the variance of a score between seeds of training, of that between mixtures
_ATTEMPTS = 4  # suggestions for one proposal, when the first is too near to a trial
_KAPPA = 2.0  # our choice: standard deviations that exploration adds to the expected score
_MIN_SCORED = 2  # trials with a score before a model of the scores says anything


@dataclasses.dataclass(frozen=True)
class Trial:
    """A mixture that is trained once.

    `kind` says where its rates come from, `goal` which score a proposal was to raise. `scores` are those of its best checkpoint,
    by metric, or None where it has none: it `failed`, for the reason given, or is still trained.
    """

    number: int
    kind: str
    rates: Mapping[str, float]
    goal: str | None = None
    scores: Mapping[str, float] | None = None
    failed: str | None = None

    @property
    def is_finished(self) -> bool:
        """Whether it is trained to its end, or has failed."""
        return self.scores is not None or self.failed is not None

    @property
    def how(self) -> str:
        """Where its rates come from, for people."""
        return f"{self.kind} {self.goal.replace('_', ' ')}" if self.kind == SPECIALIZE and self.goal else self.kind


def check_available() -> None:
    """Raises UsageError where the package that proposes is not installed."""
    try:
        import bayes_opt  # noqa: F401
    except ImportError as e:
        raise UsageError("--search=bayesian needs a package; run: pip install 'embed[tuning]'") from e


def value(trial: Trial, metric: str) -> float:
    """Returns the score of a trial by a metric, turned so that more is better; -inf where it has none."""
    score = (trial.scores or {}).get(metric)
    if score is None or not np.isfinite(score):
        return -np.inf
    return score if higher_is_better(metric) else -score


@dataclasses.dataclass(frozen=True)
class Proposer:
    """Proposes mixtures of the tasks `names` that score high by `metric`, and by each of `types`.

    Proposals take turns: one where the expected improvement of `metric` is largest (exploit), one where its upper confidence
    bound is (explore), and one where the expected improvement of a type is (specialise), type after type. A proposal is a
    function of `seed`, its index and the trials that it is given, on one machine and one version of the libraries; whoever needs
    it again writes it down.
    """

    names: Sequence[str]
    metric: str
    types: Sequence[str] = ()
    seed: int = 0

    def seeds(self, count: int) -> list[dict[str, float]]:
        """Returns random mixtures to begin with."""
        return simplex.dirichlet(self.names, count, np.random.default_rng([self.seed, 0]))

    def turn(self, index: int) -> tuple[str, str]:
        """Returns (kind, metric) of the proposal `index`, counted from 0."""
        others = [kind for kind in self.types if kind != self.metric] if len(self.types) > 1 else []
        cycle = [EXPLOIT, EXPLORE, *([SPECIALIZE] if others else [])]
        kind = cycle[index % len(cycle)]
        return kind, others[index // len(cycle) % len(others)] if kind == SPECIALIZE else self.metric

    def propose(self, index: int, trials: Sequence[Trial]) -> tuple[str, str, dict[str, float]]:
        """Returns (kind, metric, rates) of the proposal `index`, unlike any of `trials`.

        Trials that failed, and those that are still trained by others, count as the worst that was seen, so that neither is
        proposed again. Before two trials have a score the proposal is random.
        """
        kind, goal = self.turn(index)
        rng = np.random.default_rng([self.seed, 1, index])
        if sum(np.isfinite(value(trial, goal)) for trial in trials) < _MIN_SCORED:
            return RANDOM, goal, self._distinct(rng, trials)
        for attempt in dict.fromkeys((kind, EXPLORE)):
            for rates in self._suggestions(attempt, goal, trials, rng):
                if _is_new(rates, trials):
                    return attempt, goal, rates
        return RANDOM, goal, self._distinct(rng, trials)

    def _suggestions(
        self, kind: str, goal: str, trials: Sequence[Trial], rng: np.random.Generator
    ) -> Iterator[dict[str, float]]:
        """Yields mixtures where the acquisition function of a kind of proposal is largest.

        After the first, each is suggested as if those before had been trained and had scored what was expected.
        """
        from bayes_opt import BayesianOptimization, acquisition

        chosen_by = (
            acquisition.UpperConfidenceBound(kappa=_KAPPA) if kind == EXPLORE else acquisition.ExpectedImprovement(0.0)
        )
        # The library's parameters are a box; the kernel looks at the rates that its points stand for.
        keys = [str(number) for number in range(len(self.names))]
        state = int(rng.integers(2**31))
        optimizer = BayesianOptimization(
            None, dict.fromkeys(keys, (0.0, 1.0)), chosen_by, random_state=state, verbose=0
        )
        optimizer.set_gp_params(kernel=_kernel(), alpha=_NOISE, normalize_y=True)
        for point, score in _observations(trials, goal, self.names).items():
            optimizer.register(dict(zip(keys, point)), score)
        for _ in range(_ATTEMPTS):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the fit, where a length scale ends at its bound
                suggestion = optimizer.suggest()
            yield simplex.named(self.names, [suggestion[key] for key in keys])
            if np.array([suggestion[key] for key in keys]) in optimizer.space:
                return
            optimizer.register(suggestion, float(optimizer.predict(suggestion, fit_gp=False)))

    def _distinct(self, rng: np.random.Generator, trials: Sequence[Trial]) -> dict[str, float]:
        """Returns a random mixture that is not one of the trials; of many, the one that is farthest from them."""
        mixtures = simplex.dirichlet(self.names, 64, rng)
        return max(mixtures, key=lambda rates: min((simplex.distance(rates, t.rates) for t in trials), default=1.0))


def _is_new(rates: Mapping[str, float], trials: Sequence[Trial]) -> bool:
    return all(simplex.distance(rates, trial.rates) >= MIN_DISTANCE for trial in trials)


def _observations(trials: Sequence[Trial], goal: str, names: Sequence[str]) -> dict[tuple[float, ...], float]:
    """Returns {rates: score}, the worst score for trials without one."""
    scores = [value(trial, goal) for trial in trials]
    worst = min(score for score in scores if np.isfinite(score))
    points = [tuple(trial.rates[name] for name in names) for trial in trials]
    return {point: score if np.isfinite(score) else worst for point, score in zip(points, scores)}


def _kernel():
    """Returns a Matern kernel (nu 5/2) of the distances between the square roots of rates."""
    from sklearn.gaussian_process.kernels import Matern

    class OfRates(Matern):
        def __call__(self, X, Y=None, eval_gradient=False):
            others = None if Y is None else simplex.roots(Y)
            return super().__call__(simplex.roots(X), others, eval_gradient)

    return OfRates(nu=2.5, length_scale_bounds=(0.05, 5.0))
