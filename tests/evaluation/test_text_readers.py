"""Files of tasks that compare, classify and group texts: what is read; wrong ones are refused with file, line and advice."""

import pytest
from task_files import (
    read,
    refused,
    write_json,
    write_tsv,
)

# pairs


STS = [("a cat", "a feline", "4.5"), ("a cat", "a car", "0"), (" one ", "two", "1.25")]


def test_pairs_and_their_scores_are_read(tmp_path):
    task = read("sts", write_tsv(tmp_path / "p.tsv", "sentence1 sentence2 score", STS))
    assert task.first == ["a cat", "a cat", " one "] and task.second == ["a feline", "a car", "two"]
    assert task.gold == [4.5, 0.0, 1.25]


def test_columns_may_stand_in_any_order_beside_others(tmp_path):
    rows = [("x", score, b, a) for a, b, score in STS]
    task = read("sts", write_tsv(tmp_path / "p.tsv", "genre score sentence2 sentence1", rows))
    assert task.first[:2] == ["a cat", "a cat"] and task.gold == [4.5, 0.0, 1.25]


@pytest.mark.parametrize("score", ["high", "", "nan", "inf"])
def test_a_score_that_is_no_number_is_refused(tmp_path, score):
    path = write_tsv(tmp_path / "p.tsv", "sentence1 sentence2 score", [*STS, ("a", "b", score)])
    refused("sts", path, f"{path}:5", "number in score")


@pytest.mark.parametrize(
    "kind, header, wanted",
    [
        ("sts", "sentence1 sentence2 gold", "no column 'score'"),
        ("sts", "first sentence2 score", "sentence1"),
        ("pair_classification", "sentence1 sentence2 gold", "no column 'label'"),
        ("bitext", "src other score", "tgt"),
        ("bitext", "other tgt score", "src"),
    ],
)
def test_columns_must_be_there(tmp_path, kind, header, wanted):
    path = write_tsv(tmp_path / "p.tsv", header, [("a", "b", "1"), ("c", "d", "0")])
    refused(kind, path, f"{path}:2", wanted)


@pytest.mark.parametrize("kind", ["sts", "pair_classification", "bitext"])
def test_an_empty_sentence_is_read_and_a_tab_too_many_refused(tmp_path, kind):
    header = {"sts": "sentence1 sentence2 score", "pair_classification": "sentence1 sentence2 label"}.get(
        kind, "src tgt n"
    )
    path = write_tsv(tmp_path / "p.tsv", header, [("a", "b", "0"), ("a", " ", "1"), ("", "b", "1")])
    first, second = (part.items for part in read(kind, path).parts().values())
    assert first == ["a", "a", ""] and second == ["b", "", "b"]
    assert read(kind, path).remarks == ("2 texts are empty; they are embedded as empty texts, as in MTEB",)
    path = write_tsv(tmp_path / "p.tsv", header, [("a", "b", "0"), ("a", "b", "c", "1")])
    refused(kind, path, f"{path}:3")


def test_labels_are_zero_or_one(tmp_path):
    header = "sentence1 sentence2 label"
    path = write_tsv(tmp_path / "p.tsv", header, [("a", "b", "1"), ("c", "d", "0"), ("e", "f", "1.0")])
    assert read("pair_classification", path).labels == [1, 0, 1]
    for bad in ("2", "-1", "0.5", "yes", "", "nan"):
        path = write_tsv(tmp_path / "p.tsv", header, [("a", "b", "1"), ("c", "d", bad)])
        refused("pair_classification", path, f"{path}:3", "label")


@pytest.mark.parametrize("label", ["0", "1"])
def test_pairs_of_one_label_are_refused(tmp_path, label):
    rows = [("a", "b", label), ("c", "d", label)]
    path = write_tsv(tmp_path / "p.tsv", "sentence1 sentence2 label", rows)
    refused("pair_classification", path, path, f"every label is {label}", "pairs of both kinds are needed")


def test_translations_are_read_line_by_line(tmp_path):
    rows = [("ein Haus", "a house"), ('"Ja"', '"Yes"')]  # there is no quoting
    task = read("bitext", write_tsv(tmp_path / "b.tsv", "src tgt", rows))
    assert task.sources == ["ein Haus", '"Ja"'] and task.targets == ["a house", '"Yes"']


# summaries


SUMMARY = {"human_summaries": ["h"], "machine_summaries": ["m", "n"], "relevance": [1, 2.5]}


def test_summaries_are_read_with_a_grade_for_each(tmp_path):
    rows = [SUMMARY, {**SUMMARY, "human_summaries": ["a", "b"], "text": "not needed"}]
    task = read("summarization", write_json(tmp_path / "s.jsonl", rows))
    assert task.human == [["h"], ["a", "b"]] and task.machine == [["m", "n"]] * 2 and task.gold == [[1.0, 2.5]] * 2


