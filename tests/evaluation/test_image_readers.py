"""Tasks of images from folders and arrays; what is missing or damaged is named."""

import json
import pathlib

import image_files
import numpy as np
import pytest
from image_files import PICTURES, write, write_arrays
from task_files import read, refused

from embed.types import Item

NAMES = [{"index": i, "id": f"p{i}", "names": {"en": f"thing {i % 5}", "de": f"Ding {i}"}} for i in range(6)]


def images_of(part):
    return [np.asarray(part.item(row).images[0]) for row in range(len(part))]


def test_names_are_queries_language_by_language(tmp_path):
    """Two pictures of one English name are both right for it."""
    path = write_arrays(tmp_path / "p.npz", NAMES)
    task = read("image_retrieval", path, languages=["de", "en"])
    assert list(task.subsets) == ["de", "en"]
    english = task.subsets["en"]
    assert english.queries == [f"thing {i}" for i in range(5)] and len(english.corpus) == 6
    assert english.qrels["thing 0"] == {"p0": 1.0, "p5": 1.0} and english.qrels["thing 1"] == {"p1": 1.0}
    parts = task.parts()
    assert list(parts) == ["queries de", "corpus de", "queries en", "corpus en"]
    np.testing.assert_array_equal(images_of(parts["corpus en"]), PICTURES)
    assert list(read("image_retrieval", path).subsets) == ["de", "en"]  # all that there are


def test_pictures_are_queries_of_their_names(tmp_path):
    task = read("image_text_retrieval", write_arrays(tmp_path / "p.npz", NAMES), languages=["en"]).subsets["en"]
    assert task.corpus == [f"thing {i}" for i in range(5)] and task.qrels["p5"] == {"thing 0": 1.0}
    np.testing.assert_array_equal(images_of(task.parts()["queries"]), PICTURES)


def test_a_folder_may_mix_texts_and_images(tmp_path):
    folder = write("image_retrieval", tmp_path / "t")
    rows = [
        {"id": "a", "text": "as in", "image": "images/1.png"},
        {"id": "b", "images": ["images/2.png", "images/3.png"]},
    ]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\na\ti1\t1\nb\ti2\t1\n")
    task = read("image_retrieval", folder).subsets["all"]
    path = folder / "images"
    assert task.queries == [
        Item("as in", None, (path / "1.png",)),
        Item(None, None, (path / "2.png", path / "3.png")),
    ]
    assert task.rules == read("image_retrieval", folder, skip_first_result=False).subsets["all"].rules
    assert read("image_retrieval", folder, skip_first_result=True).subsets["all"].rules.skip_first_result


def test_candidates_are_those_of_mtebs_folder_and_what_is_odd_is_remarked(tmp_path):
    folder = write("image_retrieval", tmp_path / "t")
    queries = [{"id": "a", "text": "x"}, {"id": "i2", "image": "images/2.png"}]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\na\ti1\t1\na\tgone\t1\ni2\ti3\t1\n")
    (folder / "top_ranked.jsonl").write_text(json.dumps({"query-id": "a", "corpus-ids": ["i1", "i3"]}) + "\n")
    task = read("image_retrieval", folder)
    assert task.subsets["all"].candidates == {"a": ["i1", "i3"]}
    assert list(task.remarks) == [
        "1 judgements name documents that are not in the corpus; they count as never found, as in MTEB",
        "1 queries have no candidates in top_ranked; they score 0, as in MTEB",
        "1 queries are documents too, by id and content; set ignore_identical_ids to leave them out",
    ]
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\na\ti1\t0\n")
    refused("image_retrieval", folder, "no query has a relevant document")


def test_training_images_are_those_of_the_split_the_even_drawers_or_positions(tmp_path):
    labels = np.array(list("aabbab"))
    split = np.array(["train", "test"] * 3)
    for name, arrays, chosen in (
        ("split", {"split": np.roll(split, 1)}, [1, 3, 5]),
        ("drawer", {"drawer": np.array([0, 0, 1, 1, 2, 2])}, [0, 1, 4, 5]),
        ("positions", {}, [0, 2, 4]),
    ):
        task = read("image_classification", write_arrays(tmp_path / f"{name}.npz", labels=labels, **arrays))
        others = [i for i in range(6) if i not in chosen]
        assert task.train_labels == [labels[i] for i in chosen] and task.test_labels == [labels[i] for i in others]
        np.testing.assert_array_equal(images_of(task.parts()["train"]), PICTURES[chosen])
        assert (task.per_label, task.experiments) == (16, 5)


