"""Draws of tasks against plain counting: which task, its own number, and how far any window is from the weights."""

import itertools
import math

import numpy as np
import pytest

from embed.data.turns import Turns

rng = np.random.default_rng(0)
WEIGHTS = {
    "one task": [1],
    "equal": [1, 1],
    "small whole numbers": [7, 3],
    "decimals": [0.29, 0.71],
    "sizes": rng.integers(1, 10_000, 30).tolist(),
    "irrational": np.sqrt(rng.integers(1, 10**6, 40)).tolist(),
    "one large and many small": [9_000] + [10] * 100,
    "two thousand tiny ones": [1_000_000] + [20] * 2_000,
}


def shares_of(weights) -> np.ndarray:
    return np.array(weights, float) / sum(weights)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("start", [0, 1_234_567, 10**12])
def test_a_draw_alone_and_a_stretch_of_draws_agree(name, start):
    turns = Turns(WEIGHTS[name], seed=3)
    tasks, numbers = turns.between(start, start + 9_000)
    for i in (0, 1, 17, 4_095, 4_096, 8_999):
        assert turns[start + i] == (tasks[i], numbers[i])


@pytest.mark.parametrize("name", WEIGHTS)
def test_numbers_within_a_task_count_its_draws_from_zero(name):
    turns = Turns(WEIGHTS[name], seed=5)
    tasks, numbers = turns.between(0, 20_000)
    counts = [0] * len(WEIGHTS[name])
    for task, number in zip(tasks, numbers):
        assert number == counts[task]
        counts[task] += 1
    assert turns.counts(20_000) == counts


@pytest.mark.slow
@pytest.mark.parametrize("name", WEIGHTS)
def test_every_window_follows_the_weights(name):
    """The largest difference of any window of 100,000 draws, or fewer, from its share of draws."""
    shares = shares_of(WEIGHTS[name])
    tasks, _ = Turns(WEIGHTS[name], seed=1).between(777, 100_777)
    groups = [[k] for k in range(min(len(shares), 40))] + [range(a, len(shares)) for a in range(1, len(shares), 7)]
    for group in groups:
        drawn = np.isin(tasks, list(group))
        excess = np.concatenate([[0], np.cumsum(drawn)]) - np.arange(len(tasks) + 1) * shares[list(group)].sum()
        assert excess.max() - excess.min() < 7


@pytest.mark.parametrize("weights", [[1, 1], [7, 3], [24, 8], [36, 4, 9], [9_000] + [10] * 100])
def test_whole_numbers_are_met_exactly_again_and_again(weights):
    period = sum(weights) // math.gcd(*weights)
    turns = Turns(weights)
    for repeat in (1, 2, 5):
        assert turns.counts(repeat * period) == [repeat * w // math.gcd(*weights) for w in weights]


def test_small_tasks_beside_a_large_one_are_drawn_in_a_short_run():
    """9,000 examples in one file and 10 in each of 100: 420 batches hold 42 of the small files, no two of them the same."""
    tasks, _ = Turns([9_000] + [10] * 100).between(0, 420)
    small = tasks[tasks > 0]
    assert 40 <= len(small) <= 44 and len(set(small)) == len(small)
    gaps = np.diff(np.flatnonzero(tasks > 0))
    assert gaps.max() <= 30


def test_many_tiny_tasks_get_what_was_asked_and_no_more():
    weights = WEIGHTS["two thousand tiny ones"]
    tasks, _ = Turns(weights).between(0, 10_000)
    assert abs(np.sum(tasks > 0) - 10_000 * shares_of(weights)[1:].sum()) < 5


def test_the_seed_decides_where_the_order_begins():
    first, again, other = (Turns([3, 2, 2], seed).between(0, 40)[0].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_another_machine_draws_the_same():
    """Golden values: an order that changes would change what a resumed run reads."""
    tasks, numbers = Turns([3, 2, 2], seed=0).between(0, 10)
    assert tasks.tolist() == GOLDEN_TASKS
    assert numbers.tolist() == [sum(t == task for t in GOLDEN_TASKS[:i]) for i, task in enumerate(GOLDEN_TASKS)]
    assert list(itertools.islice((Turns([0.1, 0.9], 7)[t][0] for t in itertools.count(10**9)), 12)) == GOLDEN_LATER


GOLDEN_TASKS = [0, 2, 1, 0, 0, 2, 1, 0, 2, 1]
GOLDEN_LATER = [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1]
