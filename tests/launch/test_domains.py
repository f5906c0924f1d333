"""Small domains: labels for testing are in no row for training, every query has something to find, and classes are in order."""

import json

import numpy as np
import pytest
from launch_scripts import script
from PIL import Image

from embed.evaluation import suites


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("domains"), np.random.default_rng(0)
    for name, vendors in (("emoji", 2), ("stamps", 1)):
        (folder / "pictures" / name / "images").mkdir(parents=True)
        rows = []
        for i in range(30):
            for vendor in range(vendors):
                path = f"images/{vendor}-{i}.png"
                Image.fromarray(random.integers(0, 256, (9, 7, 4)).astype(np.uint8)).save(
                    folder / "pictures" / name / path
                )
                rows.append({"id": f"{i}", "image": path})
        for part, chosen in (("train", rows[:40]), ("test", rows[40:])):
            lines = "".join(json.dumps(row) + "\n" for row in chosen)
            (folder / "pictures" / name / f"{part}.jsonl").write_text(lines)
    np.savez(
        folder / "signs.npz", images=random.integers(0, 256, (80, 6, 6)).astype(np.uint8), labels=np.arange(80) % 4
    )
    script("domains").main(folder / "pictures", folder / "out", {"signs": folder / "signs.npz"})
    return folder / "out"


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_labels_and_classes(output):
    labels = {name: (output / f"{name}.txt").read_text().splitlines() for name in ("emoji", "stamps", "signs")}
    assert (output / "all.txt").read_text().splitlines() == [x for of_one in labels.values() for x in of_one]
    assert sorted(labels["signs"]) == [f"signs {x}" for x in range(4)]
    for name, known in labels.items():
        train, test = rows(output / f"{name}.jsonl"), rows(output / "universal" / name / "index.jsonl")
        assert {row["label"] for row in train} == set(known)
        assert not {row["image"] for row in train} & {row["image"].removeprefix("../../") for row in test}
        if name != "signs":
            assert not {row["label"] for row in test} & set(known)
        for row in train:
            with Image.open(output / row["image"]) as image:
                assert image.size == (64, 64) and image.mode == "RGB"


def test_the_suite_can_be_read_and_every_query_has_others_to_find(output):
    (task,) = suites.read_suite(output / "suite.json").tasks
    assert list(task.domains) == ["emoji", "signs", "stamps"] and task.remarks == ()
    assert all(domain.queries is None for domain in task.domains.values())


def test_grounds_differ_by_their_name_alone():
    domains = script("domains")
    picture = Image.new("RGBA", (20, 30), (200, 30, 40, 255))
    one, same, other = (np.asarray(domains.on_background(picture, name)) for name in ("a", "a", "b"))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
