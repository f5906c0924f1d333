"""Pairs that a model judges: by an asker of known grades, which pairs and negatives are kept, and what their rows say."""

import asyncio
import types

import pytest

from embed.curation import judging
from embed.curation.asking import Rejected
from embed.curation.judging import Filter, Judge, Pair, Pick
from embed.curation.prompt_templates import PromptTemplate

WORDS = {
    "grade": PromptTemplate("grade", "Judge.", "$query $passage"),
    "query_likelihood": PromptTemplate("query_likelihood", "", "$passage"),
}
MADE = {
    "model": "tiny",
    "prompts": {name: prompt_template.digest for name, prompt_template in WORDS.items()},
    "seed": 5,
}


class Grades:
    """An asker whose answers stand in the texts: the last word is the grade, or is raised where it is an error."""

    endpoint = types.SimpleNamespace(model="tiny")

    def __init__(self, errors=None):
        self.asked, self.done, self._errors = [], 0, errors or {}

    async def ask(self, prompt_template, schema, texts, seed, temperature, max_tokens):
        self.asked.append((prompt_template.name, texts, seed, temperature))
        word = texts["passage"].split()[-1]
        if word in self._errors:
            raise self._errors[word]
        await asyncio.sleep(0)
        self.done += 1
        assert schema is judging.GRADE
        return {"grade": int(word)}

    async def likelihood(self, prompt_template, texts, continuation):
        self.asked.append((prompt_template.name, texts, continuation))
        return float(texts["passage"].split()[0])


def pair(target="t 3", negatives=(), **raw):
    return Pair({"id": 1, **raw}, "a query", target, tuple(negatives))


def judged(kind, given, asker=None, **options):
    judge = Judge(asker or Grades(), WORDS, seed=5)
    return asyncio.run(kind(judge, "wrong", **options)(given))


def test_a_grade_is_asked_without_chance():
    asker = Grades()
    assert asyncio.run(Judge(asker, WORDS, seed=5).grade("q", "p 2")) == 2
    assert asker.asked == [("grade", {"query": "q", "passage": "p 2"}, 5, 0.0)]


# filtering


def test_negatives_that_answer_are_dropped_and_the_grades_kept():
    row = judged(Filter, pair("t 2", ["a 0", "b 3", "c 1", "d 2"], wrong="replaced", more="kept"))
    assert row == {
        "id": 1,
        "more": "kept",
        "wrong": ["a 0", "c 1"],
        "judged": {"target": 2, "negatives": [0, 3, 1, 2], "kept": [0, 1], **MADE},
    }


@pytest.mark.parametrize("least, answers, kept", [(2, 2, ["a 1"]), (3, 3, ["a 1", "b 2"]), (0, 1, []), (0, 4, None)])
def test_what_is_kept_goes_by_the_grades_that_are_asked_for(least, answers, kept):
    negatives = ["a 1", "b 2", "c 3"]
    row = judged(Filter, pair("t 3", negatives), least=least, answers=answers)
    assert row["wrong"] == (negatives if kept is None else kept)


@pytest.mark.parametrize("grade, least", [(1, 2), (2, 3), (0, 1)])
def test_a_pair_whose_target_does_not_answer_is_rejected(grade, least):
    with pytest.raises(Rejected, match=f"^target graded {grade}, below {least}$"):
        judged(Filter, pair(f"t {grade}", ["a 0"]), least=least)


def test_a_pair_without_negatives_gets_no_field_of_them():
    assert judged(Filter, pair()) == {"id": 1, "judged": {"target": 3, "negatives": [], "kept": [], **MADE}}


def test_scores_of_mining_stay_with_their_negatives():
    mined = {"model": "m", "scores": [0.9, None, 0.7]}
    row = judged(Filter, pair("t 3", ["a 0", "b 1", "c 3"], mined=mined))
    assert row["mined"] == {"model": "m", "scores": [0.9, None]} and row["wrong"] == ["a 0", "b 1"]
    assert mined["scores"] == [0.9, None, 0.7], "the pair that was read is left as it is"


