"""The loss on held-out examples: reported, computed as training computes it, and what picks the best checkpoint."""

import dataclasses
import json
import math
import shutil

import jax
import numpy as np
import pytest

from embed import checkpoints, config, sharding
from embed.data import prepare
from embed.data.examples import Examples
from embed.data.holdout import split
from embed.data.loader import Batches
from embed.data.tasks import Mixture
from embed.errors import ConfigError
from embed.models import api
from embed.training import validation
from embed.training.validation import Validation
from embed.types import Batch
from embed.workflows import init_from
from embed.workflows.recipe import Recipe

SETTINGS = (
    "recipe.Recipe.validation_share=0.25",
    "recipe.Recipe.best_metric='validation/loss'",
    "loop.Schedule.evaluate_every=4",
    "loop.Schedule.epochs=2.5",
    "TRAIN_STEPS=None",
)


@pytest.fixture(scope="module")
def folder(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("validation") / "work"
    shutil.copytree(prepared, folder)
    return folder


@pytest.fixture(scope="module")
def run(folder, run_embed):
    """The folder of a run of two and a half epochs with held-out examples, and what it said."""
    done = run_embed(folder, "train", "--gin_file=tiny.gin", "--run_dir=run", *(f"--gin.{s}" for s in SETTINGS))
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def parts(folder, monkeypatch):
    """The recipe of the run, and its learned and held-out examples."""
    monkeypatch.chdir(folder)
    recipe = init_from.complete(config.build(Recipe, ["tiny.gin"], list(SETTINGS))[0])
    caches = prepare.ensure_caches(
        recipe.mixture, recipe.tokenizer, recipe.record_features, recipe.cache_dir, lambda line: None
    )
    return recipe, *split(caches, recipe.validation_share)


def evaluations(folder):
    rows = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row for row in rows if row["kind"] == "evaluation"}


def test_no_query_is_on_both_sides_and_about_the_share_is_held_out(parts):
    _, learned, held_out = parts
    sides = [
        {int(e["query_id"][0]) for part in side for e in part.read(range(len(part)))} for side in (learned, held_out)
    ]
    assert not sides[0] & sides[1]
    for a, b in zip(learned, held_out):
        assert sorted([*a.records, *b.records]) == list(range(len(a.cache)))
    count = sum(map(len, held_out))
    assert 0.1 < count / 90 < 0.4
    again, _ = split([a.cache for a in learned], 0.25)
    assert all((a.records == b.records).all() for a, b in zip(again, learned))


@pytest.mark.long
@pytest.mark.slow
def test_the_run_has_as_many_steps_as_its_epochs_and_says_what_is_held_out(run, parts):
    folder, said = run
    _, learned, held_out = parts
    steps = math.ceil(2.5 * sum(map(len, learned)) / 16)
    assert f"done       run at step {steps}" in said
    assert f"{sum(map(len, held_out))} of 90 examples are held out; their loss is reported every 4 steps" in said
    assert list(evaluations(folder)) == [*range(4, steps, 4), steps]
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = [row["learning_rate"] for row in rows if row["kind"] == "train"]
    assert rates[-1] < 0.1 * 1e-3  # the schedule ends with the run


@pytest.mark.slow
def test_the_best_step_is_the_one_of_the_lowest_loss(run):
    folder, _ = run
    losses = {step: row["validation/loss"] for step, row in evaluations(folder).items()}
    best = json.loads((folder / "run" / "best.json").read_text())
    assert len(best.pop("scored_on")) == 64
    assert best == {"step": min(losses, key=losses.get), "score": min(losses.values()), "metric": "validation/loss"}
    assert any((folder / "run" / "tensorboard").iterdir())


@pytest.mark.slow
def test_the_loss_is_that_of_the_served_model_without_dropout(run, parts):
    """Computed anew from the saved parameters, on each held-out batch as a whole."""
    folder, _ = run
    recipe, _, held_out = parts
    model = api.build(recipe.model)
    step = max(evaluations(folder))
    start = jax.eval_shape(model.init, jax.random.key(0))
    params = checkpoints.restore(folder / "run" / "checkpoints" / str(step), "params", start)
    mixture = Mixture("held out", recipe.mixture.tasks)
    size = min(16, sum(map(len, held_out)))
    batches = Batches(Examples(mixture, held_out, recipe.record_features, size, 0), max_shapes=1)
    objective = dataclasses.replace(recipe.objective, model=model)
    variables, losses = objective.init(jax.random.key(0), params), []
    with jax.set_mesh(sharding.make_mesh(devices=jax.devices()[:1])):
        for t in range(math.ceil(sum(map(len, held_out)) / size)):
            batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), Batch(batches.at(t), batches.max_segments))
            outputs = objective.forward(variables, batch, None, 0)
            losses.append(float(objective.loss(variables.params, outputs, batch, 0)[0]))
    np.testing.assert_allclose(evaluations(folder)[step]["validation/loss"], np.mean(losses), rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Stands for examples of which only the size of a batch is asked."""

    batch_size: int
    features: tuple = ()


@pytest.mark.parametrize(
    ("held_out", "micro_batches", "size", "parts"), [(100, 4, 64, 4), (40, 4, 32, 2), (10, 4, 10, 1), (3, 1, 2, 1)]
)
def test_validation_batches_have_micro_batches_no_larger_than_those_of_training(
    held_out, micro_batches, size, parts, monkeypatch
):
    monkeypatch.setattr(validation, "Examples", lambda mixture, caches, features, size, seed: Sizes(size))
    training = Batches(Sizes(64), shards=2, micro_batches=micro_batches)
    found = Validation(None, None, [range(held_out)], None).fit(training)
    assert (found.batches.examples.batch_size, found.batches.micro_batches) == (size, parts)
    assert found.steps == math.ceil(held_out / size)


def test_too_few_examples_are_refused():
    with pytest.raises(ConfigError, match="holds out 1 examples, and a batch on this mesh has 2 at least; raise it"):
        Validation(None, None, [range(1)], None).fit(Batches(Sizes(64), shards=2))
