"""The prompts that a teacher reads texts in: the tasks' own where it has them, one that is given, its usual one with a note."""

import types

import pytest

from embed.data.tasks import Mixture, Task
from embed.errors import ConfigError
from embed.text import PROMPTS
from embed.workflows.encode import Encoding
from embed.workflows.encode_endpoint import Served
from embed.workflows.teacher_prompts import TeacherPrompts

TEACHER = {
    "query": "Q {content}",
    "document": "D {content}",
    "clustering": "C {content}",
    "other": PROMPTS["fact checking"],
}
FREE = {"query": None, "target": None}


class Teacher(Encoding):
    """Knows prompts alone."""

    def __init__(self, prompts):
        self._prompts, self.checked = prompts, []

    @property
    def prompts(self):
        return self._prompts

    def check(self, prompt, dims):
        self.checked.append((self.template(prompt), dims))


def prompts_of(*tasks, teacher=TEACHER, given=FREE, student=PROMPTS):
    mixture = Mixture("m", [Task(str(i), types.SimpleNamespace(), *prompts) for i, prompts in enumerate(tasks)])
    return TeacherPrompts(Teacher(teacher) if isinstance(teacher, dict) else teacher, mixture, student, given)


def test_each_task_keeps_its_prompt_as_the_teacher_has_it():
    prompts = prompts_of(
        (),
        ("clustering", "clustering"),
        ("fact checking", "none"),
        ("mine", "D {content}"),
        student={**PROMPTS, "mine": "Q {content}"},
    )
    assert [prompts.of(task, "query", "") for task in "0123"] == [
        "Q {content}", "C {content}", PROMPTS["fact checking"], "Q {content}"
    ]  # fmt: skip
    assert [prompts.of(task, "target", "") for task in "0123"] == [
        "D {content}",
        "C {content}",
        "{content}",
        "D {content}",
    ]
    assert prompts.of("0", "query", "clustering") == "C {content}", "of one record"
    assert prompts.notes == []
    assert prompts.tasks("query") == {
        "0": PROMPTS["query"], "1": PROMPTS["clustering"], "2": PROMPTS["fact checking"], "3": "Q {content}"
    }  # fmt: skip


def test_a_prompt_that_the_teacher_does_not_have_is_replaced_with_a_note_or_refused():
    prompts = prompts_of(("code retrieval", "mine: {content}"), ("code retrieval", "document"))
    assert [prompts.of(task, "query", "") for task in "01"] == ["Q {content}"] * 2
    assert prompts.of("0", "target", "") == "D {content}"
    assert prompts.notes == [
        "the teacher has no prompt 'code retrieval', which task '0' has for its query; it reads such texts in its prompt 'query': "
        "'Q {content}' (--query_prompt gives another)",
        "the teacher has no prompt 'mine: {content}', which task '0' has for its target; it reads such texts in its prompt "
        "'document': 'D {content}' (--target_prompt gives another)",
    ]
    with pytest.raises(ConfigError) as caught:
        prompts_of(("summarization",), teacher={"passage": "p {content}"}).check(None)
    assert str(caught.value) == (
        "task '0': the teacher has neither the prompt 'summarization' nor 'query' (known: passage); give --query_prompt"
    )


def test_a_given_prompt_holds_for_all_and_is_checked():
    prompts = prompts_of(("clustering", "document"), given={"query": "other", "target": None})
    assert prompts.of("0", "query", "fact checking") == PROMPTS["fact checking"]
    assert prompts.tasks("query") == {} and prompts.tasks("target") == {"0": PROMPTS["document"]}
    prompts.check(5)
    assert prompts._teacher.checked == [(PROMPTS["fact checking"], 5), ("D {content}", 5)]
    with pytest.raises(ConfigError, match="no prompt is called 'qery'"):
        prompts_of((), given={"query": "qery", "target": None}).check(None)


def test_an_endpoint_is_sent_texts_alone_unless_a_prompt_is_given():
    served = Served("http://127.0.0.1:9/v1", "m")
    prompts = prompts_of(("clustering", "document"), teacher=served)
    assert prompts.of("0", "query", "") == prompts.of("0", "target", "fact checking") == "{content}"
    assert prompts.notes == [] and prompts.tasks("query") == {}
    given = prompts_of((), teacher=served, given={"query": "clustering", "target": "x {content}"})
    assert (given.of("0", "query", ""), given.of("0", "target", "")) == (PROMPTS["clustering"], "x {content}")
