"""Scores of ranked lists against slow loops written from their definitions, and against values computed by hand."""

import math
import random

import numpy as np
import pytest

from embed.evaluation import ranking


def slow_ndcg(found, judged, k) -> float:
    def dcg(gains):
        total = 0.0
        for place, gain in enumerate(gains):
            if place < k:
                total += gain / math.log2(place + 2)
        return total

    best = dcg(sorted([g for g in judged.values() if g > 0], reverse=True))
    return dcg([judged.get(i, 0) if judged.get(i, 0) > 0 else 0 for i in found]) / best if best > 0 else 0.0


def slow_reciprocal_rank(found, judged, k) -> float:
    for place in range(min(k, len(found))):
        if judged.get(found[place], 0) > 0:
            return 1.0 / (place + 1)
    return 0.0


def slow_recall(found, judged, k) -> float:
    wanted = [i for i in judged if judged[i] > 0]
    return len([i for i in wanted if i in found[:k]]) / len(wanted) if wanted else 0.0


def slow_precision(found, judged, k) -> float:
    hits = 0
    for place in range(min(k, len(found))):
        hits += judged.get(found[place], 0) > 0
    return hits / k


def slow_average_precision(found, judged, k) -> float:
    wanted = [i for i in judged if judged[i] > 0]
    total = 0.0
    for i in wanted:
        if i in found[:k]:
            total += slow_precision(found, judged, found.index(i) + 1)
    return total / len(wanted) if wanted else 0.0


SLOW = {
    "ndcg": slow_ndcg,
    "map": slow_average_precision,
    "recall": slow_recall,
    "precision": slow_precision,
    "mrr": slow_reciprocal_rank,
    "hit_rate": lambda found, judged, k: float(slow_recall(found, judged, k) > 0),
}


def random_case(seed: int):
    """Returns a ranking of some documents and graded judgements, zeros and negative grades among them."""
    draw = random.Random(seed)
    documents = [f"d{i}" for i in range(draw.randint(1, 140 if seed % 10 == 0 else 40))]
    judged = {d: draw.choice([-1, 0, 1, 1, 2, 3, 0.5]) for d in draw.sample(documents, draw.randint(0, len(documents)))}
    judged |= {f"unranked{i}": draw.choice([0, 1, 2]) for i in range(draw.randint(0, 4))}
    return draw.sample(documents, draw.randint(0, len(documents))), judged


@pytest.mark.parametrize("seed", range(60))
def test_every_measure_equals_the_slow_one_at_every_cut(seed):
    found, judged = random_case(seed)
    assert set(ranking.MEASURES) == set(SLOW)
    for name, measure in ranking.MEASURES.items():
        for k in (*ranking.CUTS, 2, 7):
            assert measure(found, judged, k) == pytest.approx(SLOW[name](found, judged, k), abs=1e-12), (name, k)


def test_hand_values():
    judged = {"a": 1, "b": 2, "c": 1}
    found = ["x", "b", "y", "a"]
    # DCG = 2 / log2(3) + 1 / log2(5); ideal = 2 + 1 / log2(3) + 1 / log2(4)
    assert ranking.ndcg(found, judged, 10) == pytest.approx(1.6925363 / 3.1309298, abs=1e-6)
    assert ranking.ndcg(found, judged, 2) == pytest.approx(1.2618595 / 2.6309298, abs=1e-6)
    assert ranking.ndcg(["b", "a", "c"], judged, 10) == 1.0
    assert ranking.reciprocal_rank(found, judged, 10) == 0.5
    assert ranking.reciprocal_rank(found, judged, 1) == 0.0
    assert ranking.recall(found, judged, 10) == pytest.approx(2 / 3)
    assert ranking.recall(found, judged, 2) == pytest.approx(1 / 3)
    assert ranking.precision(found, judged, 3) == pytest.approx(1 / 3)
    assert ranking.precision(found, judged, 10) == pytest.approx(0.2)  # a short list is filled with misses
    # b at rank 2 has precision 1/2, a at rank 4 has 2/4, c is not found.
    assert ranking.average_precision(found, judged, 10) == pytest.approx((1 / 2 + 2 / 4 + 0) / 3)
    assert ranking.average_precision(found, judged, 3) == pytest.approx((1 / 2) / 3)


def test_gain_is_linear_in_the_grade():
    found = ranking.ndcg(["low", "high"], {"low": 1, "high": 3}, 10)
    assert found == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("judged", [{}, {"a": 0}, {"a": -1}])
def test_nothing_relevant_scores_zero(name, judged):
    assert ranking.MEASURES[name](["a"], judged, 10) == 0.0


@pytest.mark.parametrize("name", SLOW)
def test_an_empty_ranking_scores_zero(name):
    assert ranking.MEASURES[name]([], {"a": 1}, 10) == 0.0


# ranked


def test_ties_go_by_falling_id():
    assert ranking.ranked(["a", "c", "b", "d"], [0.5, 0.5, 0.5, 0.7]) == ["d", "c", "b", "a"]
    assert ranking.ranked(["9", "10"], [1, 1]) == ["9", "10"]  # ids are texts
    assert ranking.ranked([], []) == []