@pytest.mark.parametrize(
    "field, value",
    [
        ("human_summaries", []),
        ("human_summaries", "h"),
        ("human_summaries", [None]),
        ("machine_summaries", ["m"]),
        ("machine_summaries", [1, 2]),
        ("relevance", [1]),
        ("relevance", None),
        ("relevance", ["good", "bad"]),
        ("relevance", [1, None]),
        ("relevance", [1, float("nan")]),
    ],
)
def test_summaries_without_a_grade_for_each_are_refused(tmp_path, field, value):
    path = write_json(tmp_path / "s.jsonl", [SUMMARY, {**SUMMARY, field: value}])
    refused("summarization", path, f"{path}:2")


# classification and clustering


def splits(folder, train, test, suffix=""):
    write_json(folder / f"train.jsonl{suffix}", train)
    write_json(folder / f"test.jsonl{suffix}", test)
    return folder


ROWS = [{"text": "a", "label": "x"}, {"text": "b", "label": 1}, {"text": "c", "label": True}]


def test_labels_are_read_as_texts(tmp_path):
    task = read("classification", splits(tmp_path, ROWS, ROWS[:1]))
    assert task.train == ["a", "b", "c"] and task.train_labels == ["x", "1", "1"]
    assert task.test == ["a"] and task.test_labels == ["x"] and task.per_label == 8


def test_the_parts_may_be_files_of_their_own(tmp_path):
    train = write_json(tmp_path / "one.jsonl", ROWS)
    test = write_json(tmp_path / "two.jsonl.gz", ROWS[1:])
    task = read("classification", test, train_path=train, samples_per_label=32)
    assert task.train_labels == ["x", "1", "1"] and task.test == ["b", "c"] and task.per_label == 32


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_classification_folder_without_a_part_is_refused(tmp_path, name):
    for kind in ("classification", "multilabel_classification"):
        splits(tmp_path, ROWS, ROWS)
        (tmp_path / f"{name}.jsonl").unlink()
        refused(kind, tmp_path, f"{name}.jsonl", "train and test")


def test_one_label_in_the_training_is_refused(tmp_path):
    splits(tmp_path, [ROWS[0], {"text": "z", "label": "x"}], ROWS)
    refused("classification", tmp_path, tmp_path, "one label only")


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a"},
        {"text": "a", "label": None},
        {"text": "a", "label": ["x"]},
        {"label": "x"},
        {"text": "a", "label": {}},
    ],
)
def test_a_text_without_its_one_label_is_refused(tmp_path, row):
    splits(tmp_path, ROWS, [*ROWS, row])
    refused("classification", tmp_path, "test.jsonl:4")


def test_a_part_without_texts_is_refused(tmp_path):
    for kind in ("classification", "multilabel_classification"):
        refused(kind, splits(tmp_path, ROWS, []), "test.jsonl")
        refused(kind, splits(tmp_path, [], ROWS), "train.jsonl")


def test_a_text_may_have_any_number_of_labels(tmp_path):
    rows = [{"text": "a", "label": ["x", 2]}, {"text": "b", "labels": []}, {"text": "c", "label": "y"}]
    task = read("multilabel_classification", splits(tmp_path, rows, rows))
    assert task.train_labels == task.test_labels == [["x", "2"], [], ["y"]]


def test_one_label_in_all_test_texts_is_nothing_to_tell_apart(tmp_path):
    rows = [{"text": "a", "label": ["x"]}, {"text": "b", "label": []}]
    refused("multilabel_classification", splits(tmp_path, rows, rows), tmp_path)


def test_labels_to_cluster_may_go_from_coarse_to_fine(tmp_path):
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": ["y", "y1"]}, {"text": "c", "labels": ["x", 2]}]
    task = read("clustering", write_json(tmp_path / "c.jsonl", rows), fraction=0.5)
    # MTEB's mark of a level that is not there is one more label among words; among numbers it is left out.
    assert task.labels == [["x", "-1"], ["y", "y1"], ["x", "2"]] and task.fraction == 0.5
    numbers = [{"text": "a", "label": 1}, {"text": "b", "label": [2, 21]}]
    assert read("clustering", write_json(tmp_path / "n.jsonl", numbers)).labels == [["1"], ["2", "21"]]
    assert read("clustering", tmp_path / "c.jsonl").fraction is None


def test_one_label_to_cluster_is_refused(tmp_path):
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": ["x", "fine"]}, {"text": "c", "label": []}]
    path = write_json(tmp_path / "c.jsonl", rows)
    refused("clustering", path, path, "one label only")


