"""Fields that are paths into nested objects and lists."""

import pytest

from embed.errors import DataError
from embed.sources.fields import MISSING, map_fields, value_at

ROW = {
    "question": "who",
    "answers": {"text": ["she", "her"], "start": [3]},
    "passages": [{"text": "a", "is_selected": 0}, {"title": "no text"}, {"text": "b"}],
    "a.b": "a name with a dot",
    "a": {"b": "nested", "c": [["x", "y"], ["z"]]},
    "list": [],
}


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("question", "who"),
        ("answers.text", ["she", "her"]),
        ("answers.text[0]", "she"),
        ("answers.text[1]", "her"),
        ("answers.text[2]", MISSING),
        ("answers.missing", MISSING),
        ("answers[0]", MISSING),
        ("question.text", MISSING),
        ("question[0]", MISSING),
        ("passages[*].text", ["a", "b"]),
        ("passages[*].missing", []),
        ("passages[0].text", "a"),
        ("passages.text", MISSING),
        ("a.b", "a name with a dot"),
        ("a.c[0][1]", "y"),
        ("a.c[*][0]", ["x", "z"]),
        ("list[*]", []),
        ("list[0]", MISSING),
        ("answers..text", MISSING),
        ("answers.text[", MISSING),
        ("answers.text[-1]", MISSING),
        (".question", MISSING),
        ("", MISSING),
    ],
)
def test_a_path_is_followed(field, expected):
    found = value_at(ROW, field)
    assert found is MISSING if expected is MISSING else found == expected


def test_records_are_mapped_by_paths():
    fields = {"query": "question", "target": "answers.text[0]", "negatives": "passages[*].text"}
    assert map_fields(ROW, fields, "f:1") == {"query": "who", "target": "she", "negatives": ["a", "b"]}


def test_a_path_that_leads_nowhere_is_refused_with_its_location():
    with pytest.raises(DataError, match=r"f:1: no field 'answers.txt\[0\]' \(mapped to target\)"):
        map_fields(ROW, {"query": "question", "target": "answers.txt[0]"}, "f:1")
    with pytest.raises(DataError, match=r"f:1: field 'answers' is dict, expected a text"):
        map_fields(ROW, {"query": "question", "target": "answers"}, "f:1")


def test_a_list_of_targets_is_kept_and_each_has_its_own_title():
    fields = {"query": "q", "target": "t", "title": "h"}
    row = {"q": "a", "t": [" b", "c"], "h": ["B", "C"]}
    assert map_fields(row, fields, "f:1") == {"query": "a", "target": ["b", "c"], "title": ["B", "C"]}
    assert map_fields({**row, "t": ["b"], "h": ["B"]}, fields, "f:1") == {"query": "a", "target": "b", "title": "B"}
    assert map_fields({**row, "h": None}, fields, "f:1")["title"] == ""
    for titles, count in (("B", 1), (["B"], 1), (["B", "C", "D"], 3)):
        with pytest.raises(DataError, match=f"f:1: field 'h' holds {count} titles? for 2 targets; give each its own"):
            map_fields({**row, "h": titles}, fields, "f:1")


def test_other_roles_are_passed_on_as_they_are():
    assert map_fields({"q": "a", "s": "0.5"}, {"query": "q", "score": "s", "label": "l"}, "f:1") == {
        "query": "a",
        "score": "0.5",
        "label": None,
    }


def test_a_record_may_bring_its_own_prompts():
    fields = {"query": "q", "target": "t", "query_prompt": "instruction", "target_prompt": "as"}
    row = {"q": "a", "t": "b", "instruction": "Instruct: find it\nQuery: {content}"}
    record = map_fields(row, fields, "f:1")
    assert record["query_prompt"] == "Instruct: find it\nQuery: {content}" and record["target_prompt"] == ""
    with pytest.raises(DataError, match="f:1: field 'instruction': no prompt is called 'find it'; known: .*{content}"):
        map_fields({**row, "instruction": "find it"}, fields, "f:1")