def test_labels_are_called_by_their_texts_or_are_texts_themselves(tmp_path):
    task = read("zero_shot_classification", write("zero_shot_classification", tmp_path / "t"))
    assert task.candidates == ["the letter x", "the letter y"] and task.gold == [0, 1] * 3
    arrays = write_arrays(tmp_path / "p.npz", labels=np.array(list("bbabab")))
    task = read("zero_shot_classification", arrays)
    assert task.candidates == ["a", "b"] and task.gold == [1, 1, 0, 1, 0, 1]
    assert read("image_clustering", arrays).labels == list("bbabab")


def test_pairs_of_an_image_and_a_text(tmp_path):
    rows = [{"index": i, "text": f"text {i}", "label": i % 2} for i in range(6)]
    task = read("pair_classification", write_arrays(tmp_path / "p.npz", rows))
    assert task.labels == [0, 1] * 3 and task.second == [f"text {i}" for i in range(6)]
    np.testing.assert_array_equal(images_of(task.parts()["first"]), PICTURES)


@pytest.mark.parametrize(
    ("kind", "arrays", "rows", "message"),
    [
        ("image_retrieval", {"images": PICTURES.astype(float)}, NAMES, "needs the array 'images' of uint8"),
        ("image_retrieval", {"images": PICTURES[0, 0]}, NAMES, "needs the array 'images' of uint8"),
        ("image_retrieval", {}, None, "has no p.jsonl"),
        ("image_retrieval", {}, NAMES[:5], "has 5 rows, and p.npz 6 images"),
        ("image_retrieval", {}, [{**row, "id": "p"} for row in NAMES], "p.jsonl:2: the id 'p' stands twice"),
        ("image_classification", {}, None, "needs the array 'labels'"),
        ("image_classification", {"labels": np.array(["a"] * 6)}, None, "training images of two labels"),
        ("image_clustering", {"labels": np.array(["a"] * 6)}, None, "one label only"),
        ("pair_classification", {}, [{"text": "a", "label": 2}] * 6, "p.jsonl:1: needs a field 'label', 0 or 1"),
        ("pair_classification", {}, [{"text": "a", "label": 1}] * 6, "every label is 1"),
    ],
)
def test_arrays_that_are_no_task(tmp_path, kind, arrays, rows, message):
    refused(kind, write_arrays(tmp_path / "p.npz", rows, **arrays), message)


def test_a_language_without_names_and_a_damaged_file(tmp_path):
    path = write_arrays(tmp_path / "p.npz", NAMES)
    refused("image_retrieval", path, "no image has a name in 'fr'", languages=["fr"])
    path.write_bytes(path.read_bytes()[:100])
    refused("image_retrieval", path, "p.npz: cannot be read", "restore it from its source")


def replaced(folder: pathlib.Path, name: str, **changes) -> pathlib.Path:
    rows = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    rows[1] = {k: v for k, v in (rows[1] | changes).items() if v is not None}
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(
    ("kind", "name", "changes", "message"),
    [
        (
            "image_classification",
            "test.jsonl",
            {"image": "images/nowhere.png"},
            "nowhere.png is not there; correct the path",
        ),
        ("image_classification", "train.jsonl", {"image": None}, "train.jsonl:2: "),
        ("image_classification", "train.jsonl", {"label": None}, "train.jsonl:2: needs a field 'label'"),
        ("image_retrieval", "corpus.jsonl", {"image": None}, "corpus.jsonl:2: needs a field 'image' or 'text'"),
        ("zero_shot_classification", "test.jsonl", {"label": "z"}, "the label 'z' has no text"),
        (
            "visual_sts",
            "test.jsonl",
            {"score": "much"},
            "test.jsonl:2: needs a field 'score' with a number, not 'much'",
        ),
        ("compositionality", "test.jsonl", {"texts": ["a"]}, "test.jsonl:2: has another number of images or texts"),
        ("compositionality", "test.jsonl", {"texts": "a"}, "test.jsonl:2: needs the lists 'images' and 'texts'"),
    ],
)
def test_rows_that_are_no_task(tmp_path, kind, name, changes, message):
    refused(kind, replaced(image_files.write(kind, tmp_path / "t"), name, **changes), message)
