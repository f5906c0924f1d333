"""Which files belong into a bucket, and the order in which they go there."""

import pytest

from embed.buckets import naming


@pytest.mark.parametrize(
    ("name", "is_shared"),
    [
        ("a", True), ("a/b.json", True), (".a", False), ("a/.b", False), (".a/b", False), (".t.parts/part-1.json", True),
        ("output.log", False), ("a/output.log", True), ("checkpoints/7.orbax-checkpoint-tmp-3/x", False), (".uploading", False),
        ("checkpoints/4/params/a.kernel/.zarray", True), ("checkpoints/4/.written/1.json", False),
    ],
)  # fmt: skip
def test_what_belongs_there(name, is_shared):
    assert naming.is_shared(name) == is_shared


def test_steps_manifests_and_groups():
    assert naming.step_of("run/checkpoints/12/params/x") == "run/checkpoints/12"
    assert naming.step_of("checkpoints/12/MANIFEST.json") == "checkpoints/12"
    assert naming.step_of("checkpoints/12.damaged/x") is None and naming.step_of("model/params/x") is None
    local = [
        "a/x",
        "a/b/y",
        "a/MANIFEST.json",
        "best.json",
        "index.json",
        "b/index.json",
        "model.safetensors.index.json",
    ]
    assert [naming.group(name, local) for name in local] == [0, 0, 1, 2, 3, 3, 2]


def test_patterns():
    assert naming.matches("a/b.jsonl", "*/*.jsonl") and not naming.matches("a/b/c.jsonl", "*/*.jsonl")
    assert not naming.matches("a.json", "*.jsonl")


def test_names_that_are_no_paths():
    assert naming.is_path("a/b.c") and naming.is_path("..a/b..")
    assert not any(map(naming.is_path, ("/a", "a//b", "../a", "a/../b", "./a", "a/.", "")))
