"""Mixing rates against hand values, refusals of wrong mixtures, and what a task's cache depends on."""

import dataclasses
import json

import numpy as np
import pytest

import gin
from embed.data.tasks import Mixture, RegisteredTask, Task, cache_key, describe
from embed.data.text_features import Lengths, pairs
from embed.documents import digest_json
from embed.errors import ConfigError, DataError
from embed.sources.record_files import JsonLines, TabSeparated

SIZES = {"a": 100, "b": 900, "c": 2500}


def mixture(names="abc", **settings):
    return Mixture("mixed", [Task(n, JsonLines(f"{n}.jsonl")) for n in names], **settings)


@dataclasses.dataclass(frozen=True)
class FixedTokenizer:
    digest: str = "d" * 64


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [100 / 3500, 900 / 3500, 2500 / 3500]),
        ({"maximum": 400}, [100 / 900, 400 / 900, 400 / 900]),
        ({"maximum": 50}, [1 / 3, 1 / 3, 1 / 3]),
        ({"rates": "temperature"}, [10 / 90, 30 / 90, 50 / 90]),
        ({"rates": "temperature", "temperature": 1.0}, [100 / 3500, 900 / 3500, 2500 / 3500]),
        ({"rates": "temperature", "maximum": 400}, [10 / 50, 20 / 50, 20 / 50]),
        ({"rates": {"c": 1, "a": 2, "b": 5.0}}, [2 / 8, 5 / 8, 1 / 8]),
        ({"rates": {"a": 0.1, "b": 0.1, "c": 0.1}}, [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_shares_by_hand(settings, expected):
    made = mixture(**settings)
    made.check()
    np.testing.assert_allclose(made.shares(SIZES), expected, rtol=1e-12)


def test_shares_follow_the_order_of_the_tasks():
    np.testing.assert_allclose(mixture("cab").shares(SIZES), [2500 / 3500, 100 / 3500, 900 / 3500], rtol=1e-12)
    assert mixture("b").shares(SIZES) == [1.0]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (mixture(""), ["'mixed' has no tasks", "Mixture.tasks"]),
        (mixture("aba"), ["two tasks called 'a'", "own name"]),
        (mixture(rates="proportionl"), ["Mixture.rates = 'proportionl'", "known: proportional, temperature"]),
        (mixture(rates={"a": 1, "b": 1, "cc": 1}), ["names 'cc'", "did you mean 'c'?"]),
        (mixture(rates={"a": 1, "b": 1, "zzz": 1}), ["names 'zzz'", "known: a, b, c"]),
        (mixture(rates={"a": 1, "b": 1}), ["no rate for 'c'", "remove the task"]),
        (mixture(rates={"a": 1, "b": 0, "c": 1}), ["Mixture.rates", "a number > 0 at 'b'"]),
        (mixture(rates={"a": 1, "b": -2.0, "c": 1}), ["Mixture.rates", "a number > 0 at 'b'"]),
        (mixture(rates={"a": 1, "b": float("nan"), "c": 1}), ["Mixture.rates", "finite number at b"]),
        (mixture(rates={"a": 1, "b": float("inf"), "c": 1}), ["Mixture.rates", "finite number at b"]),
        (mixture(rates="temperature", temperature=0.0), ["temperature = 0.0", "a number > 0"]),
        (mixture(rates="temperature", temperature=-1.0), ["temperature = -1.0", "a number > 0"]),
        (
            mixture(rates="proportional", temperature=5.0),
            ["temperature = 5.0 has an effect with rates = 'temperature' only"],
        ),
        (
            mixture(rates={"a": 1, "b": 1, "c": 1}, maximum=3),
            ["maximum = 3 has an effect where rates follow from sizes"],
        ),
        (mixture(maximum=0), ["maximum = 0", "an integer >= 1"]),
        (mixture(maximum=-5), ["maximum = -5", "an integer >= 1"]),
    ],
)
def test_a_wrong_mixture_is_refused_in_one_line(made, said):
    with pytest.raises(ConfigError) as caught:
        made.check()
    message = str(caught.value)
    assert "\n" not in message
    for part in said:
        assert part in message


def test_right_mixtures_pass_the_check():
    for settings in ({}, {"rates": "temperature"}, {"rates": {"a": 1, "b": 0.5, "c": 3}}, {"maximum": 1}):
        mixture(**settings).check()


def test_tasks_may_come_in_lists_and_only_those_named_are_taken():
    a, b, c = (mixture(name).tasks[0] for name in "abc")
    made = Mixture("m", [a, [b, c]])
    assert [t.name for t in made.tasks] == ["a", "b", "c"]
    assert [t.name for t in dataclasses.replace(made, only=("c", "a")).tasks] == ["a", "c"]
    rates = {"a": 3.0, "b": 1.0, "c": 1.0}
    some = Mixture("m", [a, [b, c]], rates, only=("a", "c"))
    some.check()
    assert some.shares({"a": 1, "c": 1}) == [0.75, 0.25]
    with pytest.raises(ConfigError, match="Mixture.only: no task 'd'"):
        Mixture("m", [a, [b, c]], only=("d",))


