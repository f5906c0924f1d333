"""Tasks of pixels through files and a stand-in's patches: good patches score high, poor ones at the floor; maps that do not fit."""

import dataclasses
import io
import json
import types

import numpy as np
import pytest
from image_files import write, write_images
from PIL import Image
from task_files import read, refused

from embed.errors import DataError, UsageError
from embed.evaluation import dense, runner
from embed.evaluation.embeddings import Embeddings
from embed.evaluation.suites import Suite
from embed.evaluation.views import View

SIZE, GRID = 16, 4


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Blocks of 4 x 4 pixels with a class, a depth and a direction each."""
    folder, random = tmp_path_factory.mktemp("dense"), np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = []
    for i in range(60):
        blocks = random.integers(0, 3, (GRID, GRID)).astype(np.uint8)
        classes = np.kron(blocks, np.ones((4, 4), np.uint8))
        classes[0, 0] = 255  # ignored
        depth = 1000 + 500 * blocks.astype(np.uint16)
        normals = np.array([[255, 128, 128], [128, 255, 128], [128, 128, 255]], np.uint8)[blocks]
        layers = {
            "classes": classes,
            "depth": np.kron(depth, np.ones((4, 4), np.uint16)),
            "normals": normals.repeat(4, 0).repeat(4, 1),
        }
        row = {"image": f"images/{i}.png"}
        Image.fromarray(np.kron(blocks * 80, np.ones((4, 4), np.uint8))).save(folder / row["image"])
        for layer, array in layers.items():
            row[layer] = f"images/{i}-{layer}.png"
            Image.fromarray(array).save(folder / row[layer])
        rows.append(json.dumps(row))
    (folder / "train.jsonl").write_text("\n".join(rows[:40]) + "\n")
    (folder / "test.jsonl").write_text("\n".join(rows[40:]) + "\n")
    return read("dense", folder)


def seeing(items, values=False):
    """Patches that know their block's class."""
    blocks = []
    for item in items:
        if isinstance(item.images[0], Image.Image):
            blocks.append(np.asarray(item.images[0])[1::4, 1::4, 0].reshape(-1) // 80)
            continue
        with Image.open(item.images[0]) as image:
            blocks.append(np.asarray(image)[::4, ::4].reshape(-1) // 80)
    return np.eye(3, dtype=np.float32)[np.array(blocks)], GRID, GRID


def blind(items, values=False):
    return np.zeros((len(items), GRID * GRID, 2), np.float32), GRID, GRID


def test_patches_that_know_their_class_score_high_and_others_do_not(task):
    good, poor = (task.score_patches(patches).scores for patches in (seeing, blind))
    assert good["miou"] > 0.7 and good["miou_ridge"] > 0.6 and good["ari"] == pytest.approx(1.0)
    assert poor["miou"] < 0.45 and abs(poor["ari"]) < 0.2
    assert good["depth_rmse"] < 0.6 * poor["depth_rmse"] and good["normals_degrees"] < 0.8 * poor["normals_degrees"]


def test_classes_are_told_by_their_names_where_they_have_some(task):
    """The vectors of two texts a class; the last one of class 0 points elsewhere."""
    named = dataclasses.replace(task, labels={0: ["zero", "nought"], 1: ["one", "first"], 2: ["two", "second"]})
    assert named.parts()["names"].items == ["zero", "nought", "one", "first", "two", "second"]
    assert task.parts() == {} and "zero_shot_miou" not in task.score_patches(seeing).scores
    vectors = np.eye(3, dtype=np.float32).repeat(2, 0)
    right = named.score_patches(seeing, vectors, SIZE).scores["zero_shot_miou"]
    wrong = named.score_patches(seeing, vectors[::-1], SIZE).scores["zero_shot_miou"]
    assert right > 0.55 and right > wrong + 0.2
    some = dataclasses.replace(task, labels={0: ["zero"], 2: ["two"]})
    with pytest.raises(DataError, match="class 1 has no name in labels.jsonl; add it"):
        some.score_patches(seeing, np.eye(18, 3, dtype=np.float32), SIZE)


def test_examples_are_drawn_with_every_map(task):
    rows = task.score_patches(seeing).pictures()
    assert len(rows) == 6
    maps = ["classes", "depth", "normals"]
    named = [label for name in maps for label in (f"{name}, predicted", name)]
    assert [panel.label for panel in rows[0]] == ["image", "components of patches", *named]
    assert all(panel.png.startswith(b"\x89PNG") for row in rows for panel in row)


def test_the_score_is_that_of_the_confusions_of_all_images(task):
    scored = task.score_patches(seeing)
    values = scored.sample.values
    assert scored.sample.of(np.arange(20)) == pytest.approx(scored.scores["miou"])
    assert values.sum() == 20 * (SIZE * SIZE - 1)  # the ignored pixel of each image
    assert scored.scores["miou"] == pytest.approx(dense.mean_iou(values.sum(0).reshape(3, 3)))


def test_a_run_scores_pixels_once_and_shows_them_in_every_view(task):
    suite = Suite("s", [task], {"t": "dense"}, "digest")
    embeddings = Embeddings(lambda *_, **__: pytest.fail("nothing is embedded"), lambda prompt: prompt)
    results = runner.run(suite, embeddings, [View(8), View(4)], None, patches=seeing)
    assert results.scores["t"]["8"] == results.scores["t"]["4"]
    with pytest.raises(UsageError, match="task 't' is of pixels, and vectors of whole images know none"):
        task.score(None, View(8), None)
    with pytest.raises(UsageError, match="task 't' is of pixels, and the model has no patches"):
        runner.run(suite, embeddings, [View(8)], None)


def test_items_are_the_images_of_both_parts(task):
    assert [len(part) for part in task.items()] == [40, 20] and task.parts() == {}


def test_grids_that_do_not_divide_the_maps(tmp_path):
    """Maps of 8 x 9 pixels under a grid of 3 x 2."""
    task = read("dense", write("dense", tmp_path / "t"))
    random = np.random.default_rng(1)
    patches = lambda items: (random.normal(size=(len(items), 6, 4)).astype(np.float32), 3, 2)  # noqa: E731
    scores = task.score_patches(patches).scores
    assert set(scores) == {"miou", "miou_ridge", "depth_rmse", "normals_degrees", "ari"}
    assert all(np.isfinite(list(scores.values())))


def test_maps_of_several_sizes_and_rows_without_classes_are_refused(tmp_path):
    folder = write("dense", tmp_path / "t")
    Image.new("L", (3, 3)).save(folder / "images" / "2-classes.png")
    with pytest.raises(
        DataError, match=r"2-classes.png: is \[3, 3\], and .*0-classes.png \[8, 9\]; resize the maps to one size"
    ):
        read("dense", folder).score_patches(blind)
    names = write_images(tmp_path / "other")
    for split in ("train", "test"):
        (tmp_path / "other" / f"{split}.jsonl").write_text(json.dumps({"image": names[0]}) + "\n")
    refused("dense", tmp_path / "other", "train.jsonl: its rows need the fields 'image' and 'classes'")
    rows = [json.loads(x) for x in (folder / "test.jsonl").read_text().splitlines()]
    (folder / "test.jsonl").write_text(
        "".join(json.dumps({k: r[k] for k in ("image", "classes")}) + "\n" for r in rows)
    )
    refused("dense", folder, "train and test have different kinds of maps")


def test_a_model_of_texts_is_told_before_anything_is_scored(task):
    from embed.workflows.evaluate import _lacking

    model = types.SimpleNamespace(takes_images=False, max_length=8)
    assert _lacking(task.items()[0], model) == {"images": True, "texts": False}


def test_pixels_that_were_not_measured_are_neither_fitted_nor_scored(task, tmp_path):
    """Their depth is 0 and their normal black, as sensors write it."""
    random, shares = np.random.default_rng(1), {}
    for share in (0.0, 0.3):
        changed = {}
        for split in ("train_maps", "test_maps"):
            changed[split] = dict(getattr(task, split))
            for kind in ("depth", "normals"):
                changed[split][kind] = []
                for path in getattr(task, split)[kind]:
                    with Image.open(path) as image:
                        array = np.array(image)
                    array[random.random(array.shape[:2]) < share] = 0
                    changed[split][kind].append(tmp_path / f"{share}-{path.name}")
                    Image.fromarray(array).save(changed[split][kind][-1])
        scored = dataclasses.replace(task, **changed).score_patches(seeing)
        shares[share] = scored.scores
        panels = {panel.label: panel.png for row in scored.pictures() for panel in row}
        for kind in ("depth", "normals"):
            pixels = np.asarray(Image.open(io.BytesIO(panels[kind])).convert("RGB"))
            assert (pixels.sum(-1) == 0).any() == (share > 0), "an unknown pixel is black"
    for name in ("depth_rmse", "normals_degrees"):
        assert shares[0.3][name] == pytest.approx(shares[0.0][name], rel=0.05)


def rewritten(task, tmp_path, kind, array):
    """The task with one map in the place of all of a kind."""
    Image.fromarray(array).save(tmp_path / "map.png")
    maps = {
        split: {**getattr(task, split), kind: [tmp_path / "map.png"] * len(getattr(task, split)[kind])}
        for split in ("train_maps", "test_maps")
    }
    return dataclasses.replace(task, **maps)


@pytest.mark.parametrize(
    ("kind", "array", "message"),
    [
        ("classes", np.zeros((16, 16), np.uint8), "have fewer than two classes, or those of test none"),
        ("classes", np.full((16, 16), 255, np.uint8), "have fewer than two classes, or those of test none"),
        (
            "classes",
            np.zeros((16, 16, 3), np.uint8),
            "map.png: has 3 values a pixel, and a map of classes has 1;",
        ),
        ("normals", np.zeros((16, 16), np.uint8), "map.png: has 1 values a pixel, and a map of normals has 3;"),
        ("depth", np.zeros((16, 16), np.uint16), "its maps of depth are empty; correct them"),
    ],
)
def test_maps_that_cannot_be_scored_are_one_line(task, tmp_path, kind, array, message):
    with pytest.raises(DataError) as caught:
        rewritten(task, tmp_path, kind, array).score_patches(seeing)
    assert message in str(caught.value)
