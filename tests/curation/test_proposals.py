"""Proposals on known functions of the rates: better than the seeds, the same again, unlike what was tried."""

import builtins
import math

import pytest

from embed.curation import proposals, simplex
from embed.curation.proposals import EXPLOIT, EXPLORE, RANDOM, SPECIALIZE, Proposer, Trial, value
from embed.errors import UsageError

pytest.importorskip("bayes_opt")
NAMES = ["a", "b", "c"]
BEST = {"a": 0.6, "b": 0.3, "c": 0.1}


def scores(rates) -> dict[str, float]:
    """Two types that want other mixtures, and their mean, which is highest near BEST."""
    apart = sum((rates[name] - BEST[name]) ** 2 for name in NAMES)
    lean = 0.3 * (rates["a"] - BEST["a"])
    return {"x": 0.7 - apart + lean, "y": 0.5 - apart - lean, "mean": 0.6 - apart}


def searched(proposer: Proposer, seeds: int, count: int, trials=()) -> list[Trial]:
    """Returns the trials of a search that goes on from `trials`."""
    trials = list(trials) or [
        Trial(n, "Dirichlet", rates, scores=scores(rates)) for n, rates in enumerate(proposer.seeds(seeds))
    ]
    while len(trials) < count:
        kind, goal, rates = proposer.propose(len(trials) - seeds, trials)
        trials.append(Trial(len(trials), kind, rates, goal, scores(rates)))
    return trials


@pytest.fixture(scope="module")
def search() -> list[Trial]:
    return searched(Proposer(NAMES, "mean", ["x", "y"]), 5, 14)


@pytest.mark.slow
def test_the_search_beats_its_seeds_and_ends_near_the_best_mixture(search):
    best = {name: max(value(t, name) for t in search[:5]) for name in ("mean", "x", "y")}
    assert max(value(t, "mean") for t in search) > best["mean"] + 0.005
    assert max(value(t, "mean") for t in search) == pytest.approx(0.6, abs=0.002)
    for kind in ("x", "y"):  # those of the turns of each type
        own = [value(t, kind) for t in search if t.goal == kind]
        assert own and max(own) > best[kind]


@pytest.mark.slow
def test_the_search_goes_on_as_if_it_had_not_been_stopped(search):
    proposer = Proposer(NAMES, "mean", ["x", "y"])
    for stop in (5, 8):
        assert searched(proposer, 5, stop + 3, search[:stop]) == search[: stop + 3]


@pytest.mark.slow
def test_another_seed_proposes_other_mixtures(search):
    other = Proposer(NAMES, "mean", ["x", "y"], seed=1)
    assert other.seeds(5) != [t.rates for t in search[:5]]
    assert Proposer(NAMES, "mean").seeds(3) == Proposer(NAMES, "x").seeds(3)


@pytest.mark.slow
def test_all_proposals_differ(search):
    for i, one in enumerate(search):
        for other in search[i + 1 :]:
            assert simplex.distance(one.rates, other.rates) >= 0.01 or max(i, other.number) < 5


def test_proposals_take_turns():
    turns = [Proposer(NAMES, "mean", ["x", "y"]).turn(i) for i in range(7)]
    cycle = [(EXPLOIT, "mean"), (EXPLORE, "mean")]
    assert turns == [*cycle, (SPECIALIZE, "x"), *cycle, (SPECIALIZE, "y"), (EXPLOIT, "mean")]
    for types in ([], ["x"]):  # one type alone is the mean
        assert [Proposer(NAMES, "mean", types).turn(i)[0] for i in range(4)] == [EXPLOIT, EXPLORE] * 2
    assert {Proposer(NAMES, "x", ["x", "y", "z"]).turn(i)[1] for i in range(2, 30, 3)} == {"y", "z"}


@pytest.mark.slow
def test_exploring_goes_farther_than_exploiting(search):
    proposer = Proposer(NAMES, "mean")
    nearest = {}
    for kind in (EXPLOIT, EXPLORE):
        index = [EXPLOIT, EXPLORE].index(kind)
        proposed, _, rates = proposer.propose(index, search)
        assert proposed in (kind, EXPLORE)
        nearest[kind] = min(simplex.distance(rates, t.rates) for t in search)
    assert nearest[EXPLORE] > nearest[EXPLOIT]


@pytest.mark.slow
@pytest.mark.parametrize("failed", ["not finite", None])
def test_what_failed_or_is_still_trained_is_not_proposed_again(search, failed):
    proposer = Proposer(NAMES, "mean")
    _, _, rates = proposer.propose(0, search[:6])
    without = [*search[:6], Trial(6, EXPLOIT, rates, failed=failed)]
    _, _, other = proposer.propose(0, without)
    assert simplex.distance(rates, other) > 0.02


def test_less_of_a_loss_is_better():
    trials = [Trial(n, "", {}, scores={"validation/loss": loss}) for n, loss in enumerate((2.0, 1.0, math.nan))]
    assert [value(t, "validation/loss") for t in trials] == [-2.0, -1.0, -math.inf]
    assert value(Trial(0, "", {}, failed="x"), "mean") == value(trials[0], "mean") == -math.inf


def test_with_one_score_or_none_the_proposal_is_random():
    proposer = Proposer(NAMES, "mean")
    seeds = proposer.seeds(3)
    trials = [Trial(0, "", seeds[0], scores={"mean": 0.5}), *(Trial(n, "", seeds[n], failed="x") for n in (1, 2))]
    kind, _, rates = proposer.propose(0, trials)
    assert kind == RANDOM and min(simplex.distance(rates, seed) for seed in seeds) > 0.1
    assert proposer.propose(0, trials) == (kind, "mean", rates) != proposer.propose(1, trials)


def test_equal_scores_and_a_crowded_simplex_still_give_a_new_mixture():
    names = ["a", "b"]
    trials = [Trial(n, "", simplex.named(names, [n, 40 - n]), scores={"mean": 0.5}) for n in range(41)]
    _, _, rates = Proposer(names, "mean").propose(0, trials)
    assert all(rates != t.rates for t in trials) and sum(rates.values()) == pytest.approx(1.0, abs=1e-5)


def test_a_trial_says_how_it_was_proposed():
    assert Trial(0, SPECIALIZE, {}, "code_search").how == "specialise code search"
    assert Trial(0, EXPLOIT, {}, "mean").how == "exploit" and Trial(0, "grid", {}).how == "grid"


def test_the_missing_package_is_told_in_one_line(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "bayes_opt":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"run: pip install 'embed\[tuning\]'"):
        proposals.check_available()
