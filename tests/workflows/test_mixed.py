"""Queries of a text and images, end to end: trained, and embedded as the trainer does; what does not fit is told."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from image_towers import image_tower, text_tower
from mixed_models import mixed_embedder
from PIL import Image as Pillow
from training_batches import fast

import embed
from embed import sharding, trees
from embed.data.examples import Examples
from embed.data.image_features import Image
from embed.data.interleaved import Interleaved
from embed.data.loader import Batches
from embed.data.tasks import Mixture, Task
from embed.data.text_features import Text
from embed.errors import ConfigError, DataError
from embed.inference import mixed_encoder
from embed.losses.contrastive import Contrastive
from embed.models.dual_encoder import DualEncoder
from embed.objectives.items import embed_items
from embed.objectives.pairs import Pairs
from embed.sources import ImageFiles, JsonLines
from embed.training.loop import Schedule
from embed.training.optimizers import adamw
from embed.types import Batch, Item
from embed.workflows import prepare, train
from embed.workflows.recipe import Recipe

FIELDS = {"query": "text", "query_images": "images", "target": "target"}
ONE = {"schedule": Schedule(steps=1, checkpoint_every=1, log_every=1)}


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for i in range(8):
        Pillow.fromarray(random.integers(0, 255, (12, 12, 3)).astype(np.uint8)).save(tmp_path / f"{i}.png")
    rows = [
        {"text": "[MASK_0] a b", "images": ["0.png"], "target": "1.png"},
        {"text": "c [MASK_1] d [MASK_0]", "images": ["2.png", "3.png"], "target": "4.png"},
        {"text": "e f g", "images": [], "target": "5.png"},
        {"text": "[MASK_0]", "images": ["6.png"], "target": "7.png"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def recipe_of(folder, tokenizer, without_seqio):
    def make(max_images=2, features=None, **fields):
        source = ImageFiles(JsonLines(str(folder / "rows.jsonl"), FIELDS), role=("query_images", "target"))
        module = DualEncoder(text_tower(64), image_tower().clone(image_size=12), max_images=max_images)
        given = {
            "model": module,
            "tokenizer": tokenizer,
            "mixture": Mixture("mixed", [Task("rows", source, "none", "none")]),
            "objective": Pairs(Contrastive(0.1)),
            "features": features
            or [Interleaved("query", 16, "query", max_images=2, size=12), Image("target", size=12)],
            "batch_size": 8,
            "cache_dir": str(folder / "caches"),
            "schedule": Schedule(steps=2, checkpoint_every=2, log_every=1),
            "optimizer": adamw(1e-2),
            **fields,
        }
        return Recipe(**given)

    return make


def items(folder):
    return [
        Item("[MASK_0] a b", images=(folder / "0.png",)),
        Item("c [MASK_1] d [MASK_0]", images=(folder / "2.png", folder / "3.png")),
        Item("e f g"),
        Item("[MASK_0]", images=(folder / "6.png",)),
    ]


def check_against_the_trainer(recipe, model, queries, targets, shards, side=12):
    """Compares with the trainer's own forward pass, of the same records in packed rows."""
    examples = Examples(recipe.mixture, prepare.run(recipe), recipe.record_features, 8, 0)
    batches = Batches(examples, shards, tokenizer=recipe.tokenizer)
    batch = Batch(batches.at(0), batches.max_segments)
    assert batch["tokens"].min() < 0 and batch["query_images"].shape[-4:] == (2, side, side, 3)
    part = jax.tree.map(lambda x: jnp.asarray(x.reshape(-1, *x.shape[3:])), batch)
    with jax.set_mesh(sharding.make_mesh(devices=jax.devices()[:shards])):
        found = fast(lambda b: embed_items(model.encoder.model, model.params, b, ("query", "target")))(part)
    order = examples.drawn(0).records
    np.testing.assert_allclose(found["query"], queries[order], atol=5e-6)
    np.testing.assert_allclose(found["target"], targets[order], atol=5e-6)