@pytest.mark.parametrize("mined", [None, "text", {}, {"scores": 3}, {"scores": [0.5]}, {"scores": [0.1, 0.2, 0.3]}])
def test_scores_of_other_negatives_are_left_as_they_are(mined):
    given = pair("t 3", ["a 0", "b 3"], mined=mined)
    assert given.cosines is None
    assert judged(Filter, given)["mined"] == mined


# picking


def test_the_lowest_by_both_ranks_are_picked():
    """Ranks by grade 1, 3, 1 and by cosine 1, 2, 3: with 60 added, 2/61, 1/63 + 1/62 and 1/61 + 1/63."""
    mined = {"model": "m", "scores": [0.9, 0.8, 0.7]}
    row = judged(Pick, pair(negatives=["c 1", "b 0", "a 1"], mined=mined), keep=2)
    assert row["wrong"] == ["b 0", "a 1"] and row["mined"] == {"model": "m", "scores": [0.8, 0.7]}
    assert row["judged"] == {"negatives": [0, 1], "of": 3, "by": "grade and cosine", **MADE}


def test_neighbours_that_answer_are_never_picked():
    row = judged(Pick, pair(negatives=["a 2", "b 3", "c 1"], mined={"scores": [0.1, 0.1, 0.9]}), keep=3)
    assert row["wrong"] == ["c 1"] and row["judged"]["negatives"] == [1] and row["judged"]["of"] == 3
    assert judged(Pick, pair(negatives=["a 2", "b 3"]), keep=3)["wrong"] == []


def test_a_pair_without_neighbours_is_kept_as_it_is():
    asker = Grades()
    assert judged(Pick, pair(more="x"), asker) == {"id": 1, "more": "x"} and asker.asked == []


@pytest.mark.parametrize("mined", [None, {"scores": [0.5, None]}, {"scores": [0.5]}])
def test_without_a_cosine_of_each_the_grades_decide_alone(mined):
    row = judged(Pick, pair(negatives=["a 1", "b 0"], mined=mined))
    assert row["wrong"] == ["b 0"] and row["judged"]["by"] == "grade"
    assert row["mined"] == ({"scores": [None]} if mined and None in mined["scores"] else mined)


def test_the_likelihood_of_the_query_is_the_other_score_when_it_is_asked_for():
    asker = Grades()
    negatives, mined = ["-1.25 x 1", "-7.00049 y 1", "-3 z 1"], {"scores": [0.1, 0.9, 0.2]}
    row = judged(Pick, pair(negatives=negatives, mined=mined), asker, keep=2, likelihood=True)
    assert row["wrong"] == [negatives[1], negatives[2]] and row["mined"]["scores"] == [0.9, 0.2]
    assert row["judged"]["by"] == "grade and likelihood" and row["judged"]["likelihoods"] == [-7.0, -3.0]
    # A server that cannot tell it is not asked for grades.
    assert [name for name, *_ in asker.asked] == ["query_likelihood"] * 3 + ["grade"] * 3
    assert asker.asked[0][1:] == ({"passage": negatives[0]}, "a query")


# failures


def test_all_that_was_asked_comes_home_before_an_error_is_raised():
    asker = Grades({"x": OSError("disk full")})
    with pytest.raises(OSError, match="disk full"):
        judged(Filter, pair("t x", ["a 0", "b 1"]), asker)
    assert asker.done == 2


def test_an_error_that_ends_the_job_comes_before_one_that_leaves_a_pair_out():
    asker = Grades({"x": Rejected("grade: not JSON"), "y": OSError("disk full")})
    with pytest.raises(OSError, match="disk full"):
        judged(Filter, pair("t x", ["a y"]), asker)
    with pytest.raises(Rejected, match="grade: not JSON"):
        judged(Filter, pair("t 3", ["a 1", "b x"]), asker)
