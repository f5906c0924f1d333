"""An objective, a feature and an encoder of somebody else: the file of README, named in gin alone."""

import json
import pathlib
import re
import sys

import pytest
from tiny_models import made_up_texts

from embed import config
from embed.commands.main import main
from embed.data.tokenizers import train_sentencepiece

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


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """train() -> (exit code, stdout, stderr) of `embed train --gin_file=mine.gin --run_dir=run` in a folder with `mine.py`."""
    (code,) = [block for block in blocks() if "class Weight(Feature)" in block]
    assert len(code.splitlines()) <= 40
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "mine.gin").write_text(RECIPE)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "vocabulary.model").write_bytes(train_sentencepiece(made_up_texts(300), 300))

    def run() -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["train", "--gin_file=mine.gin", "--run_dir=run"])
        return ended.value.code, *capsys.readouterr()

    yield run
    sys.modules.pop("mine", None)


@pytest.mark.slow
def test_one_file_beside_the_gin_file_is_enough(train, tmp_path):
    texts = made_up_texts(100)
    rows = [{"question": a, "answer": b, "clicks": i % 3} for i, (a, b) in enumerate(zip(texts[:50], texts[50:]))]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, told, error = train()
    assert code == 0, error
    assert "model      Bag: 19,200 parameters" in told and "example    query; target; weight" in told
    code, told, error = train()
    assert code == 0 and "complete at step 7 of 7" in told, error
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps({**row, "clicks": "often"}) + "\n" for row in rows))
    code, told, error = train()
    assert code == 65
    assert "mine.jsonl:1: field 'clicks' holds 'often', expected a finite number" in error


def test_the_gin_file_of_readme_is_complete(tmp_path, monkeypatch):
    """Read, not run: every binding is known and used."""
    (recipe,) = re.findall(r"```\n(from __gin__.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    (tmp_path / "mine.gin").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    from embed.workflows.recipe import Recipe

    made = config.build(Recipe, ["mine.gin"])[0]
    assert made.schedule.epochs == 3 and [task.name for task in made.mixture.tasks] == ["faq"]
