"""An objective, a feature and an encoder of somebody else: the file of README, named in gin alone."""

import json
import pathlib
import re
import shutil

from embed import config

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
RECIPE = """
from __gin__ import dynamic_registration

import mine
from embed import sources
from embed.data import tasks
from embed.data import text_features
from embed.data import tokenizers
from embed.losses import contrastive
from embed.models import embedder
from embed.models import pooling
from embed.workflows import recipe

include 'runs/base.gin'

CACHE_DIR = 'caches'
TRAIN_EPOCHS = 2
BATCH_SIZE = 16
LEARNING_RATE = 1e-3

recipe.Recipe.objective = @mine.WeightedPairs()
mine.WeightedPairs.loss_fn = @contrastive.Contrastive()
recipe.Recipe.features = [@text_features.pairs(), @mine.Weight()]
recipe.Recipe.model = @embedder.Embedder()
embedder.Embedder.encoder = @mine.Bag()
embedder.Embedder.pooling = @pooling.MeanPooling()
mine.Bag.vocab_size = 300
recipe.Recipe.tokenizer = @tokenizers.SentencePiece()
tokenizers.SentencePiece.path = 'data/vocabulary.model'
recipe.Recipe.mixture = @tasks.Mixture()
tasks.Mixture.name = 'mine'
tasks.Mixture.tasks = [@tasks.Task()]
tasks.Task.name = 'mine'
tasks.Task.source = @sources.JsonLines()
sources.JsonLines.path = 'mine.jsonl'
sources.JsonLines.fields = {'query': 'question', 'target': 'answer', 'weight': 'clicks'}
"""


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)


def test_one_file_beside_the_gin_file_is_enough(prepared, tmp_path, run_embed):
    (code,) = [block for block in blocks() if "class Weight(Feature)" in block]
    assert len(code.splitlines()) <= 40
    work = tmp_path / "work"
    shutil.copytree(prepared, work)
    (work / "mine.py").write_text(code)
    (work / "mine.gin").write_text(RECIPE)
    rows = [json.loads(line) for line in (work / "first.jsonl").read_text().splitlines()]
    rows = [{"question": row["question"], "answer": row["answer"], "clicks": i % 3} for i, row in enumerate(rows)]
    (work / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = ("train", "--gin_file=mine.gin", "--run_dir=run")
    done = run_embed(work, *train, PYTHONPATH=".")
    assert done.returncode == 0, done.stderr
    assert "model      Bag: 19,200 parameters" in done.stdout and "example    query; target; weight" in done.stdout
    again = run_embed(work, *train, PYTHONPATH=".")
    assert "complete at step 7 of 7" in again.stdout, again.stderr
    (work / "mine.jsonl").write_text("".join(json.dumps({**row, "clicks": "often"}) + "\n" for row in rows))
    refused = run_embed(work, *train, PYTHONPATH=".")
    assert (
        refused.returncode == 65
        and "mine.jsonl:1: field 'clicks' holds 'often', expected a finite number" in refused.stderr
    )


def test_the_gin_file_of_readme_is_complete(tmp_path, monkeypatch):
    """Read, not run: every binding is known and used."""
    (recipe,) = re.findall(r"```\n(from __gin__.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    (tmp_path / "mine.gin").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    from embed.workflows.recipe import Recipe

    made = config.build(Recipe, ["mine.gin"])[0]
    assert made.schedule.epochs == 3 and [task.name for task in made.mixture.tasks] == ["faq"]
