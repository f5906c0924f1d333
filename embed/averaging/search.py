"""Weights of a soup chosen by a held-out score: greedily, or by searching the simplex. Source: arXiv:2203.05482 s2."""

import dataclasses
from collections.abc import Callable, Sequence

Score = Callable[[Sequence[float]], float]  # weights, one for each ingredient and summing to 1 -> score, more is better


@dataclasses.dataclass(frozen=True)
class Trial:
    """Weights that were tried, what they scored, and whether they were kept as the best so far."""

    weights: tuple[float, ...]
    score: float
    kept: bool


def alone(count: int, number: int) -> tuple[float, ...]:
    """Returns the weights that take one ingredient as it is."""
    return tuple(float(i == number) for i in range(count))


def uniform(members: Sequence[int], count: int) -> tuple[float, ...]:
    """Returns equal weights for some ingredients and none for the others."""
    return tuple((i in members) / len(members) for i in range(count))


def compared(
    count: int, score: Score, weights: Sequence[float], tell: Callable[[Trial], None] = lambda trial: None
) -> list[Trial]:
    """Returns what was tried: all ingredients alone, and the average with given weights, which is the soup."""
    trials = [*_alone(count, score, tell), Trial(tuple(weights), score(weights), True)]
    tell(trials[-1])
    return trials


def greedy(count: int, score: Score, tell: Callable[[Trial], None] = lambda trial: None) -> list[Trial]:
    """Returns what was tried: all ingredients alone, then, best first, each added where the uniform average gets no worse.

    The last kept trial is the soup; it scores at least as high as the best ingredient.
    """
    trials = _alone(count, score, tell)
    order = sorted(range(count), key=lambda i: -trials[i].score)
    members, best = [order[0]], trials[order[0]].score
    for number in order[1:]:
        weights = uniform([*members, number], count)
        value = score(weights)
        trials.append(Trial(weights, value, value >= best))
        tell(trials[-1])
        if value >= best:
            members, best = [*members, number], value
    return _with_first_kept(trials, order[0])


def learned(count: int, score: Score, trials: int, tell: Callable[[Trial], None] = lambda trial: None) -> list[Trial]:
    """Returns what was tried, at most `trials`: ingredients alone, the uniform average, then steps from the best so far.

    A step moves the weights towards one ingredient or away from it; where none helps, steps are halved. No gradient is
    needed, as of the scores of a suite there is none. The last kept trial is the soup.
    """
    tried = _alone(count, score, tell)
    best = max(range(count), key=lambda i: tried[i].score)
    current = tried[best]
    tried = _with_first_kept(tried, best)
    seen = {t.weights for t in tried}
    step = 0.5

    def attempt(weights) -> bool:
        nonlocal current
        if weights in seen or len(tried) >= trials:
            return False
        seen.add(weights)
        value = score(weights)
        tried.append(Trial(weights, value, value > current.score))
        tell(tried[-1])
        if tried[-1].kept:
            current = tried[-1]
        return tried[-1].kept

    attempt(uniform(range(count), count))
    while step > 0.01 and len(tried) < trials:
        helped = [attempt(_moved(current.weights, i, sign * step)) for sign in (1, -1) for i in range(count)]
        if not any(helped):
            step /= 2
    return tried


def _moved(weights: Sequence[float], number: int, step: float) -> tuple[float, ...]:
    """Returns the weights moved towards an ingredient by the share `step`, or away from it, none below zero."""
    moved = [max((1 - step) * w + step * (i == number), 0.0) for i, w in enumerate(weights)]
    total = sum(moved)
    return tuple(round(w / total, 12) for w in moved) if total > 0 else tuple(weights)


def _alone(count: int, score: Score, tell) -> list[Trial]:
    trials = []
    for number in range(count):
        trials.append(Trial(alone(count, number), score(alone(count, number)), False))
        tell(trials[-1])
    return trials


def _with_first_kept(trials: list[Trial], number: int) -> list[Trial]:
    trials[number] = dataclasses.replace(trials[number], kept=True)
    return trials
