"""The arms of a table on distillation, in gin alone: without it, with two and with three towers, and nothing but it."""

import pytest

from embed import config
from embed.workflows.recipe import Recipe

BASE = """
from __gin__ import dynamic_registration
from embed import sources
from embed.data import tasks
from embed.data import tokenizers
from embed.losses import contrastive
from embed.losses import distillation
from embed.losses import matryoshka
from embed.losses import spread_out
from embed.losses import total
from embed.objectives import pairs
from embed.training import optimizers
from embed.workflows import recipe
include 'models/gemma_tiny.gin'
include 'runs/base.gin'
TRAIN_STEPS = 4
BATCH_SIZE = 8
LEARNING_RATE = 1e-3
CACHE_DIR = 'caches'
embedder.Embedder.projection = (512, 256)
recipe.Recipe.num_negatives = 1
recipe.Recipe.tokenizer = @tokenizers.HuggingFace()
tokenizers.HuggingFace.path = 'tokenizer.json'
recipe.Recipe.mixture = @tasks.Mixture()
tasks.Mixture.name = 'm'
tasks.Mixture.tasks = [@tasks.Task()]
tasks.Task.name = 't'
tasks.Task.source = @sources.JsonLines()
sources.JsonLines.path = 'pairs.jsonl'
sources.JsonLines.fields = {'query': 'query', 'target': 'target', 'negatives': 'negatives'}
recipe.Recipe.objective = @pairs.Pairs()
"""
CONTRASTIVE = """
pairs.Pairs.loss_fn = @total.Total()
total.Total.losses = {'contrastive': @contrastive/matryoshka.Matryoshka(), 'spread': @spread/matryoshka.Matryoshka()%s}
contrastive/matryoshka.Matryoshka.loss = @contrastive.Contrastive()
contrastive/matryoshka.Matryoshka.dims = %%MATRYOSHKA_DIMS
spread/matryoshka.Matryoshka.loss = @spread_out.SpreadOut()
spread/matryoshka.Matryoshka.dims = %%MATRYOSHKA_DIMS
"""
BOTH = CONTRASTIVE % ", 'distillation': @distillation.EmbeddingDistillation()"
TAUGHT = "recipe.Recipe.teacher_vectors = 'taught'\n"
ARMS = {
    "none": CONTRASTIVE % "",
    "Q+P": BOTH + TAUGHT + "distillation.EmbeddingDistillation.towers = ('query', 'target')",
    "Q+P+N": BOTH + TAUGHT,
    "Q+P+N, weighed by a schedule": BOTH
    + TAUGHT
    + "total.Total.weights = {'distillation': @weight/optimizers.schedule()}\n"
    + "weight/optimizers.schedule.peak = 2.0\nweight/optimizers.schedule.total_steps = %TRAIN_STEPS\n"
    + "weight/optimizers.schedule.warmup_steps = 0\n",
    "Q+P+N, intermediate": BOTH + TAUGHT + "distillation.EmbeddingDistillation.student = 'intermediate'",
    "Q+P+N, projected": BOTH + TAUGHT + "distillation.EmbeddingDistillation.projection = (256, 3072)",
    "distil only": "pairs.Pairs.loss_fn = @distillation.EmbeddingDistillation()\n" + TAUGHT,
}
TOWERS = {"none": [], "Q+P": ["query", "target"]}


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_is_gin_alone(arm, tmp_path):
    path = tmp_path / "arm.gin"
    path.write_text(
        BASE.replace("from embed.objectives", "from embed.models import embedder\nfrom embed.objectives") + ARMS[arm]
    )
    recipe, _, _ = config.build(Recipe, [str(path)])
    taught = [f.name.removeprefix("teacher_") for f in recipe.record_features if f.name.startswith("teacher_")]
    assert taught == TOWERS.get(arm, ["query", "target", "negatives"])
    loss = recipe.objective.loss_fn
    assert (arm == "distil only") != hasattr(loss, "losses")
    if "schedule" in arm:
        assert [float(loss.weights["distillation"](t)) for t in (0, 4)] == pytest.approx([2.0, 0.0], abs=1e-6)
