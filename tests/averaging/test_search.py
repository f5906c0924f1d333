"""Weights of soups by a held-out score: never worse than the best ingredient, and found where the best ones are known."""

import numpy as np
import pytest

from embed.averaging import search


def scored(function, calls=None):
    def score(weights):
        assert sum(weights) == pytest.approx(1) and min(weights) >= 0
        if calls is not None:
            calls.append(tuple(weights))
        return float(function(np.asarray(weights)))

    return score


def best(trials):
    return [t for t in trials if t.kept][-1]


def near(target):
    return lambda w: -np.sum((w - np.asarray(target)) ** 2)


def test_greedy_adds_what_does_not_hurt_in_the_order_of_the_scores():
    values = {(1, 0, 0): 0.5, (0, 1, 0): 0.7, (0, 0, 1): 0.6, (0, 0.5, 0.5): 0.65, (0.5, 0.5, 0): 0.7}
    calls, told = [], []
    trials = search.greedy(3, scored(lambda w: values[tuple(w)], calls), told.append)
    # 1 is best; with 2 it gets worse, with 0 it stays as good.
    assert calls == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0.5, 0.5), (0.5, 0.5, 0)]
    assert best(trials).weights == (0.5, 0.5, 0) and best(trials).score == 0.7
    assert [t.kept for t in trials] == [False, True, False, False, True]
    assert [t.weights for t in told] == calls


@pytest.mark.parametrize("method", ["greedy", "learned"])
@pytest.mark.parametrize("seed", range(5))
def test_the_soup_is_never_worse_than_its_best_ingredient(method, seed):
    target = np.random.default_rng(seed).dirichlet(np.ones(5) * 0.3)
    score = scored(near(target))
    trials = search.greedy(5, score) if method == "greedy" else search.learned(5, score, 40)
    assert best(trials).score >= max(t.score for t in trials[:5])
    assert best(trials).score == max(t.score for t in trials)


@pytest.mark.parametrize("target", [(0.2, 0.3, 0.5), (1.0, 0.0, 0.0), (0.5, 0.5, 0.0)])
def test_weights_are_learned(target):
    trials = search.learned(3, scored(near(target)), 200)
    np.testing.assert_allclose(best(trials).weights, target, atol=0.03)


def test_no_more_is_tried_than_is_allowed_and_nothing_twice():
    calls = []
    trials = search.learned(4, scored(near((0.1, 0.2, 0.3, 0.4)), calls), 12)
    assert len(trials) == len(calls) == 12
    assert len(set(calls)) == 12


def test_one_ingredient_is_its_own_soup():
    for trials in (search.greedy(1, scored(lambda w: 1.0)), search.learned(1, scored(lambda w: 1.0), 9)):
        assert best(trials).weights == (1.0,)
