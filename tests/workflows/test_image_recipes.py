"""Models of images alone, end to end: a specialist learns classes, teaches a student of several domains, and both are used."""

import dataclasses
import json

import numpy as np
import pytest
from image_towers import image_tower
from PIL import Image as Pillow

import embed
from embed import bundles
from embed.data import vector_store
from embed.data.features import Vectors
from embed.data.image_features import Classes, Image
from embed.data.tasks import Mixture, Task
from embed.errors import ConfigError, DataError
from embed.losses.classes import ByClass
from embed.losses.relational import Relational
from embed.models import api
from embed.objectives.images import Classified, Specialists
from embed.sources import ImageFiles, JsonLines
from embed.training.loop import Schedule
from embed.training.optimizers import adamw
from embed.workflows import encode_records, train
from embed.workflows.recipe import Recipe

NAMES = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    """Squares of three colours, bright and dark: two domains as files, and the names of the classes."""
    folder, random = tmp_path_factory.mktemp("domains"), np.random.default_rng(0)
    for domain, level in (("bright", 230), ("dark", 90)):
        (folder / domain).mkdir()
        rows = []
        for i in range(12):
            pixels = random.integers(0, 40, (14, 12, 3)).astype(np.uint8)
            pixels[..., i % 3] = level
            Pillow.fromarray(pixels).save(folder / domain / f"{i}.png")
            rows.append({"image": f"{domain}/{i}.png", "label": NAMES[i % 3]})
        (folder / f"{domain}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return folder


def task(folder, name, **fields):
    fields = fields or {"image": "image", "label": "label"}
    return Task(name, ImageFiles(JsonLines(str(folder / f"{name}.jsonl"), fields)))


@pytest.fixture
def recipe_of(domains, tmp_path, without_seqio):
    """recipe_of(tasks, objective, features, **fields) -> a recipe of a tiny tower with a linear map."""

    def make(tasks, objective, features, **fields):
        given = {
            "model": image_tower().clone(projection=(6,), image_size=12),
            "batch_size": 8,
            "cache_dir": str(tmp_path / "caches"),
            "schedule": Schedule(steps=3, checkpoint_every=3, log_every=1),
            "optimizer": adamw(1e-2),
            **fields,
        }
        return Recipe(mixture=Mixture("domains", tasks), objective=objective, features=features, **given)

    return make


def pictures(folder, domain):
    return [folder / domain / f"{i}.png" for i in range(12)]


@pytest.mark.slow
def test_a_specialist_and_what_it_teaches(domains, recipe_of, tmp_path):
    classes = Classes("label", str(domains / "classes.txt"))
    for domain in ("bright", "dark"):
        recipe = recipe_of([task(domains, domain)], Classified(ByClass(3, 6)), [Image(size=12), classes])
        train.run(recipe, tmp_path / domain)
    described = bundles.read_model_json(bundles.resolve(tmp_path / "bright"))
    assert "tokenizer" not in described and described["lineage"]["mixture"] == {"bright": 1.0}
    specialist = embed.load(tmp_path / "bright")
    vectors = specialist.encode(pictures(domains, "bright"))
    assert vectors.shape == (12, 6) and specialist.max_length is None
    rows = [json.loads(line) for line in (tmp_path / "bright" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= row["accuracy"] <= 1 for row in rows if row["kind"] == "train")

    given = {"dim": None, "name": "teacher", "of": "image"}
    tasks = [task(domains, name, image="image") for name in ("bright", "dark")]
    for name, one in zip(("bright", "dark"), tasks):
        taught = [Image(size=12), Vectors(path=(), **given)]
        encode_records.run(
            tmp_path / name, recipe_of([one], Specialists(), taught), tmp_path / f"of-{name}", shard_size=5
        )
    paths = tuple(str(tmp_path / f"of-{name}" / "image") for name in ("bright", "dark"))
    store = vector_store.read(paths[0])
    assert store.dim == 6 and store.identity["side"] == "image"
    recipe = recipe_of(tasks, Specialists(Relational()), [Image(size=12), Vectors(path=paths, **given)])
    train.run(recipe, tmp_path / "student")
    before = (tmp_path / "student" / "metrics.jsonl").read_bytes()
    assert b"nearest_agreement" in before
    train.run(recipe, tmp_path / "student")
    assert (tmp_path / "student" / "metrics.jsonl").read_bytes() == before, "a complete run goes on"
    features = [Image(size=12), Vectors(path=paths, **given)]
    started = recipe_of(tasks, Specialists(), features, init_from=str(tmp_path / "student"), model=None)
    train.run(started, tmp_path / "again")
    assert bundles.read_model_json(bundles.resolve(tmp_path / "again"))["lineage"]["from"]["step"] == 3


@pytest.mark.slow
def test_vectors_that_are_missing_are_counted(domains, recipe_of, tmp_path):
    recipe = recipe_of([task(domains, "bright", image="image")], Specialists(), [Image(size=12)])
    vector_store.write(tmp_path / "few", np.array([5]), np.ones((1, 4), np.float32))
    features = [Image(size=12), Vectors("teacher", "image", (str(tmp_path / "few"),))]
    with pytest.raises(DataError, match="few: has no vector for 12 of 12 different items of 'image'; write theirs too"):
        train.run(recipe_of([task(domains, "bright", image="image")], Specialists(), features), tmp_path / "run")
    with pytest.raises(ConfigError, match="Specialists reads 'teacher', which no feature gives"):
        train.run(recipe, tmp_path / "run")


def test_batches_of_several_domains_are_refused_where_images_are_compared(domains, recipe_of):
    tasks = [task(domains, name, image="image") for name in ("bright", "dark")]
    recipe = recipe_of(tasks, Specialists(), [Image(size=12)])
    mixed = Mixture("mixed", tasks, one_task_per_batch=False)
    with pytest.raises(ConfigError, match="Specialists compares the images of one domain, .*; set it to True"):
        dataclasses.replace(recipe, mixture=mixed)


def test_labels_and_numbers_of_classes_must_fit(domains, recipe_of, tmp_path):
    (tmp_path / "two.txt").write_text("red\ngreen\n")
    two = Classes("label", str(tmp_path / "two.txt"))
    with pytest.raises(ConfigError, match="ByClass.num_classes = 3, and .*two.txt names 2 classes; set it to that"):
        recipe_of([task(domains, "bright")], Classified(ByClass(3, 6)), [Image(size=12), two])
    recipe = recipe_of([task(domains, "bright")], Classified(ByClass(2, 6)), [Image(size=12), two])
    with pytest.raises(DataError, match="bright.jsonl:3: label 'blue' is no line of .*two.txt"):
        train.run(recipe, tmp_path / "run")
    wide = recipe_of([task(domains, "bright")], Classified(ByClass(2, 5)), [Image(size=12), two])
    with pytest.raises(ConfigError, match="ByClass.embedding_dim = 5, and the model's embeddings have 6 values"):
        wide.built_objective(api.build(wide.model))


@pytest.mark.parametrize(
    ("content", "reason"), [("", "lines are empty"), ("a\na\n", "stand twice"), (None, "cannot be read")]
)
def test_names_of_classes(content, reason, tmp_path):
    if content is not None:
        (tmp_path / "names.txt").write_text(content)
    with pytest.raises(ConfigError, match=reason):
        _ = Classes("label", str(tmp_path / "names.txt")).num_classes
