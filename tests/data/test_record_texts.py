"""The different texts of a mixture's records: each once, by side, under the ids that batches have."""

import json

import pytest
from tiny_models import word_tokenizer

from embed import sources
from embed.data import record_texts
from embed.data.features import Scores
from embed.data.tasks import Mixture, Task
from embed.data.text_features import Lengths, pairs
from embed.errors import DataError
from embed.text import content_id, target_id

ROWS = [
    {"query": "a", "target": "b", "title": "t", "negatives": ["c", "d"], "scores": [3, 2, 1]},
    {"query": "a", "target": "e", "negatives": ["b", "c"], "scores": [3, 2, 1]},
    {"query": "e", "target": "a", "negatives": [], "scores": [1]},
]


@pytest.fixture
def read(tmp_path):
    """read(rows, fields) -> the texts of a mixture of two tasks, the second of which repeats the first row."""
    tokenizer = word_tokenizer(tmp_path / "tokenizer.json", list("abcdet"))

    def read(rows=ROWS, *more_fields, prompt_of=lambda task, side, own: f"{side}: {{content}}"):
        tasks = []
        for name, part in (("one", rows), ("two", rows[:1])):
            path = tmp_path / f"{name}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in part))
            fields = {role: role for role in ("query", "target", "title", "negatives", "scores", *more_fields)}
            tasks.append(Task(name, sources.JsonLines(str(path), fields)))
        features = [*pairs(Lengths(), 1), Scores("scores", each="negatives")]
        return record_texts.read(Mixture("m", tasks), tokenizer, features, prompt_of)

    return read


@pytest.mark.slow
def test_each_text_comes_once_with_its_title_in_the_order_of_the_ids(read):
    by_template = read()
    assert {side: list(groups) for side, groups in by_template.items()} == {
        side: [f"{side}: {{content}}"] for side in ("query", "target")
    }
    texts = {side: next(iter(groups.values())) for side, groups in by_template.items()}
    assert {(t.text, t.title) for t in texts["query"]} == {("a", ""), ("e", "")}
    assert {(t.text, t.title) for t in texts["target"]} == {
        ("b", "t"),
        ("e", ""),
        ("a", ""),
        ("c", ""),
        ("d", ""),
        ("b", ""),
    }
    assert {t.id for t in texts["query"]} == {str(content_id(x)) for x in "ae"}
    assert str(target_id("b", "t")) in {t.id for t in texts["target"]}
    for side in texts.values():
        assert [int(t.id) for t in side] == sorted(int(t.id) for t in side) and len({t.id for t in side}) == len(side)


def test_a_key_that_two_texts_share_is_refused(read):
    rows = [{**row, "target_key": "same"} for row in ROWS]
    with pytest.raises(
        DataError, match=r"one.jsonl:2: target has the id of another text, at .*one.jsonl:1; .*target_key out of"
    ):
        read(rows, "target_key")


def test_a_bad_record_is_named(read):
    with pytest.raises(DataError, match=r"one.jsonl:2: field 'target' is empty"):
        read([ROWS[0], {**ROWS[1], "target": " "}])


# Prompts.


def test_texts_are_grouped_by_the_prompt_of_their_task_or_record(read):
    rows = [
        {**ROWS[0], "query": "c", "query_prompt": ""},
        {**ROWS[1], "query_prompt": "fact checking"},
        {**ROWS[2], "query": "d"},
    ]
    texts = read(rows, "query_prompt", prompt_of=lambda task, side, own: f"{own or 'usual'} {side} {{content}}")
    queries = {template: {t.text for t in items} for template, items in texts["query"].items()}
    assert queries == {"usual query {content}": {"c", "d"}, "fact checking query {content}": {"a"}}
    assert list(texts["target"]) == ["usual target {content}"]


def test_a_text_that_two_tasks_read_in_two_prompts_is_refused_with_both_and_the_count(read):
    """The second task repeats the first row: a query, a target and two negatives."""
    with pytest.raises(DataError) as caught:
        read(prompt_of=lambda task, side, own: f"{task} {side} {{content}}")
    message = str(caught.value)
    assert "two.jsonl:1: a text of task 'two' is read in the prompt 'two query {content}', and at " in message
    assert (
        "one.jsonl:1, of task 'one', in 'one query {content}'; a teacher's vectors are joined by the text alone"
        in message
    )
    assert "give one prompt for all with --query_prompt or --target_prompt" in message and "(4 times in all)" in message
    assert "\n" not in message
    only_queries = lambda task, side, own: f"{task if side == 'target' else ''} {{content}}"  # noqa: E731
    with pytest.raises(DataError, match="3 times in all"):
        read(prompt_of=only_queries)
