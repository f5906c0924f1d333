"""Classification data as pairs: both modes, drawn by seed and line alone."""

import pytest
from source_files import json_lines, records, refused, write

from embed import sources
from embed.errors import ConfigError


def labelled(tmp_path, mode, seed=0, rows=None):
    rows = rows or [{"text": f"{label} {i}", "label": label} for i in range(6) for label in ("red", "green", "blue")]
    rows = [*rows, {"text": "alone", "label": "grey"}]
    return sources.LabelledTexts(write(tmp_path / "l.jsonl", json_lines(*rows)), mode=mode, seed=seed)


def test_labels_as_targets(tmp_path):
    found = list(labelled(tmp_path, "label_as_target").examples())
    assert [location for location, _ in found] == [f"{tmp_path}/l.jsonl:{i + 1}" for i in range(19)]
    for _, record in found:
        label = record["query"].split()[0].replace("alone", "grey")
        assert record["target"] == label
        (other,) = record["negatives"]
        assert other != label and other in ("red", "green", "blue", "grey")
        assert set(record) == {"query", "target", "negatives"}
    assert len({record["negatives"][0] for _, record in found}) == 4


def test_texts_of_the_same_label_as_targets(tmp_path):
    found = list(labelled(tmp_path, "same_label_text_as_target").examples())
    assert [location for location, _ in found] == [f"{tmp_path}/l.jsonl:{i + 1}" for i in range(18)]
    for _, record in found:
        label = record["query"].split()[0]
        assert record["target"].split()[0] == label and record["target"] != record["query"]
        (negative,) = record["negatives"]
        assert negative.split()[0] != label
        assert record["target_key"] == f"label:{label}"
    assert len({record["target"] for _, record in found}) > 6


@pytest.mark.parametrize("mode", ["label_as_target", "same_label_text_as_target"])
def test_choices_depend_on_the_seed_and_nothing_else(tmp_path, mode):
    first, again, other = (records(labelled(tmp_path, mode, seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert [r["query"] for r in first] == [r["query"] for r in other]


def test_number_labels_are_texts(tmp_path):
    path = write(tmp_path / "l.jsonl", json_lines({"text": "a", "label": 0}, {"text": "b", "label": 1}))
    assert [r["target"] for r in records(sources.LabelledTexts(path))] == ["0", "1"]


CATALOGUE = [
    {"text": "99 %", "label": "Malta: Literacy"},
    {"text": "a red cross", "label": "Tonga: Flag"},
    {"text": "98 %", "label": "Tonga: Literacy"},
    {"text": "white and red", "label": "Malta: Flag"},
    {"text": "1,200 km", "label": "Nepal: Border"},
    {"text": "nothing", "label": "no colon"},
]


def test_labels_are_what_a_pattern_finds_and_rare_ones_are_passed_over(tmp_path):
    path = write(tmp_path / "l.jsonl", json_lines(*CATALOGUE))
    found = sources.LabelledTexts(path, label_pattern=r"^[^:]+: (.+)$")
    assert [(r["query"], r["target"]) for _, r in found.examples()] == [
        ("99 %", "Literacy"), ("a red cross", "Flag"), ("98 %", "Literacy"), ("white and red", "Flag"), ("1,200 km", "Border"),
    ]  # fmt: skip
    frequent = sources.LabelledTexts(
        path, label_pattern=r"^[^:]+: (.+)$", min_texts=2, mode="same_label_text_as_target"
    )
    assert [(r["query"], r["target"], r["target_key"]) for _, r in frequent.examples()] == [
        ("99 %", "98 %", "label:Literacy"), ("a red cross", "white and red", "label:Flag"),
        ("98 %", "99 %", "label:Literacy"), ("white and red", "a red cross", "label:Flag"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "label_pattern = '\\('.*; correct it"), ("a", "has 0 groups; put the label in"), ("(a)(b)", "has 2 groups")],
)
def test_a_pattern_has_one_group(pattern, message):
    with pytest.raises(ConfigError, match=message):
        sources.LabelledTexts("l.jsonl", label_pattern=pattern)


def test_a_pattern_that_fits_nothing_leaves_no_labels(tmp_path):
    path = write(tmp_path / "l.jsonl", json_lines(*CATALOGUE))
    refused(sources.LabelledTexts(path, label_pattern="(zzz)"), path, "one label only ('none')")


def test_classification_needs_two_labels_and_a_known_mode(tmp_path):
    path = write(tmp_path / "l.jsonl", json_lines({"text": "a", "label": "x"}, {"text": "b", "label": "x"}))
    refused(sources.LabelledTexts(path), f"{path}: one label only ('x')", "needs two")
    empty = write(tmp_path / "e.jsonl", "")
    refused(sources.LabelledTexts(empty), f"{empty}: ", "needs two")
    message = refused(sources.LabelledTexts(path, mode="labels"), "LabelledTexts.mode = 'labels'")
    assert "label_as_target, same_label_text_as_target" in message


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a", "label": None}, "field 'label'"),
        ({"text": "a", "label": ["x", "y"]}, "field 'label'"),
        ({"text": "a", "label": {"x": 1}}, "field 'label'"),
        ({"text": "a", "label": "  "}, "field 'label' is empty"),
        ({"text": "a", "labels": "x"}, "no field 'label' (mapped to target); did you mean 'labels'?"),
        ({"txt": "a", "label": "x"}, "no field 'text' (mapped to query); did you mean 'txt'?"),
        ({"text": 3, "label": "x"}, "field 'text' is int"),
    ],
)
def test_a_bad_labelled_text_is_refused_with_its_place(tmp_path, row, said):
    path = write(tmp_path / "l.jsonl", json_lines({"text": "a", "label": "x"}, {"text": "b", "label": "y"}, row))
    refused(sources.LabelledTexts(path), f"{path}:3: ", said)


def test_a_repeated_text_is_never_its_own_target(tmp_path):
    rows = [
        *({"text": "same", "label": "a"} for _ in range(3)),
        {"text": "b1", "label": "b"},
        {"text": "b2", "label": "b"},
    ]
    path = write(tmp_path / "l.jsonl", json_lines(*rows))
    found = records(sources.LabelledTexts(path, mode="same_label_text_as_target"))
    assert [(r["query"], r["target"]) for r in found] == [("b1", "b2"), ("b2", "b1")]
    only = write(tmp_path / "o.jsonl", json_lines(*rows[:3], rows[3]))
    refused(sources.LabelledTexts(only, mode="same_label_text_as_target"), str(only), "every label has one text only")
