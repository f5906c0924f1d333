"""The main job in small: prepare, train, average, evaluate, search; and a mixture of real files from gin alone."""

import json
import pathlib

import pytest

from embed.commands.main import main


def call(*arguments: str) -> None:
    with pytest.raises(SystemExit) as e:
        main(list(arguments))
    assert e.value.code == 0


@pytest.fixture
def here(work, monkeypatch) -> pathlib.Path:
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def suite(here, write_suite):
    """A suite out of the training pairs, in the folder."""
    write_suite(here, [json.loads(x) for x in (here / "first.jsonl").read_text().splitlines()])


@pytest.mark.slow
def test_from_pairs_to_search(here, capsys, suite):
    call(
        "train", "--gin_file=tiny.gin", "--run_dir=run", "--gin.sharding.MeshShape.data=8", "--gin.TRAIN_STEPS=40",
        "--gin.CHECKPOINT_EVERY=10", "--gin.EVALUATE_EVERY=20", "--gin.recipe.Recipe.suite=suite.json",
        "--gin.recipe.Recipe.best_metric=pairs/ndcg_at_10", "--gin.LEARNING_RATE=1e-2", "--gin.gemma.Gemma.dropout=0.0",
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert (
        "batch      16 examples, each batch from one task" in shown and "example    query; target; 2 negatives" in shown
    )
    assert "compiled.memory_analysis" in shown and "first      task: " in shown
    rows = [json.loads(x) for x in (here / "run/metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["kind"] == "train"] == [20, 40]
    best = json.loads((here / "run/best.json").read_text())
    assert best["step"] in (20, 40) and (here / "run/checkpoints" / str(best["step"])).is_dir()
    for name in ("config.gin", "operative_config.gin", "environment.json", "evaluation/20/scores.json"):
        assert (here / "run" / name).is_file()
    assert list((here / "run/tensorboard").iterdir())

    call("average", "run", "--last=3", "--output=soup")
    lineage = json.loads((here / "soup/model.json").read_text())["lineage"]
    assert [i["lineage"]["step"] for i in lineage["inputs"]] == [20, 30, 40]

    call("evaluate", "best=run", "soup=soup", "--baselines=random,bm25", "--suite=suite.json", "--output=scores")
    results = json.loads((here / "scores/results.json").read_text())
    assert set(results["models"]) == {"random", "best", "soup", "bm25"}
    scores = {name: m["results"]["pairs"] for name, m in results["models"].items()}
    assert set(scores["soup"]) == {"256", "64"}
    assert scores["best"]["256"]["ndcg_at_10"] > scores["random"]["256"]["ndcg_at_10"] + 0.2, "training taught nothing"
    assert results["models"]["soup"]["prompts"]["pairs"]["queries"] == "task: search result | query: {content}"
    assert (here / "scores/dimensions.png").stat().st_size > 5000 and (here / "scores/results.md").is_file()

    first = json.loads((here / "first.jsonl").read_text().splitlines()[3])
    call("search", "soup", first["question"], "--corpus=dev/corpus.jsonl", "--top=2")
    shown = capsys.readouterr().out
    assert "  1. " in shown and "  2. " in shown and "  3. " not in shown


@pytest.mark.long
@pytest.mark.slow
def test_a_run_that_gets_no_better_ends_early_and_stays_ended(here, capsys, suite):
    command = (
        "train", "--gin_file=tiny.gin", "--run_dir=run", "--gin.sharding.MeshShape.data=8", "--gin.TRAIN_STEPS=40",
        "--gin.EVALUATE_EVERY=2", "--gin.recipe.Recipe.suite=suite.json", "--gin.LEARNING_RATE=0.0",
        "--gin.recipe.Recipe.best_metric='mean of the types'", "--gin.loop.Schedule.patience=2",
        "--gin.gemma.Gemma.dropout=0.0",
    )  # fmt: skip
    call(*command)
    stopped = "stopped    at step 6 of 40: 2 evaluations in a row were no better than step 2 by mean of the types"
    said = capsys.readouterr().out
    assert stopped in said and "done       run at step 6;" in said
    call(*command)
    assert stopped in capsys.readouterr().out
    assert sorted(p.name for p in (here / "run/evaluation").iterdir()) == ["2", "4", "6"]
    assert json.loads((here / "run/best.json").read_text())["step"] == 2


MIXTURE = """# Three real datasets, each with its own prompt and rate, one dataset per batch; no Python.
from __gin__ import dynamic_registration

from embed.workflows import recipe
from embed.data import text_features
from embed import sources
from embed.data import tasks
from embed.data import tokenizers
from embed.models import gemma

include 'models/gemma_tiny.gin'
include 'runs/train.gin'

CACHE_DIR = 'data'
VOCAB_SIZE = 2000
TRAIN_STEPS = 4
BATCH_SIZE = 32
LEARNING_RATE = 1e-3
gemma.Gemma.width = 64
gemma.Gemma.mlp_dim = 64
recipe.Recipe.lengths = @text_features.Lengths()
text_features.Lengths.query = 32
text_features.Lengths.target = 48
recipe.Recipe.tokenizer = @tokenizers.SentencePiece()
tokenizers.SentencePiece.path = 'data/vocabulary.model'
tokenizers.SentencePiece.train_vocab_size = %VOCAB_SIZE

recipe.Recipe.mixture = @tasks.Mixture()
tasks.Mixture.name = 'three_sets'
tasks.Mixture.tasks = [@conala/tasks.Task(), @medquad/tasks.Task(), @tldr/tasks.Task()]
tasks.Mixture.rates = {'conala': 1.0, 'medquad': 2.0, 'tldr': 1.0}
sources.JsonLines.fields = {'query': 'query', 'target': 'positive'}

conala/tasks.Task.name = 'conala'
conala/tasks.Task.query_prompt = 'code retrieval'
conala/tasks.Task.source = @conala/sources.JsonLines()
conala/sources.JsonLines.path = 'DATA/train/conala.jsonl.gz'

medquad/tasks.Task.name = 'medquad'
medquad/tasks.Task.query_prompt = 'question answering'
medquad/tasks.Task.source = @medquad/sources.JsonLines()
medquad/sources.JsonLines.path = 'DATA/train/medquad.jsonl.gz'

tldr/tasks.Task.name = 'tldr'
tldr/tasks.Task.query_prompt = 'task: command search | query: {content}'
tldr/tasks.Task.target_prompt = 'none'
tldr/tasks.Task.source = @tldr/sources.JsonLines()
tldr/sources.JsonLines.path = 'DATA/train/tldr-command.jsonl.gz'
"""


@pytest.mark.long
@pytest.mark.slow
def test_a_gin_file_alone_trains_on_a_mixture_of_real_files(shared_data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "three.gin").write_text(MIXTURE.replace("DATA", str(shared_data)))
    call(
        "train",
        "--gin_file=three.gin",
        "--run_dir=run",
        "--gin.sharding.MeshShape.data=8",
        "--gin.loop.Schedule.log_every=1",
    )
    shown = capsys.readouterr().out
    assert "medquad: 64 of 128 examples (50.0%)" in shown and "tldr: 32 of 128 examples (25.0%)" in shown
    assert "each batch from one task" in shown and "4587 examples" in shown
    losses = [json.loads(x)["loss"] for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 4 and all(0 < x < 100 for x in losses)
