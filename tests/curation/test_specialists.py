"""Which mixtures of a search are kept."""

import math

from embed.curation.proposals import Trial
from embed.curation.specialists import best, choose


def trial(number: int, mean: float, **types: float) -> Trial:
    return Trial(number, "grid", {"a": number / 10, "b": 1 - number / 10}, scores={"mean": mean, **types})


TRIALS = [
    trial(0, 0.50, x=0.6, y=0.40),
    trial(1, 0.60, x=0.6, y=0.60),
    trial(2, 0.58, x=0.8, y=0.36),
    trial(3, 0.59, x=0.55, y=0.63),
    trial(4, 0.30, x=0.55, y=0.05, z=0.9),
    Trial(5, "grid", {"a": 0.5, "b": 0.5}, failed="not finite"),
]
TYPES = ["y", "x"]


def numbers(chosen) -> list[tuple[int, str]]:
    return [(one.number, metric) for one, metric in chosen]


def test_the_best_of_a_metric():
    assert best(TRIALS, "mean").number == 1 and best(TRIALS, "z").number == 4
    assert best(TRIALS, "nothing") is None and best([TRIALS[5]], "mean") is None
    assert best(TRIALS[:2], "x").number == 0  # of equals the first
    losses = [Trial(n, "", {"a": n}, scores={"validation/loss": x}) for n, x in enumerate((2.0, 1.0, math.nan))]
    assert best(losses, "validation/loss").number == 1


def test_the_best_comes_first_and_then_those_of_the_types_that_gain_most():
    assert numbers(choose(TRIALS, "mean", TYPES, 3)) == [(1, "mean"), (2, "x"), (3, "y")]
    assert numbers(choose(TRIALS, "mean", TYPES, 2)) == [(1, "mean"), (2, "x")]
    assert numbers(choose(TRIALS, "mean", TYPES, 1)) == [(1, "mean")]


def test_then_come_the_next_best():
    chosen = numbers(choose(TRIALS, "mean", TYPES, 9))
    assert chosen == [(1, "mean"), (2, "x"), (3, "y"), (0, "mean"), (4, "mean")]


def test_a_specialist_below_the_best_seed_is_left_to_the_end():
    assert numbers(choose(TRIALS, "mean", TYPES, 4, at_least=0.585)) == [
        (1, "mean"),
        (3, "y"),
        (2, "mean"),
        (0, "mean"),
    ]


def test_trials_of_the_same_rates_count_once():
    twin = Trial(6, "grid", TRIALS[1].rates, scores={"mean": 0.599, "x": 0.9, "y": 0.1})
    assert numbers(choose([*TRIALS, twin], "mean", ["x"], 2)) == [(1, "mean"), (3, "mean")]


def test_a_mixture_that_is_nearly_another_comes_last():
    near = Trial(6, "exploit", {"a": 0.11, "b": 0.89}, scores={"mean": 0.599, "x": 0.9, "y": 0.1})
    assert numbers(choose([*TRIALS, near], "mean", ["x"], 9))[-1] == (6, "x")
    assert numbers(choose([TRIALS[1], near], "mean", ["x"], 2)) == [(1, "mean"), (6, "x")]


def test_nothing_is_chosen_where_all_failed():
    assert choose([TRIALS[5]], "mean", TYPES, 3) == []
