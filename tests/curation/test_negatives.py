"""Which neighbours become negatives: against a loop, and in the corners."""

import numpy as np
import pytest

from embed.curation.negatives import Rule, fuse
from embed.errors import UsageError

SCORES = np.array([0.9, 0.8, 0.8, 0.7, 0.6, 0.5, 0.4, -np.inf])
IDS = np.array([1, 2, 3, 2, 5, 6, 7, 8])
NONE = np.zeros(0, np.int64)


def taken(rule, scores=SCORES, ids=IDS, known=NONE, positive=1.0, number=0):
    candidates, ruled_out = rule.candidates(scores, ids, np.isin(ids, known), positive)
    return ids[rule.choose(candidates, number)].tolist(), ruled_out


def test_the_nearest_that_are_neither_known_nor_repeated_nor_too_near():
    # 1 scores 0.9 > 0.85; 3 is a positive; 2 comes twice
    assert taken(Rule(3, ceiling=0.85), known=np.array([3])) == ([2, 5, 6], 1)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (Rule(2, ceiling=None), [1, 2]),
        (Rule(2, ceiling=None, order="farthest"), [6, 7]),
        (Rule(2, 2, 3, None), [2, 3]),
        (Rule(9, 1, 4, None), [1, 2, 3, 5]),  # ranks are counted without the text that is repeated
        (Rule(9, ceiling=0.5), [6, 7]),
        (Rule(9, ceiling=None, margin=0.35), [5, 6, 7]),
        (Rule(9, ceiling=0.6, margin=0.5), [6, 7]),
        (Rule(1, ceiling=0.3), []),
    ],
)
def test_ranks_ceilings_margins_and_orders(rule, wanted):
    assert taken(rule)[0] == wanted


def test_a_positive_far_away_lowers_the_ceiling():
    assert taken(Rule(9, ceiling=0.95), positive=0.6) == ([6, 7], 4)
    # Of a positive below zero nothing is lower by a share; the margin still says what is.
    assert taken(Rule(9, ceiling=1.0), positive=-0.5) == ([], 6)


def test_known_positives_do_not_take_up_ranks():
    assert taken(Rule(1, 1, 1, None), known=np.array([1, 2]))[0] == [3]


def test_draws_are_spread_and_belong_to_seed_and_row():
    rule = Rule(2, 1, 6, None, order="random")
    draws = [tuple(taken(rule, number=n)[0]) for n in range(300)]
    assert draws == [tuple(taken(rule, number=n)[0]) for n in range(300)]
    assert len(set(draws)) == 15  # all pairs of six, best first
    assert draws != [tuple(taken(Rule(2, 1, 6, None, order="random", seed=1), number=n)[0]) for n in range(300)]


@pytest.mark.parametrize("seed", range(20))
def test_as_a_loop_says(seed):
    random = np.random.default_rng(seed)
    scores = np.sort(random.random(30))[::-1]
    ids, known = random.integers(0, 25, 30), random.integers(0, 25, 4)
    rule = Rule(int(random.integers(1, 5)), 2, 12, 0.9, 0.05, ["nearest", "farthest"][seed % 2])
    seen, ranked = set(), []
    for score, one in zip(scores, ids):
        if one not in known and one not in seen:
            ranked.append((score, one))
        seen.add(one)
    window = ranked[1:12]
    good = [one for score, one in window if score <= 0.9 * 0.8 and score <= 0.8 - 0.05]
    wanted = good[-rule.negatives :] if seed % 2 else good[: rule.negatives]
    assert taken(rule, scores, ids, known, 0.8) == (wanted, len(window) - len(good))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"negatives": 0}, "negatives = 0"),
        ({"first": 0}, "ranks 0 to 50"),
        ({"first": 9, "last": 3}, "ranks 9 to 3"),
        ({"order": "nearst"}, "nearst.*nearest, random, farthest"),
        ({"ceiling": 1.5}, "ceiling = 1.5"),
        ({"ceiling": 0.0}, "ceiling = 0.0"),
        ({"margin": -0.1}, "margin = -0.1"),
        ({"consistent": 0}, "consistent = 0"),
        ({"consistent": 60}, "consistent = 60: .* searched, 50"),
    ],
)
def test_wrong_rules_say_what_is_wrong(wrong, message):
    with pytest.raises(UsageError, match=message):
        Rule(**wrong)


@pytest.mark.parametrize(
    ("consistent", "positive", "kept"), [(1, 0.85, False), (2, 0.85, True), (1, 0.9, True), (3, 0.75, False)]
)
def test_a_pair_is_kept_when_few_texts_are_nearer_than_its_target(consistent, positive, kept):
    assert Rule(consistent=consistent).keeps(SCORES, IDS, IDS == 9, positive) == kept
    assert Rule().keeps(SCORES, IDS, IDS == 9, -1.0)
    # Another target of the same query is no rival.
    assert Rule(consistent=1).keeps(SCORES, IDS, IDS == 1, 0.85)


def test_reciprocal_ranks_are_added():
    one, two = np.array([0.9, 0.5, 0.1]), np.array([1.0, 3.0, 2.0])
    expected = [1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62]
    np.testing.assert_allclose(fuse(one, two), expected)
    np.testing.assert_allclose(fuse(one, constant=0.0), [1, 1 / 2, 1 / 3])
    np.testing.assert_allclose(fuse(np.array([2.0, 2.0, 1.0])), [1 / 61, 1 / 61, 1 / 63])


def test_a_nearer_text_that_comes_twice_is_one_rival():
    scores, ids = np.array([0.9, 0.9, 0.8]), np.array([5, 5, 6])
    none = np.zeros(3, bool)
    assert Rule(consistent=2).keeps(scores, ids, none, 0.85) and not Rule(consistent=2).keeps(scores, ids, none, 0.7)