def test_a_fraction_leaves_some_texts(tmp_path):
    path = write_json(tmp_path / "c.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    refused("clustering", path, "a fraction of 0.01 leaves none of 2 texts; raise it", fraction=0.01)


def test_sets_of_sentences_are_known_by_their_form(tmp_path):
    rows = [{"sentences": ["a", "b", ""], "labels": ["x", 2, "x"]}, {"sentences": ["c"], "labels": ["y"]}]
    path = write_json(tmp_path / "s.jsonl", rows)
    for fields in ({}, {"sets": True}):
        task = read("clustering", path, **fields)
        assert (
            task.type == "clustering"
            and task.sets == [["a", "b", ""], ["c"]]
            and task.labels == [["x", "2", "x"], ["y"]]
        )
        assert task.remarks == ("1 texts are empty; they are embedded as empty texts, as in MTEB",)
    refused("clustering", path, 'lines of {"text", "label"}, each a text', sets=False)
    for field, value in {
        "fraction": 0.5,
        "max_document_to_embed": 2,
        "max_depth": 1,
        "max_documents_per_cluster": 9,
    }.items():
        refused("clustering", path, f"{field} has no effect on sets", **{field: value})
    refused("clustering", path, "v_measure alone", main="ami")
    flat = write_json(tmp_path / "f.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    refused("clustering", flat, '{"sentences": [...], "labels": [...]}, each a set', sets=True)


@pytest.mark.parametrize(
    "row",
    [
        {"sentences": ["a"], "labels": []},
        {"sentences": ["a"], "labels": ["x", "y"]},
        {"sentences": "a", "labels": ["x"]},
        {"sentences": [3], "labels": ["x"]},
        {"sentences": ["a"], "labels": [None]},
        {"text": "a", "label": "x"},
    ],
)
def test_a_set_has_a_label_for_each_sentence(tmp_path, row):
    path = write_json(tmp_path / "s.jsonl", [{"sentences": ["a", "b"], "labels": ["x", "y"]}, row])
    refused("clustering", path, f"{path}:2")


# cross-validation and regression


def test_cross_validation_splits_one_file(tmp_path):
    rows = [{"text": f"t{i}", "label": "xy"[i % 2]} for i in range(6)]
    path = write_json(tmp_path / "all.jsonl", rows)
    task = read("classification", path, is_cross_validation=True, samples_per_label=2)
    assert task.cross_validated and task.test == [f"t{i}" for i in range(6)] and task.per_label == 2
    refused("classification", path, "train_path has no effect", is_cross_validation=True, train_path=path)
    refused("classification", path, "n_experiments has no effect", is_cross_validation=True, n_experiments=3)
    few = write_json(tmp_path / "few.jsonl", rows[:4])
    refused("classification", few, few, "five texts or more", is_cross_validation=True)
    one = write_json(tmp_path / "one.jsonl", [{**row, "label": "x"} for row in rows])
    refused("classification", one, one, "two labels or more", is_cross_validation=True)


@pytest.mark.parametrize("value", [None, "1.5", True, [1], float("nan"), float("inf"), 10**400])
def test_a_value_to_predict_is_a_number(tmp_path, value):
    good = [{"text": "a", "value": 1}, {"text": "b", "value": -2.5}]
    folder = splits(tmp_path, good, [*good, {"text": "c", "value": value}])
    refused("regression", folder, "test.jsonl:3", "'value' with a finite number")


def test_a_regression_is_fitted_on_no_more_than_mteb_fits(tmp_path):
    good = [{"text": "a", "value": 1}, {"text": "b", "value": 2}]
    task = read("regression", splits(tmp_path, good * 1024, good))
    assert len(task.train) == 2048 and task.test_values == [1, 2]
    refused("regression", splits(tmp_path, [*good * 1024, good[0]], good), "2,049 training texts", "no more than that")
    refused("regression", splits(tmp_path, good, good[:1]), "all test values are equal")


@pytest.mark.parametrize("ones", [(0, 1), (0.0, 1.0), (False, True), ("0", "1")])
def test_equal_numbers_are_one_label(tmp_path, ones):
    train = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    test = [{"text": "a", "label": ones[0]}, {"text": "b", "label": ones[1]}]
    task = read("classification", splits(tmp_path, train, test))
    assert task.train_labels == task.test_labels == ["0", "1"]


def test_a_label_that_is_no_number_is_refused(tmp_path):
    rows = [{"text": "a", "label": float("nan")}, {"text": "b", "label": "x"}]
    refused("classification", splits(tmp_path, rows, rows), "train.jsonl:1", "a label is nan")
