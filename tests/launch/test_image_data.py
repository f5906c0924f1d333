"""Pictures from packages and by rule: a small package of each kind becomes images and rows, and scenes are true to themselves."""

import gzip
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from launch_scripts import LAUNCH, script
from PIL import Image

from embed.data import tokenizers
from embed.evaluation import suites


@pytest.fixture(scope="module")
def scenes():
    return script("scenes")


@pytest.fixture(scope="module")
def image_data():
    return script("image_data")


def rows_of(folder):
    return [json.loads(x) for part in ("train", "test") for x in (folder / f"{part}.jsonl").read_text().splitlines()]


def test_stamps(image_data, tmp_path):
    root = tmp_path / "package" / "usr" / "share" / "tuxpaint" / "stamps" / "animals" / "birds"
    root.mkdir(parents=True)
    for name, text in (
        ("owl", "An owl.\nde.utf8=Eine Eule.\nfr.utf8=\n"),
        ("empty", "\nde.utf8=Leer\n"),
        ("drawing", None),
    ):
        Image.new("RGBA", (4, 5), (1, 2, 3, 0)).save(root / f"{name}.png")
        if text is not None:
            (root / f"{name}.txt").write_text(text)
    image_data.main("stamps", tmp_path / "package", tmp_path / "out")
    (row,) = rows_of(tmp_path / "out")
    assert row == {
        "id": "animals/birds/owl",
        "image": "images/animals-birds-owl.png",
        "caption": "An owl.",
        "names": {"en": "An owl.", "de": "Eine Eule."},
        "category": "animals",
        "kind": "animals/birds",
    }
    with Image.open(tmp_path / "out" / row["image"]) as image:
        assert image.mode == "RGBA"


def test_emoji_are_cut_out_of_the_sheets(image_data, tmp_path):
    folder, random = tmp_path / "package" / "package", np.random.default_rng(0)
    entries = []
    for x in range(2):
        entry = {
            "name": "RED HEART" if x else None,
            "unified": f"1F60{x}",
            "short_name": "grin",
            "short_names": ["grin_face"],
        }
        entry |= {"sheet_x": x, "sheet_y": 0, "category": "Smileys", "subcategory": "face-smiling"}
        entries.append(entry | {"has_img_google": True, "has_img_twitter": x == 1})
    sheets = {}
    for vendor in image_data.VENDORS:
        (folder / "img" / vendor / "sheets").mkdir(parents=True)
        sheets[vendor] = random.integers(0, 256, (34, 68, 4)).astype(np.uint8)
        Image.fromarray(sheets[vendor]).save(folder / "img" / vendor / "sheets" / "32.png")
    (folder / "emoji.json").write_text(json.dumps(entries))
    image_data.main("emoji", tmp_path / "package", tmp_path / "out")
    rows = {row["image"]: row for row in rows_of(tmp_path / "out")}
    assert set(rows) == {f"images/{name}.png" for name in ("google-1f600", "google-1f601", "twitter-1f601")}
    cut = np.asarray(Image.open(tmp_path / "out" / "images" / "twitter-1f601.png"))
    np.testing.assert_array_equal(cut, sheets["twitter"][1:33, 35:67])
    assert rows["images/google-1f600.png"]["caption"] == "grin"
    assert rows["images/google-1f601.png"]["long_caption"] == "red heart: grin face. Smileys, face smiling."


