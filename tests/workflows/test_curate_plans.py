"""What `embed curate` will ask: inputs that are read and checked, and how much is asked at most, counted by hand."""

import json
import types

import pytest

from embed.curation import judging, synthesis
from embed.curation.prompt_templates import PromptTemplate
from embed.errors import DataError, UsageError
from embed.sources.input_texts import Text
from embed.workflows import curate_plans
from embed.workflows.curate_plans import Options

ASKER = types.SimpleNamespace()


def options(what: str, **given) -> Options:
    return Options(what, "out", "http://x/v1", "m", **given)


def prompts(*names: str) -> dict[str, PromptTemplate]:
    """Prompts of 11 characters: 3 tokens each."""
    return {name: PromptTemplate(name, "system", "asked") for name in names}


def test_a_text_has_a_token_for_four_characters_and_one_more():
    assert [curate_plans.estimated_tokens("x" * n) for n in (0, 3, 4, 8)] == [1, 1, 2, 3]


# Prompts.


def test_each_job_has_its_prompts(tmp_path):
    found = {what: set(curate_plans.read_prompts(options(what))) for what in ("queries", "texts", "filter", "pick")}
    assert found == {
        "queries": {"query", "rate_query"},
        "texts": {"people", "subjects", "labelled_text"},
        "filter": {"grade"},
        "pick": {"grade"},
    }
    assert set(curate_plans.read_prompts(options("pick", likelihood=True))) == {"grade", "query_likelihood"}
    assert set(curate_plans.read_prompts(options("filter", likelihood=True))) == {"grade"}


def test_prompts_of_the_user_come_first(tmp_path):
    (tmp_path / "grade.txt").write_text("--- system\nYou grade.\n--- user\nGrade $passage for $query.\n")
    (found,) = curate_plans.read_prompts(options("filter", prompts=str(tmp_path))).values()
    assert (found.system, found.user) == ("You grade.", "Grade $passage for $query.")
    (tmp_path / "grades.txt").write_text("")
    with pytest.raises(DataError, match="did you mean 'grade"):
        curate_plans.read_prompts(options("filter", prompts=str(tmp_path)))


# Inputs.


def test_labels_are_read_without_blanks():
    assert curate_plans.read_labels(options("texts", labels=" good, bad ,,", kind="reviews")) == ["good", "bad"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"labels": "a", "kind": "k"},
            "curate texts needs --labels=A,B,... (two at least) and --kind='product reviews'",
        ),
        ({"labels": "a,b"}, "curate texts needs --labels=A,B,... (two at least) and --kind='product reviews'"),
        ({"kind": "k"}, "curate texts needs --labels=A,B,... (two at least) and --kind='product reviews'"),
        ({"labels": "a,b,c,b,a", "kind": "k"}, "--labels: names 'b' twice; give each label once"),
    ],
)
def test_labels_that_are_none_are_refused(given, message):
    with pytest.raises(UsageError) as caught:
        curate_plans.read_labels(options("texts", **given))
    assert str(caught.value) == message


@pytest.fixture
def passages(tmp_path):
    path = tmp_path / "passages.jsonl"
    rows = [{"text": f"text {i}", **({"title": "T"} if i == 2 else {})} for i in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_passages_are_all_or_a_draw_in_their_order(passages):
    whole = curate_plans.read_passages(options("queries", input=passages))
    assert [p.text for p in whole] == [f"text {i}" for i in range(30)] and whole[2].title == "T"
    draw = lambda seed: curate_plans.read_passages(options("queries", input=passages, sample=10, seed=seed))  # noqa: E731
    drawn = draw(1)
    numbers = [whole.index(p) for p in drawn]
    assert len(set(numbers)) == 10 and numbers == sorted(numbers)
    assert draw(1) == drawn != draw(2)
    assert curate_plans.read_passages(options("queries", input=passages, sample=30)) == whole
    with pytest.raises(UsageError, match="--sample=31: .*passages.jsonl has 30 passages; leave out --sample"):
        curate_plans.read_passages(options("queries", input=passages, sample=31))


def test_pairs_keep_what_was_read(tmp_path):
    path = tmp_path / "pairs.jsonl"
    row = {"q": "a", "p": "b", "n": ["c", "d"], "mined": {"scores": [0.5, None]}, "lang": "en"}
    path.write_text(json.dumps(row) + "\n" + json.dumps({"q": "e", "p": "f"}) + "\n")
    given = options("filter", input=str(path), query_field="q", target_field="p", negatives_field="n")
    first, second = curate_plans.read_inputs(given)
    assert first == judging.Pair(row, "a", "b", ("c", "d")) and first.cosines == [0.5, None]
    assert second == judging.Pair({"q": "e", "p": "f"}, "e", "f", ())
    with pytest.raises(DataError, match=r"pairs.jsonl:1: no field 'query' \(mapped to query\)"):
        curate_plans.read_inputs(options("pick", input=str(path)))


@pytest.mark.parametrize("what", ["queries", "filter", "pick"])
def test_a_file_without_a_record_is_refused(tmp_path, what):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="empty.jsonl: holds no record; give a file with some"):
        curate_plans.read_inputs(options(what, input=str(tmp_path / "empty.jsonl")))


