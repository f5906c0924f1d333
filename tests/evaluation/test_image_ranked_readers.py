"""Folders of queries of a text and images. The other types of `image_ranked_readers` are in test_image_readers."""

import json

import pytest
from image_files import write_images
from task_files import read, refused


@pytest.fixture
def folder(tmp_path):
    names = write_images(tmp_path)
    rows = [
        {
            "_id": "a",
            "text": "[MASK_0] as b",
            "unmasked": "x as b",
            "images": [names[0]],
            "kind": "k",
            "language": "en",
        },
        {"_id": "b", "text": "[MASK_1] [MASK_0]", "images": [names[0], names[1]], "excluded": ["g2"], "kind": "l"},
        {"_id": "c", "text": "[MASK_0]", "images": [names[1]]},
    ]
    corpus = [{"_id": f"g{i}", "image": name} for i, name in enumerate(names)]
    for name, lines in (("queries", rows), ("corpus", corpus)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\na\tg2\t1\nb\tg3\t1\n")
    (tmp_path / "ceilings.json").write_text('{"text/r1": 0.05}')
    return tmp_path


def test_a_folder_is_read_and_its_own_images_are_known_by_their_bytes(folder):
    task = read("mixed_retrieval", folder)
    assert [q.targets for q in task.queries] == [{2}, {3}]  # c has no judgement
    assert [q.excluded for q in task.queries] == [{0}, {0, 1, 2}]
    assert task.queries[0].unmasked == "x as b" and task.queries[0].groups == {"language": "en", "kind": "k"}
    assert task.ceilings == {"text/r1": 0.05} and len(task.gallery) >= 4


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("queries", {"_id": "a", "text": "as b", "images": ["{0}"]}, "image 0 has no place in the text"),
        ("queries", {"_id": "a", "text": "b"}, "a query has at least one image; add it, or remove the line"),
        (
            "queries",
            {"_id": "a", "text": "[MASK_0]", "images": ["{0}"], "excluded": ["x"]},
            "field 'excluded' has 'x', which is not in the gall",
        ),
        (
            "queries",
            {"_id": "a", "text": "[MASK_0]", "images": ["{2}"]},
            "every relevant image is excluded as the query's own",
        ),
        (
            "corpus",
            {"_id": "g2", "text": "no image"},
            "an image of the gallery has one field, 'image'; correct the line",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(folder, name, line, message):
    path = folder / f"{name}.jsonl"
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    names = [json.loads(row)["image"] for row in (folder / "corpus.jsonl").read_text().splitlines()]
    if "images" in line:
        line = {**line, "images": [names[int(x.strip("{}"))] for x in line["images"]]}
    rows = [line if row["_id"] == line["_id"] else row for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused("mixed_retrieval", folder, f"{name}.jsonl:", message)