def test_tiles_of_the_earth_lie_on_one_another(image_data, tmp_path):
    folder = tmp_path / "package" / "package" / "example" / "img"
    folder.mkdir(parents=True)
    colours = np.zeros((1024, 2048, 3), np.uint8)
    colours[512:, 1024:] = 200  # the south-east
    Image.fromarray(colours).save(folder / "earth-blue-marble.jpg", quality=95)
    Image.fromarray(colours[::4, ::4, 0]).save(folder / "earth-topology.png")
    Image.fromarray(255 - colours[::2, ::2, 0]).save(folder / "earth-water.png")
    image_data.main("earth", tmp_path / "package", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 6 * 16 and {abs(row["latitude"]) for row in rows} == {11.25, 33.75, 56.25}
    for row in rows:
        layers = {x: np.asarray(Image.open(tmp_path / "out" / row[x]), float) for x in ("image", "height", "water")}
        inside = row["latitude"] < -12 and row["longitude"] > 12
        assert layers["image"].shape == (128, 128, 3) and layers["height"].shape == layers["water"].shape == (128, 128)
        if inside:
            assert layers["image"].mean() > 195 and layers["height"].mean() == 200 and layers["water"].mean() == 55


def test_arrays_become_files(image_data, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=images)
    rows = [{"index": 0, "id": "x", "names": {"en": "a", "de": "b"}}, {"index": 1, "id": "y", "names": {"de": "c"}}]
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    image_data.main("arrays", tmp_path / "a.npz", tmp_path / "out")
    one, two = rows_of(tmp_path / "out")
    assert (one["caption"], one["captions"], two["caption"]) == ("a", ["a", "b"], "c")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / two["image"])), images[1])
    assert (tmp_path / "out" / "test.jsonl").read_text() == ""


