"""Claims as data: what belongs together, and what is refused in one line that says what to do."""

import pytest

from embed.errors import ConfigError
from embed.workflows.claims import Claim, Comparison


def claim(**changes) -> Claim:
    given = {
        "title": "t",
        "paper": "p",
        "figure": "f",
        "prepared": {"words": ["make $data --output=$run"], "more": ["make $words --output=$run"]},
        "arms": {"one": ["train $source $more --output=$model"], "two": ["train $one --seed=$seed --output=$model"]},
        "comparisons": [Comparison("two", "one")],
    }
    return Claim(**{**given, **changes})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "a > b: mean of the types"),
        ({"view": "64", "metric": "sts"}, "a > b: sts at 64"),
        ({"kind": "no worse", "least": 0.5}, "a >= b: mean of the types"),
        ({"kind": "shown", "metric": "task/score"}, "a > b: task/score"),
        ({"from_view": "64", "view": "64 binary"}, "a > b: mean of the types from 64 to 64 binary"),
        ({"metric": "t/rmse", "is_error": True}, "a < b: t/rmse"),
        ({"metric": "t/rmse", "is_error": True, "kind": "no worse"}, "a <= b: t/rmse"),
    ],
)
def test_a_comparison_is_named_by_what_it_claims(given, name):
    assert Comparison("a", "b", **given).name == name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "beter"}, "Comparison.kind = 'beter'; did you mean 'better'?"),
        ({"least": -0.1}, "Comparison.least = -0.1: points, at least 0"),
        ({"from_view": "64"}, "Comparison.from_view = '64': from it to which view? Set Comparison.view"),
    ],
)
def test_a_wrong_comparison_is_refused(given, message):
    with pytest.raises(ConfigError) as caught:
        Comparison("a", "b", **given)
    assert str(caught.value) == message


def test_what_the_user_must_give_is_what_lines_and_suite_name():
    assert claim().needs == {"data", "source"}
    assert claim(suite="suite.json", prepared={"more": ["make"]}).needs == {"source"}
    given = {"arms": {"one": ["a"], "two": ["b ${model} $$data"]}, "prepared": {}}
    assert claim(**given).needs == {"data"}  # the suite's; "$$data" is a dollar sign
    assert claim(**given, suite="suite.json").needs == set()
    assert claim(**given, suite="$pictures/suite.json").needs == {"pictures"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {}}, "needs arms and comparisons, or a reason in untestable"),
        ({"comparisons": []}, "needs arms and comparisons, or a reason in untestable"),
        ({"seeds": (0, 1)}, "seeds = (0, 1); at least three, each once"),
        ({"seeds": (0, 1, 2, 1)}, "seeds = (0, 1, 2, 1); at least three, each once"),
        (
            {"comparisons": [Comparison("one", "two", kind="shown")]},
            "no comparison is judged; make one 'better' or 'no worse'",
        ),
        ({"comparisons": [Comparison("one", "twoo")]}, "no arm 'twoo'; did you mean 'two'?"),
        ({"comparisons": [Comparison("on", "two")]}, "no arm 'on'; did you mean 'one'?"),
        ({"prepared": {"Words": ["make"]}}, "prepared 'Words': a name in small letters, not ('data', "),
        ({"prepared": {"model": ["make"]}}, "prepared 'model': a name in small letters, not ('data', "),
        (
            {"prepared": {"words": ["make --seed=$seed"], "more": []}},
            "$seed in 'make --seed=$seed'; known: data, model, pictures, run",
        ),
        ({"prepared": {"words": ["make $more"], "more": ["make"]}}, "$more in 'make $more'; did you mean 'model'?"),
        ({"suite": "$seed.json"}, "$seed in '$seed.json'; known: data, model, more, pictures, run"),
        ({"arms": {"one": ["a"], "two": ["b"], "words": ["c"]}}, "'words' is an arm and something else; rename it"),
        ({"arms": {"one": ["a"], "two": ["b"], "seed": ["c"]}}, None),
        (
            {"arms": {"one": ["a $two"], "two": ["b"]}},
            "$two in 'a $two'; known: data, model, more, pictures, run, seed",
        ),
        ({"arms": {"one": ["a $one"], "two": ["b"]}}, "$one in 'a $one'; known: data"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes, message):
    if message is None:
        claim(**changes)
        return
    with pytest.raises(ConfigError) as caught:
        claim(**changes)
    assert str(caught.value).startswith(f"Claim 't': {message}") and "\n" not in str(caught.value)


def test_a_claim_that_cannot_be_tested_needs_a_reason_alone():
    assert Claim("t", "p", "f", untestable="needs a thousand chips").needs == {"data"}
    with pytest.raises(ConfigError, match="needs arms and comparisons, or a reason in untestable"):
        Claim("t", "p", "f")