@pytest.mark.slow
def test_what_is_served_is_what_was_trained(folder, recipe_of):
    recipe = recipe_of()
    train.run(recipe, folder / "run")
    model = embed.load(folder / "run")
    queries = model.encode(items(folder), prompt="none")
    targets = model.encode([folder / f"{i}.png" for i in (1, 4, 5, 7)])
    assert queries.shape == targets.shape and np.allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    alone = np.concatenate([model.encode([item], prompt="none") for item in items(folder)])
    np.testing.assert_allclose(queries, alone, atol=2e-6)
    for shards in (1, 2):
        check_against_the_trainer(recipe, model, queries, targets, shards)
    swapped = model.encode([Item("c [MASK_1] d [MASK_0]", images=(folder / "3.png", folder / "2.png"))], prompt="none")
    assert np.abs(swapped - queries[1]).max() > 1e-3
    given = {"text": "[MASK_0] a b", "images": [str(folder / "0.png")]}
    np.testing.assert_allclose(model.encode([given], prompt="none"), queries[:1], atol=2e-6)
    np.testing.assert_allclose(
        model.encode(["e f g", folder / "1.png"], prompt="none"), [queries[2], targets[0]], atol=2e-6
    )
    for item, message in (
        (
            {"text": "a", "image": str(folder / "0.png")},
            r"item 0 of 1: image 0 has no place in the text; write \[MASK_0\]",
        ),
        ("[MASK_0] a", r"item 0 of 1: names \[MASK_0\], and has 0 images"),
    ):
        with pytest.raises(DataError, match=message):
            model.encode([item])


def in_texts(name: str, **fields) -> Interleaved:
    return Interleaved(name, 32, name, max_images=2, size=8, **{"per_image": 4, **fields})


@pytest.fixture
def one_tower(folder, recipe_of):
    """The recipe of a model that reads images in texts alone: targets are texts of one image."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    rows = [row | {"words": "[MASK_0]", "target": [row["target"]]} for row in rows]
    (folder / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"query": "text", "query_images": "images", "target": "words", "target_images": "target"}
    source = ImageFiles(JsonLines(str(folder / "one.jsonl"), fields), role=("query_images", "target_images"))

    def make(**given):
        features = [in_texts("query", **given), in_texts("target", **given)]
        mixture = Mixture("mixed", [Task("one", source, "none", "none")])
        return recipe_of(model=mixed_embedder(), features=features, mixture=mixture)

    return make


@pytest.mark.slow
def test_a_tower_of_texts_alone_is_trained_and_served(folder, one_tower):
    recipe = one_tower()
    train.run(recipe, folder / "run")
    model = embed.load(folder / "run")
    queries = model.encode(items(folder), prompt="none")
    targets = model.encode([folder / f"{i}.png" for i in (1, 4, 5, 7)])
    check_against_the_trainer(recipe, model, queries, targets, 1, side=8)
    fields = (("per_image", 1, 4), ("before", "a", None), ("after", "b", None))
    for name, wrong, right in fields:
        message = f"Interleaved.{name} of 'query' is {wrong!r}, and the model reads images of 8 pixels with {right!r}"
        with pytest.raises(ConfigError, match=message):
            train.run(one_tower(**{name: wrong}), folder / "other")
    assert not (folder / "other").exists()


@pytest.mark.slow
def test_models_and_data_must_fit(folder, recipe_of):
    with pytest.raises(
        ConfigError, match="has images in its texts, and the model does not read them; set DualEncoder.max"
    ):
        train.run(recipe_of(max_images=0), folder / "run")
    with pytest.raises(
        ConfigError, match="'query' has up to 2 images in a text, and the model reads 1; set max_images"
    ):
        train.run(recipe_of(max_images=1), folder / "run")
    train.run(recipe_of(max_images=3, **ONE), folder / "run")  # a model may read more images than the data have


@pytest.mark.slow
def test_items_in_parts_have_the_vectors_of_the_whole(folder, recipe_of, monkeypatch):
    train.run(recipe_of(**ONE), folder / "run")
    model = embed.load(folder / "run")
    whole = model.encode(items(folder), prompt="none")
    monkeypatch.setattr(mixed_encoder, "_IMAGES", 1)
    np.testing.assert_allclose(model.encode(items(folder), prompt="none"), whole, atol=2e-6)
    with pytest.raises(DataError, match=r"item 0 of 1: names \[MASK_1\], and has 1 image"):
        model.encode([Item("[MASK_0]", title="[MASK_1]", images=(folder / "0.png",))], prompt="none")
    with pytest.raises(DataError, match=r"names \[MASK_1\], and has 1 image"):
        model.encode([Item("[MASK_0]", images=(folder / "0.png",))], prompt="[MASK_1]: {content}")


@pytest.mark.slow
def test_a_model_without_images_in_texts_learns_to_read_them(folder, recipe_of):
    train.run(recipe_of(max_images=0, features=[Text("query", 16), Image("target", size=12)], **ONE), folder / "first")
    start = {"model": None, "tokenizer": None, "init_from": str(folder / "first"), "model_changes": {"max_images": 2}}
    train.run(recipe_of(**start), folder / "second")
    first, second = embed.load(folder / "first"), embed.load(folder / "second")
    added = set(trees.flatten(second.params)) - set(trees.flatten(first.params))
    assert added == {"image_input/kernel", "image_numbers"}
    assert second.encode(items(folder)[:1], prompt="none").shape == (1, second.encoder.model.embedding_dim)
