"""Folders of domains, and the files of UnED and ILIAS: which images are the index, which the queries, and what they should find."""

import json

import numpy as np
import pytest
from image_files import PICTURES, write
from PIL import Image
from task_files import read, refused

from embed.evaluation.views import View
from embed.inference.search import top_k


def test_folders_that_are_no_domains_and_labels_alone(tmp_path):
    folder = write("universal_retrieval", tmp_path / "t")
    task = read("universal_retrieval", folder)
    assert list(task.domains) == ["one", "two"] and task.domains["one"].queries is None
    assert len(task.domains["two"].queries) == 3 and set(task.parts()) == {"index one", "index two", "queries two"}
    index, queries = task.domains["two"].index, task.domains["two"].queries
    assert task.domains["two"].own_rows == [
        next((i for i, x in enumerate(index) if x.images[0].read_bytes() == query.images[0].read_bytes()), -1)
        for query in queries
    ]
    rows = [json.loads(line) for line in (folder / "one" / "index.jsonl").read_text().splitlines()]
    rows[0]["label"] = "alone"
    (folder / "one" / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read("universal_retrieval", folder).remarks == ("1 queries of one have no image to find and are left out",)
    different = "".join(json.dumps({**row, "label": str(i)}) + "\n" for i, row in enumerate(rows))
    (folder / "one" / "index.jsonl").write_text(different)
    refused("universal_retrieval", folder, "no query has another image of its label in the index")
    (folder / "two" / "index.jsonl").unlink()
    (folder / "one" / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused("universal_retrieval", folder, "it has 1, and two are needed")


def save(path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PICTURES[number]).save(path)


@pytest.fixture
def uned(tmp_path):
    """Two domains: the test images of one are its index; those of the other ask an index, one of them with two classes."""
    lists = {
        "rp2k/test": [("rp2k/all/\u4e2d.png", 7), ("rp2k/all/b.png", 7), ("rp2k/all/c.png", 9)],
        "gldv2/test": [("gldv2/test/a.png", [3, 5]), ("gldv2/test/b.png", [4])],
        "gldv2/index": [("gldv2/index/a.png", 5), ("gldv2/index/b.png", 3), ("gldv2/index/c.png", 8)],
    }
    for name, rows in lists.items():
        file = tmp_path / "info_files" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([{"path": path, "class_id": label} for path, label in rows]))
        for number, (path, _) in enumerate(rows):
            save(tmp_path / "images" / path.replace("\u4e2d", "#U4e2d"), number)
    return tmp_path


def test_uned_is_read_as_its_authors_publish_it(uned):
    task = read("universal_retrieval", uned)
    assert list(task.domains) == ["gldv2", "rp2k"]
    landmarks, products = task.domains.values()
    assert (
        products.queries is None and products.index_labels == ["7", "7", "9"] and list(products.relevant) == [1, 1, 0]
    )
    assert products.index[0].images[0].name == "#U4e2d.png"  # as unzip writes it
    assert landmarks.labels == [("3", "5"), ("4",)] and list(landmarks.relevant) == [2, 0]
    assert sorted(task.remarks) == [
        "1 queries of gldv2 have no image to find and are left out",
        "1 queries of rp2k have no image to find and are left out",
    ]
    vectors = {part: np.eye(8, dtype=np.float32)[: len(items.items)] for part, items in task.parts().items()}
    vectors["queries gldv2"] = np.eye(8, dtype=np.float32)[[1, 0]]
    scores = task.score(vectors.__getitem__, View(8), top_k).scores
    assert scores["r1_separate/gldv2"] == 1 and scores["mmp_at_5_separate/gldv2"] == 1


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("rp2k/test", [{"path": "rp2k/all/b.png"}], "needs a field 'class_id'"),
        ("rp2k/test", [{"path": "rp2k/all/b.png", "class_id": []}], "needs a field 'class_id'"),
        ("rp2k/test", [{"path": "rp2k/all/b.png", "class_id": [1, 2]}], "an image of an index has one 'class_id'"),
        ("gldv2/index", [{"path": "gldv2/index/a.png", "class_id": [5, 3]}], "an image of an index has one 'class_id'"),
        ("rp2k/test", [{"path": "rp2k/all/z.png", "class_id": 1}], "rp2k/all/z.png is not there"),
        ("rp2k/test", [], "nothing in it"),
    ],
)
def test_what_is_wrong_in_uned_is_told(uned, name, rows, message):
    (uned / "info_files" / f"{name}.json").write_text(json.dumps(rows))
    refused("universal_retrieval", uned, message)


def test_a_domain_of_uned_without_its_list_is_refused(uned):
    (uned / "info_files" / "rp2k" / "test.json").unlink()
    refused("universal_retrieval", uned, "rp2k: has no test.json")


def test_ilias_is_one_domain_with_distractors(tmp_path):
    for number, name in enumerate(
        ("vase/query/Q0.png", "vase/pos/P0.png", "vase/pos/P1.png", "mask/query/Q1.png", "mask/pos/P2.png")
    ):
        save(tmp_path / name, number)
    save(tmp_path / "distractors" / "00" / "d.png", 5)
    (tmp_path / "distractors" / "00" / "d.json").write_text("{}")
    task = read("universal_retrieval", tmp_path)
    (domain,) = task.domains.values()
    assert domain.index_labels == ["mask", "vase", "vase", ""] and domain.query_labels == ["mask", "vase"]
    assert list(domain.relevant) == [1, 2]
    (tmp_path / "vase" / "pos").rename(tmp_path / "vase" / "positives")
    refused("universal_retrieval", tmp_path, "vase: needs the folders query and pos of images")