@pytest.mark.parametrize("seed", range(10))
def test_the_order_found_in_does_not_matter(seed):
    draw = random.Random(seed)
    pairs = [(f"d{i}", draw.choice([0.1, 0.2, 0.3])) for i in range(30)]
    wanted = [i for i, _ in sorted(sorted(pairs, reverse=True), key=lambda p: -p[1])]
    draw.shuffle(pairs)
    ids, scores = zip(*pairs)
    assert ranking.ranked(ids, np.array(scores, np.float32)) == wanted


# scores


def test_scores_hold_a_value_for_every_judged_query_in_order():
    cases = {f"q{i}": random_case(i) for i in range(40)}
    rankings = {q: found for q, (found, _) in cases.items()}
    qrels = {q: judged for q, (_, judged) in cases.items() if q != "q7"}
    asked = [q for q in rankings if any(g > 0 for g in qrels.get(q, {}).values())]
    assert 0 < len(asked) < 40
    found = ranking.scores(rankings, qrels)
    assert set(found) == {f"{name}_at_{k}" for name in SLOW for k in (1, 3, 5, 10, 20, 100, 1000)} | {"accuracy"}
    assert set(found) == set(ranking.score_names())
    assert list(found.pop("accuracy")) == list(found["recall_at_1"])
    for key, values in found.items():
        name, k = key.split("_at_")
        wanted = [SLOW[name](rankings[q], qrels[q], int(k)) for q in asked]
        np.testing.assert_allclose(values, wanted, atol=1e-12, err_msg=key)


def test_queries_without_a_judgement_do_not_count_and_those_without_a_relevant_document_score_zero():
    rankings = {"q1": ["a"], "q2": ["a"], "q3": ["a"], "q4": ["a"]}
    found = ranking.scores(rankings, {"q1": {"a": 1}, "q2": {"a": 0}, "q3": {}})
    assert all(list(values) == [1.0, 0.0] for key, values in found.items() if key.endswith("_at_1"))


def test_no_judged_query_at_all_has_no_value():
    assert all(len(values) == 0 for values in ranking.scores({"q1": ["a"]}, {"q1": {}}).values())


# p-MRR


@pytest.mark.parametrize(
    "old, new, wanted",
    [(1, 2, 0.5), (2, 1, -0.5), (3, 3, 0.0), (1, 1, 0.0), (1, 10, 0.9), (10, 1, -0.9), (4, 5, 0.2), (5, 4, -0.2)],
)
def test_rank_change_is_above_zero_when_a_document_sank(old, new, wanted):
    assert ranking.rank_change(old, new) == pytest.approx(wanted)


def test_the_instruction_change_of_a_query_is_the_mean_over_its_changed_documents():
    before = {"q": ["a", "b", "c", "d"], "r": ["a", "b"]}
    after = {"q": ["c", "b", "d", "a"], "r": ["b", "a"]}
    # a sinks from 1 to 4, c rises from 3 to 1, b stays.
    found = ranking.instruction_change(before, after, {"q": ["a", "c", "b"], "r": ["a"]})
    assert found == pytest.approx([((1 - 1 / 4) + (1 / 3 - 1) + 0) / 3, 0.5])
    assert found.dtype == np.float64


def test_a_document_that_was_not_ranked_counts_as_behind_the_last():
    found = ranking.instruction_change({"q": ["a", "b"]}, {"q": ["b"]}, {"q": ["a"]})
    assert found == pytest.approx([0.5])  # from rank 1 to rank 2, one behind the only one
    found = ranking.instruction_change({"q": ["a", "b", "c"]}, {"q": ["x", "a"]}, {"q": ["x"]})
    assert found == pytest.approx([1 / 4 - 1])


def test_a_query_whose_new_instruction_changes_nothing_has_no_p_mrr():
    found = ranking.instruction_change(
        {"q": ["a"], "r": ["a", "b"]}, {"q": ["a"], "r": ["b", "a"]}, {"q": [], "r": ["a"]}
    )
    assert list(found) == [0.5]


# answer_within


PASSAGES = [["The", "fox", "ran", "."], ["It", "saw", "New", "York", "."], ["Paris"]]


@pytest.mark.parametrize(
    "answers, tokens, wanted",
    [
        (["fox"], 2, True),
        (["fox"], 1, False),
        (["New York"], 8, True),
        (["New York"], 7, False),  # the limit falls between the two words
        (["Paris"], 9, False),
        (["Paris"], 10, True),
        (["Paris"], 5000, True),
        (["nowhere", "saw"], 6, True),
        (["nowhere"], 5000, False),
        ([". It"], 5, True),  # passages are joined by a space
        (["ork"], 8, True),  # a part of a word is found, as in the published script
        (["new york"], 8, False),
        ([], 10, False),
    ],
)
def test_an_answer_must_stand_in_the_first_words(answers, tokens, wanted):
    assert ranking.answer_within(PASSAGES, answers, tokens) is wanted


@pytest.mark.parametrize("seed", range(20))
def test_answers_are_found_as_in_a_plain_cut_of_all_words(seed):
    draw = random.Random(seed)
    passages = [draw.choices("abcdefgh", k=draw.randint(0, 9)) for _ in range(6)]
    answers = [" ".join(draw.choices("abcdefgh", k=2)) for _ in range(3)]
    kept = [list(p) for p in passages]
    for tokens in range(1, 40):
        text = " ".join([w for p in passages for w in p][:tokens])
        assert ranking.answer_within(passages, answers, tokens) == any(a in text for a in answers)
    assert passages == kept