def test_scenes_as_files_hold_their_truth(image_data, scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(image_data, "SCENES", 40)
    image_data.main("scenes", tmp_path, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 40 and 0 < len((tmp_path / "out" / "test.jsonl").read_text().splitlines()) < 15
    made = scenes.scene(0, int(rows[3]["id"]))
    read = {x: np.asarray(Image.open(tmp_path / "out" / rows[3][x])) for x in ("image", "classes", "depth", "normals")}
    np.testing.assert_array_equal(read["image"], made.pixels)
    np.testing.assert_array_equal(read["classes"], made.classes)
    np.testing.assert_allclose(read["depth"] / 1000, made.depth, atol=6e-4)
    np.testing.assert_allclose(read["normals"] / 127.5 - 1, made.normals, atol=5e-3)
    assert rows[3]["synthetic_caption"] == made.synthetic_caption


def test_scenes_have_a_suite_whose_tasks_can_be_read(image_data, tmp_path, monkeypatch):
    monkeypatch.setattr(image_data, "SCENES", 200)
    image_data.main("scenes", tmp_path, tmp_path / "out")
    suite = suites.read_suite(tmp_path / "out" / "suite.json")
    kinds = {task.name.removeprefix("scenes-"): task.type for task in suite.tasks}
    assert kinds == {
        "pixels": "dense",
        "objects": "dense",
        "text-to-image": "image_retrieval",
        "image-to-text": "image_text_retrieval",
        "names": "image_classification",
        "zero-shot": "zero_shot_classification",
    }
    tasks = {task.name.removeprefix("scenes-"): task for task in suite.tasks}
    assert tasks["pixels"].labels[1] == ["sphere", "a sphere"] and "depth" in tasks["pixels"].test_maps
    assert list(tasks["objects"].labels.values()) == [
        ["sphere", "a sphere"],
        ["square", "a square"],
        ["triangle", "a triangle"],
    ]
    for every, objects in zip(tasks["pixels"].test_maps["classes"], tasks["objects"].test_maps["classes"]):
        classes = np.asarray(Image.open(every)).astype(int)
        np.testing.assert_array_equal(np.asarray(Image.open(objects)), np.where(classes == 0, 255, classes - 1))
    names = {row["name"] for row in rows_of(tmp_path / "out")}
    assert any(name.endswith("sphere") for name in names) and len(names) > 10


@pytest.mark.parametrize("path", ["runs/scenes.gin", "recipes/tips/small_scenes.gin"])
def test_captions_of_scenes_have_enough_words_for_the_vocabulary_of_the_recipe(scenes, path):
    size = int(re.search(r"^VOCAB_SIZE = (\d+)", (LAUNCH.parent / "gin" / path).read_text(), re.M)[1])
    made = [scenes.scene(0, i) for i in range(300)]
    assert tokenizers.train_sentencepiece([x for s in made for x in (s.caption, s.synthetic_caption)], size)


def test_stamps_and_emoji_have_suites(image_data, tmp_path):
    rows = [
        {"id": f"{i}", "image": f"images/{i}.png", "vendor": "v", "caption": f"thing {i // 2}", "category": "ab"[i % 2]}
        for i in range(8)
    ]
    (tmp_path / "images").mkdir()
    for row in rows:
        Image.new("RGB", (4, 4)).save(tmp_path / row["image"])
    script("image_suites").write("emoji", tmp_path, rows[:4], rows[4:])
    suite = suites.read_suite(tmp_path / "suite.json")
    assert [task.name for task in suite.tasks] == ["emoji-categories", "emoji-text-to-image", "emoji-image-to-text"]
    (retrieval,) = suite.tasks[1].subsets.values()
    assert [query.text for query in retrieval.queries] == ["thing 2", "thing 3"] and len(retrieval.corpus) == 4
    assert sorted(map(len, retrieval.qrels.values())) == [2, 2]


def test_scenes_are_functions_of_seed_and_number(scenes):
    one, same, other = scenes.scene(1, 2), scenes.scene(1, 2), scenes.scene(1, 3)
    np.testing.assert_array_equal(one.pixels, same.pixels)
    assert one.caption == same.caption and not np.array_equal(one.pixels, other.pixels)


def test_the_truth_of_scenes(scenes):
    made = [scenes.scene(0, i) for i in range(60)]
    classes = np.stack([s.classes for s in made])
    shares = np.bincount(classes.ravel(), minlength=4) / classes.size
    assert 0.7 < shares[0] < 0.9 and shares[1:].min() > 0.02
    for s in made:
        assert s.depth.min() >= scenes.NEAR and s.depth.max() <= scenes.FAR
        np.testing.assert_allclose(np.linalg.norm(s.normals, axis=-1), 1, atol=1e-5)
        assert [thing.x for thing in s.things] == sorted(thing.x for thing in s.things)
        assert sum(thing.area for thing in s.things) <= (s.classes > 0).sum()
        assert s.caption and all(thing.name in s.synthetic_caption for thing in s.things)
        relation = re.search(r"the (\w+ \w+) is (behind|in front of) the (\w+ \w+)\.", s.synthetic_caption)
        if relation:  # true of some pair with these names
            first, second = ([t.depth for t in s.things if t.name == name] for name in (relation[1], relation[3]))
            further = max(first) > min(second)
            assert further if relation[2] == "behind" else min(first) < max(second)
    # What is nearer hides what is farther: an object's own pixels are about as deep as the object.
    for s in made[:20]:
        for thing in s.things:
            own = s.depth[s.classes == scenes.SHAPES.index(thing.shape)]
            assert own.min() - 0.01 <= thing.depth <= own.max() + 0.31


def test_a_set_that_is_not_known_and_packages_that_are_damaged_or_cannot_be_fetched(tmp_path):
    """A stand-in for npm writes what it is told to."""
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    environment = {"PATH": f"{npm.parent}:/usr/bin:/bin", "PYTHON": sys.executable}

    def run(*words, script="exit 1"):
        npm.write_text(f"#!/bin/sh\n{script}\n")
        npm.chmod(0o755)
        command = [str(LAUNCH / "image_data.sh"), str(tmp_path / "out"), *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    refused = run("cats")
    assert (
        refused.returncode == 64
        and "no set is called cats; known: scenes, stamps, emoji, earth, composed" in refused.stderr
    )
    (tmp_path / "out" / "packages" / "three-globe-2.45.2.tgz").write_bytes(b"cut")
    gone = run("earth")
    assert gone.returncode == 69 and "npm could not fetch three-globe-2.45.2.tgz; look at its settings" in gone.stderr
    damaged = run("earth", script="echo other > three-globe-2.45.2.tgz")
    assert damaged.returncode == 65 and "is another version than the one known, or damaged; remove it" in damaged.stderr
    for ended in (refused, gone, damaged):
        assert ended.stderr.startswith("embed: ") and ended.stderr.count("\n") == 1
    assert not (tmp_path / "out" / "earth").exists()
