"""Sources made from other sources' rows, on files with the schemas of the public sets that need them."""

import dataclasses
import json

import pytest

from embed.errors import ConfigError, DataError
from embed.sources.derived import Choices, Entailments, TitleAndBody
from embed.sources.record_files import JsonLines


def write(folder, rows) -> JsonLines:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return JsonLines(str(folder / "rows.jsonl"))


def records(source):
    return [record for _, record in source.examples()]


def test_the_first_line_of_a_page_is_its_title(tmp_path):
    body = "A body that is long enough. " * 10
    source = write(
        tmp_path,
        [
            {"text": f"How to mend a bicycle\n{body}\nand more"},
            {"text": "Menu\n" + body},
            {"text": "One line that goes on without an end"},
            {"text": " \n"},
            {"text": None},
            {"text": "A title with a stub\nshort"},
        ],
    )
    (found,) = records(TitleAndBody(source))
    assert found == {"query": "How to mend a bicycle", "target": f"{body}\nand more"}


def test_a_title_may_have_a_field_of_its_own(tmp_path):
    source = write(
        tmp_path, [{"title": "Ada", "text": "b" * 200}, {"title": "", "text": "b" * 200}, {"title": "Bo", "text": ""}]
    )
    assert records(TitleAndBody(source, title="title", shortest=(2, 200))) == [{"query": "Ada", "target": "b" * 200}]
    with pytest.raises(DataError, match="no field 'titel'; did you mean 'title'"):
        records(TitleAndBody(source, title="titel"))


def test_wrong_options_are_negatives(tmp_path):
    options = ("opa", "opb", "opc", "opd")
    row = {"question": "Which?", "opa": "one", "opb": "two", "opc": "two", "opd": "three"}
    source = Choices(
        write(tmp_path, [{**row, "cop": 1}, {**row, "cop": -1}, {**row, "cop": 3}]), options=options, answer="cop"
    )
    assert records(source) == [
        {"query": "Which?", "target": "two", "negatives": ["one", "three"]},
        {"query": "Which?", "target": "three", "negatives": ["one", "two"]},
    ]
    holes = [{**row, "opc": " ", "cop": 0}, {**row, "opa": "", "cop": 0}, {**row, "question": None, "cop": 0}]
    found = Choices(write(tmp_path, holes), options=options, answer="cop")
    assert records(found) == [{"query": "Which?", "target": "one", "negatives": ["two", "three"]}]
    wrong = Choices(write(tmp_path, [{**row, "cop": 4}]), options=options, answer="cop")
    with pytest.raises(DataError, match="rows.jsonl:1: cop = 4, but there are 4 options, from 0"):
        records(wrong)


def test_what_contradicts_a_premise_is_a_negative(tmp_path):
    rows = [("A man sleeps", "A man rests", 0), ("A dog", "An animal", 0), ("A man sleeps", "A man runs", 2),
            ("A man sleeps", "He is tired", 1), ("A man sleeps", "Someone sleeps", 0), ("A dog", "A cat", -1),
            ("A man sleeps", "A man runs", 2), ("A man sleeps", " ", 0)]  # fmt: skip
    source = write(tmp_path, [dict(zip(("premise", "hypothesis", "label"), row)) for row in rows])
    assert records(Entailments(source)) == [
        {"query": "A man sleeps", "target": "A man rests", "negatives": ["A man runs"]},
        {"query": "A man sleeps", "target": "Someone sleeps", "negatives": ["A man runs"]},
    ]


def test_the_fingerprint_is_that_of_what_is_read(tmp_path):
    source = write(tmp_path, [{"text": "x"}])
    assert TitleAndBody(source).fingerprint() == source.fingerprint()


@pytest.mark.parametrize("label", [float("nan"), float("inf"), "\u00b2", 0.5])
def test_a_label_that_is_no_class_is_refused_with_its_line(tmp_path, label):
    source = write(tmp_path, [{"premise": "a", "hypothesis": "b", "label": label}])
    with pytest.raises(DataError, match=r"rows.jsonl:1: field 'label' is .*expected the number of a class"):
        records(Entailments(source))


def test_a_map_of_fields_below_a_derived_source_has_no_effect(tmp_path):
    source = write(tmp_path, [{"premise": "a", "hypothesis": "b", "label": 0}])
    for changes in ({"fields": {"query": "premise", "target": "hypothesis"}}, {"optional": ("title",)}):
        with pytest.raises(ConfigError, match="has no effect below Entailments"):
            records(Entailments(dataclasses.replace(source, **changes)))


def test_bad_rows_are_left_out_and_counted_where_the_source_says_so(tmp_path):
    rows = [
        {"premise": "p", "hypothesis": "follows", "label": 0},
        {"premise": "p", "hypothesis": "contradicts", "label": 2},
        {"premise": "p", "hypothesis": "x", "label": "perhaps"},
        {"premise": 5, "hypothesis": "x", "label": 0},
    ]
    source = dataclasses.replace(write(tmp_path, rows), on_bad_record="skip", max_bad_share=0.5)
    with (tmp_path / "rows.jsonl").open("a") as f:
        f.write("{\n")
    with pytest.raises(DataError, match="3 of 5 records are bad, more than JsonLines.max_bad_share = 0.5"):
        records(Entailments(source))
    source = dataclasses.replace(source, max_bad_share=0.6)
    made = Entailments(source)
    assert records(made) == records(made) == [{"query": "p", "target": "follows", "negatives": ["contradicts"]}]
    assert made.bad_records.skipped == 3 and "rows.jsonl:3: field 'label' is 'perhaps'" in made.bad_records.first[0]
    with pytest.raises(DataError, match="rows.jsonl:3: field 'label'"):
        records(Entailments(write(tmp_path, rows)))