def texts(*lengths):
    return pairs(Lengths(*lengths))


TASK = Task("t", JsonLines("a.jsonl", {"query": "q", "target": "t"}), "query", "document")


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(TASK, name="u"),
        dataclasses.replace(TASK, query_prompt="none"),
        dataclasses.replace(TASK, query_prompt="ask: {content}"),
        dataclasses.replace(TASK, target_prompt="none"),
        dataclasses.replace(TASK, source=JsonLines("b.jsonl", {"query": "q", "target": "t"})),
        dataclasses.replace(TASK, source=JsonLines(["a.jsonl", "b.jsonl"], {"query": "q", "target": "t"})),
        dataclasses.replace(TASK, source=JsonLines("a.jsonl", {"query": "q", "target": "u"})),
        dataclasses.replace(TASK, source=JsonLines("a.jsonl", {"query": "q", "target": "t", "negatives": "n"})),
        dataclasses.replace(TASK, source=TabSeparated("a.jsonl", {"query": "q", "target": "t"})),
    ],
)
def test_a_definition_changes_with_all_that_it_says(other):
    assert digest_json(other.definition()) != digest_json(TASK.definition())
    keys = [cache_key(t, FixedTokenizer(), texts()) for t in (TASK, other)]
    assert digest_json(keys[0]) != digest_json(keys[1])


def test_a_definition_is_json_and_says_the_same_for_the_same_task():
    again = Task("t", JsonLines(path="a.jsonl", fields={"target": "t", "query": "q"}))
    assert digest_json(again.definition()) == digest_json(TASK.definition())
    assert digest_json(json.loads(json.dumps(TASK.definition()))) == digest_json(TASK.definition())
    several = [Task("t", JsonLines(paths)) for paths in (["a", "b"], ("a", "b"))]
    assert digest_json(several[0].definition()) == digest_json(several[1].definition())


def test_a_prompt_name_and_its_template_are_the_same_definition():
    written_out = Task("t", TASK.source, "task: search result | query: {content}", "title: {title} | text: {content}")
    assert written_out.definition() == TASK.definition()


def test_an_unknown_prompt_is_refused():
    with pytest.raises((ValueError, ConfigError, DataError), match="no prompt is called 'documents'"):
        Task("t", TASK.source, target_prompt="documents").definition()


@dataclasses.dataclass(frozen=True)
class OwnSource(JsonLines):
    """A source of a user's own."""


def gin_like(kind, module=None):
    """Returns a subclass that looks as the one gin makes of a class."""
    copied = {"__module__": module or kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), copied)


def test_a_subclass_as_gin_makes_it_is_the_same_definition():
    fields = {"query": "q", "target": "t"}
    assert Task("t", gin_like(JsonLines)("a.jsonl", fields)).definition() == TASK.definition()
    # A class of this test's own: gin knows a class by one name only, and recipes name JsonLines.
    made = gin.external_configurable(OwnSource, module="tests.data")
    assert made is not OwnSource
    assert Task("t", made("a.jsonl", fields)).definition() == Task("t", OwnSource("a.jsonl", fields)).definition()


def test_a_source_of_the_same_name_from_another_module_is_another_definition():
    other = gin_like(JsonLines, "my.own.module")
    assert Task("t", other("a.jsonl", TASK.source.fields)).definition() != TASK.definition()


def test_nested_values_are_described_in_full():
    @dataclasses.dataclass(frozen=True)
    class Outer:
        inner: JsonLines
        many: tuple = ()

    described = describe(Outer(JsonLines("x"), (JsonLines("y"), {"k": JsonLines("z")})))
    assert described["inner"]["path"] == "x"
    assert described["many"][0]["path"] == "y"
    assert described["many"][1]["k"]["path"] == "z"
    assert described["many"][1]["k"]["fields"] == {"query": "query", "target": "target"}


def test_a_registered_task_is_defined_by_every_field():
    task = RegisteredTask("t", "my.module")
    changes = [{"name": "u"}, {"module": "m"}, {"split": "dev"}, {"version": 2}, {"query_prompt": "query"}]
    changes.append({"target_prompt": "document"})
    digests = {digest_json(dataclasses.replace(task, **change).definition()) for change in ({}, *changes)}
    assert len(digests) == 7


def test_a_cache_key_changes_with_the_tokenizer_and_each_length():
    keys = [
        cache_key(TASK, FixedTokenizer(), texts(64, 128)),
        cache_key(TASK, FixedTokenizer("e" * 64), texts(64, 128)),
        cache_key(TASK, FixedTokenizer(), texts(65, 128)),
        cache_key(TASK, FixedTokenizer(), texts(64, 129)),
    ]
    assert len({digest_json(k) for k in keys}) == 4
    assert digest_json(cache_key(TASK, FixedTokenizer(), texts())) == digest_json(keys[0])