def test_each_job_reads_its_own_inputs(passages):
    assert curate_plans.read_inputs(options("texts", labels="a,b", kind="k")) == ["a", "b"]
    assert len(curate_plans.read_inputs(options("queries", input=passages, sample=3))) == 3


# Plans.


def test_a_query_is_written_and_rated_for_each_passage():
    texts = [Text("0", "x" * 40, "", "f:1"), Text("1", "x" * 80, "", "f:2")]
    plan = curate_plans.plan_queries(options("queries", least=3), ASKER, prompts("query", "rate_query"), texts)
    assert isinstance(plan.work, synthesis.Queries) and plan.work.least == 3
    assert (plan.items, plan.unit) == (texts, "passages")
    # 11 and 21 tokens of text, each sent twice; two prompts of 3 tokens for each passage; 60 tokens back
    assert (plan.requests, plan.tokens_in, plan.tokens_out) == (4, 2 * (11 + 21) + 2 * 6, 120)


@pytest.mark.parametrize(("count", "lists"), [(1, 1), (200, 1), (201, 2), (1000, 5)])
def test_texts_come_from_lists_of_two_hundred(count, lists):
    given = options("texts", count=count, kind="reviews", seed=7)
    plan = curate_plans.plan_lists(given, ASKER, prompts("people", "subjects", "labelled_text"), ["good", "bad"])
    assert plan.items == [(name, n) for name in ("people", "subjects") for n in range(lists)]
    assert isinstance(plan.work, synthesis.Labelled) and plan.unit == "texts"
    assert (plan.requests, plan.tokens_in, plan.tokens_out) == (count + 2 * lists, 63 * count, 150 * count)


PAIRS = [
    judging.Pair({}, "q" * 4, "t" * 8, ("n" * 12, "n" * 16)),  # 2, 3, 4 and 5 tokens
    judging.Pair({}, "q" * 20, "t" * 24, ()),  # 6 and 7
]


def test_filtering_grades_targets_and_negatives():
    plan = curate_plans.plan_judged(options("filter", least=2), ASKER, prompts("grade"), PAIRS)
    assert isinstance(plan.work, judging.Filter) and plan.work.least == 2 and plan.unit == "pairs"
    # the first: 3 texts with the query of 2; the second: one text with the query of 6
    size = (3 * 2 + 3 + 4 + 5) + (6 + 7)
    assert (plan.requests, plan.tokens_in, plan.tokens_out) == (4, size + 3 * 4, 8 * 4)


@pytest.mark.parametrize(("likelihood", "names"), [(False, ["grade"]), (True, ["grade", "query_likelihood"])])
def test_picking_looks_at_negatives_alone_once_for_each_prompt(likelihood, names):
    given = options("pick", keep=1, likelihood=likelihood)
    plan = curate_plans.plan_judged(given, ASKER, prompts(*names), PAIRS)
    assert isinstance(plan.work, judging.Pick) and plan.items is PAIRS
    size, times = 2 * 2 + 4 + 5, len(names)
    assert (plan.requests, plan.tokens_out) == (2 * times, 8 * 2)  # a likelihood is read off the prompt's own tokens
    assert plan.tokens_in == times * size + times * 3 * 2


def test_a_target_is_judged_below_its_title(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"query": "q", "positive": "She was born in 1867.", "title": "Marie Curie"},
        {"query": "q", "positive": "b"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = options("filter", input=str(path), title_field="title")
    assert [pair.passage for pair in curate_plans.read_inputs(given)] == ["Marie Curie\nShe was born in 1867.", "b"]
    titles = options("filter", input=str(path), query_field="title", target_field="query", title_field="title")
    with pytest.raises(DataError, match="pairs.jsonl:2: no field 'title'"):
        curate_plans.read_inputs(titles)


def test_a_list_of_targets_is_refused_with_its_line(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"query": "q", "positive": ["a", "b"]}) + "\n")
    with pytest.raises(DataError, match="pairs.jsonl:1: field 'positive' is list, expected a text"):
        curate_plans.read_inputs(options("filter", input=str(path), title_field="title"))
