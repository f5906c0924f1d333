"""Folders and files of pairs, each file a task."""

import json

import pytest

from embed.data.folders import task_per_file
from embed.errors import ConfigError, DataError
from embed.sources.record_files import JsonLines, TabSeparated


@pytest.fixture
def folder(tmp_path):
    row = {"query": "a", "positive": "b"}
    (tmp_path / "first.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "second.csv").write_text("query,positive\nc,d\n")
    (tmp_path / "README.md").write_text("what this is")
    (tmp_path / ".hidden.jsonl").write_text("")
    (tmp_path / "more").mkdir()
    return tmp_path


def test_a_folder_is_all_files_of_pairs_in_it(folder):
    tasks = task_per_file(str(folder))
    assert [(task.name, type(task.source)) for task in tasks] == [("first", JsonLines), ("second", TabSeparated)]
    assert [record["target"] for task in tasks for _, record in task.source.examples()] == ["b", "d"]
    assert [task.name for task in task_per_file([str(folder / "second.csv"), str(folder / "first.jsonl")])] == [
        "first",
        "second",
    ]


def test_a_folder_without_pairs_is_refused(folder):
    with pytest.raises(ConfigError, match="more: holds no file of pairs .*correct task_per_file.path"):
        task_per_file(str(folder / "more"))
    with pytest.raises(DataError, match="no such file"):
        task_per_file(str(folder / "nothing"))
    with pytest.raises(ConfigError, match="README.md: not a kind of pairs"):
        task_per_file(str(folder / "README.md"))


def test_two_files_of_one_name_are_refused(folder):
    (folder / "first.tsv").write_text("query\tpositive\ne\tf\n")
    with pytest.raises(ConfigError, match="two files are called 'first'"):
        task_per_file(str(folder))


def test_roles_may_be_paths_of_images(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    (tmp_path / "rows").mkdir()
    row = {"text": "[MASK_0] and [MASK_1]", "images": ["../a.png", "../b.png"], "target": "../c.png"}
    (tmp_path / "rows" / "both.jsonl").write_text(json.dumps(row) + "\n")
    fields = {"query": "text", "query_images": "images", "target": "target"}
    (task,) = task_per_file(str(tmp_path / "rows"), fields, image_paths=("query_images", "target"))
    ((_, record),) = task.source.examples()
    assert (record["query_images"], record["target"]) == ([b"a", b"b"], b"c")
    (tmp_path / "image.jsonl").write_text(json.dumps({"image": "a.png"}) + "\n")
    (task,) = task_per_file(str(tmp_path / "image.jsonl"), {"image": "image"}, image_paths=True)
    assert [record["image"] for _, record in task.source.examples()] == [b"a"]


@pytest.mark.parametrize("name", ["B.JSONL", "c.ndjson", "f.jsonl.bz2", "sub/e.jsonl"])
def test_data_in_a_folder_that_would_not_be_read_is_refused(folder, name):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    with pytest.raises(ConfigError, match=rf"{path.parent if '/' in name else path}: .* name .*/\*.jsonl"):
        task_per_file(str(folder))
    assert [task.name for task in task_per_file(str(folder / "*.jsonl"))] == ["first"]
