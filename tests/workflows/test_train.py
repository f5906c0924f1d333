"""What `train.run` gives the trainer and what it refuses; the steps themselves are tested in tests/training."""

import dataclasses
import json
import shutil
import types

import numpy as np
import pytest
from tiny_models import build

from embed import bundles, documents, files, hosts
from embed.data.tasks import Mixture
from embed.errors import ConfigError, DataError, StorageError
from embed.inference import encoder
from embed.models import api
from embed.models.lora import Lora
from embed.text import PROMPTS
from embed.training import loop, optimizers
from embed.training.loop import Schedule
from embed.workflows import train

FREE = {"model": None, "tokenizer": None}
SHARED = {"suite": "suite.json", "schedule": Schedule(steps=5, evaluate_every=2)}


@pytest.fixture
def runs(monkeypatch, without_seqio) -> list[loop.Run]:
    """The runs that the trainer was given; it takes no step, and ends with the last."""
    given = []

    def end(run: loop.Run):
        given.append(run)
        return types.SimpleNamespace(step=run.schedule.steps)

    monkeypatch.setattr(loop, "train", end)
    monkeypatch.setattr(api, "build", build)
    monkeypatch.setattr(optimizers, "over", lambda optimizer, steps: (optimizer, steps))
    return given


# What the trainer is given.


def test_the_parts_of_a_recipe_reach_the_trainer(recipe_of, runs, tmp_path, capsys):
    recipe = recipe_of(seed=3, micro_batches=1, optimizer="mine", ema_decay=0.5)
    assert train.run(recipe, tmp_path / "run") == 5
    (run,) = runs
    assert run.run_dir == tmp_path / "run" and run.seed == 3 and run.micro_batches == 1
    assert run.optimizer == ("mine", 5) and run.schedule == Schedule(steps=5)
    assert run.objective == recipe.built_objective(run.model)
    assert [c.name for c in run.batches.examples.caches] == ["one", "two"]
    assert (run.batches.shards, run.batches.pad_id, run.batches.max_shapes) == (8, recipe.tokenizer.pad_id, 6)
    assert (run.start_from, run.evaluate, run.validation, run.best_metric) == (None, None, None, None)
    told = capsys.readouterr().out
    assert "data       task 'one': 6 examples" in told and "model      Gemma: " in told
    assert told.endswith(f"done       {tmp_path}/run at step 5\n")


def test_epochs_become_steps_of_what_is_learned(recipe_of, runs, tmp_path, capsys):
    train.run(recipe_of(schedule=Schedule(epochs=4.0)), tmp_path / "a")
    assert runs[0].schedule.steps == 5  # 40 examples in batches of 8
    share = {
        "validation_share": 0.3,
        "schedule": Schedule(epochs=4.0, evaluate_every=2),
        "best_metric": "validation/loss",
    }
    train.run(recipe_of(**share), tmp_path / "b")
    learned = runs[1].batches.examples.caches
    count = sum(map(len, learned))
    assert 0 < count < 10 and runs[1].schedule.steps == -(-4 * count // 8)
    assert (
        f"validation {10 - count} of 10 examples are held out; their loss is reported every 2 steps"
        in capsys.readouterr().out
    )
    assert runs[1].validation is not None and runs[1].best_metric == "validation/loss"


def test_the_best_step_is_told(recipe_of, runs, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    files.write_json(tmp_path / "run" / "best.json", {"step": 4, "score": 0.5, "metric": "sts"})
    train.run(recipe_of(), tmp_path / "run")
    assert capsys.readouterr().out.endswith("at step 5; best step 4 with sts 0.5000\n")


def test_files_of_the_configuration_are_written_once_the_run_begins(recipe_of, runs, tmp_path, capsys):
    train.run(recipe_of(), tmp_path / "run", {"operative_config.gin": "A = 1\n", "config.gin": "B\n"})
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    runs[0].begin()
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"operative_config.gin", "config.gin", "environment.json"}
    capsys.readouterr()
    runs[0].begin()
    assert capsys.readouterr().out == ""
    for text, said in (
        ("A = 2\nC = 3\n", "note       the configuration changed since this run began: A = 2; C = 3\n"),
        ("C = 3\n", "note       the configuration changed since this run began: lines removed\n"),
    ):
        train._describe_run(tmp_path / "run", {"operative_config.gin": text})
        assert capsys.readouterr().out == said
        assert (tmp_path / "run" / "operative_config.gin").read_text() == text


# The small files of a checkpoint.


def test_a_checkpoint_says_what_its_model_is(recipe_of, runs, tmp_path):
    recipe = recipe_of(prompts={"query": "q {content}"}, seed=3)
    train.run(recipe, tmp_path / "run")
    contents = runs[0].contents(4)
    assert contents["tokenizer.json"] == recipe.tokenizer.content()
    description = json.loads(contents["model.json"])
    assert description["prompts"] == {**PROMPTS, "query": "q {content}"}
    assert description["lengths"] == {"query": 12, "target": 16, "inference": 16}
    assert description["architecture"]["type"] == "Embedder" and description["matryoshka_dims"] == [16, 8, 4]
    assert description["lineage"] == {
        "initial": "random, seed 3",
        "step": 4,
        "batch_size": 8,
        "mixture": {"one": 0.6, "two": 0.4},
    }


def test_a_start_is_in_the_lineage_and_stays_there_when_the_run_goes_on(recipe_of, runs, bundle, tmp_path):
    start = shutil.copytree(bundle, tmp_path / "start")
    files.write_json(start / "model.json", {**bundles.read_model_json(bundle), "default_prompt_name": "own"})
    trees = files.read_manifest(start)["trees"]
    files.write_manifest(start, trees=trees)
    recipe = recipe_of(init_from=str(start), **FREE)
    train.run(recipe, tmp_path / "run")
    assert callable(runs[0].start_from)
    contents = runs[0].contents(4)
    description = json.loads(contents["model.json"])
    lineage = description["lineage"]
    assert lineage["initial"] == files.folder_digest(start) and lineage["from"] == {"seed": 0}
    assert description["default_prompt_name"] == "own" and description["prompts"]["own"] == "own: {content}"
    step = tmp_path / "run" / "checkpoints" / "4"
    step.mkdir(parents=True)
    for name, content in contents.items():
        (step / name).write_bytes(content)
    files.write_manifest(step, trees=trees)
    train.run(dataclasses.replace(recipe, init_from=str(bundle)), tmp_path / "run")
    assert json.loads(runs[1].contents(5)["model.json"])["lineage"]["initial"] == lineage["initial"]


# What must stay the same.


def test_what_decides_the_batches_is_the_identity_of_a_run(recipe_of, runs, bundle, task_of, tmp_path):
    train.run(recipe_of(), tmp_path / "run")
    train.run(recipe_of(), tmp_path / "again")
    same, again = (dict(run.identity) for run in runs)
    assert same == again and json.loads(json.dumps(same)) == same
    assert (same["seed"], same["batch_size"], same["start"], same["order"]) == (0, 8, "random", train.ORDER)
    rows = [{"query": "a b", "target": "c"}] * 4
    two = recipe_of().mixture.tasks
    others = {
        "seed": {"seed": 1},
        "batch_size": {"batch_size": 16},
        "start": {"init_from": str(bundle)},
        "mixture": {"mixture": Mixture("letters", two, one_task_per_batch=False)},
        "data": {"mixture": Mixture("letters", [two[0], task_of("other", rows)])},
        "lora": {"lora": Lora("kernel", rank=2)},
        "validation_share": {"validation_share": 0.3, "schedule": Schedule(steps=5, evaluate_every=2)},
    }
    for name, fields in others.items():
        train.run(recipe_of(**fields), tmp_path / name)
        found = dict(runs[-1].identity)
        changed = {key for key in {**found, **same} if found.get(key) != same.get(key)}
        assert changed == {name}, name
    train.run(recipe_of(schedule=Schedule(steps=7, keep_last=1), ema_decay=0.5), tmp_path / "more")
    assert dict(runs[-1].identity) == same


def test_a_converted_start_is_known_by_its_weights(recipe_of, bundle, tmp_path):
    """Converting once more gives other files of the same model."""
    recipe = recipe_of(init_from=str(bundle), **FREE)
    assert train._start_digest(recipe) == files.folder_digest(bundle)
    for name in ("first", "second"):
        copy = shutil.copytree(bundle, tmp_path / name)
        lineage = {"weights": {"model.safetensors": "d" * 64}, "converted_from": name}
        files.write_json(copy / "model.json", {**bundles.read_model_json(bundle), "lineage": lineage})
        found = train._start_digest(dataclasses.replace(recipe, init_from=str(copy)))
        assert found == documents.digest_json({"model.safetensors": "d" * 64})


# What is refused.


def test_what_cannot_be_trained_is_refused_before_anything_is_written(recipe_of, runs, tmp_path, bundle):
    small = recipe_of().model.clone(encoder=recipe_of().model.encoder.clone(vocab_size=9))
    with pytest.raises(
        ConfigError, match=r"tokenizer.json: \d+ pieces, but the encoder has vocab_size = 9; set it to at least"
    ):
        train.run(recipe_of(model=small), tmp_path / "run")
    with pytest.raises(ConfigError, match="batch"):
        train.run(recipe_of(batch_size=9), tmp_path / "run")
    with pytest.raises(DataError, match="validation_share = 0.999 leaves nothing"):
        share = {"validation_share": 0.999, "schedule": Schedule(steps=5, evaluate_every=2)}
        train.run(recipe_of(**share), tmp_path / "run")
    assert runs == [] and not (tmp_path / "run").exists()


def test_a_run_whose_folder_is_in_use_is_refused(recipe_of, runs, tmp_path):
    with files.FolderLock(tmp_path / "run"), pytest.raises(StorageError, match="run"):
        train.run(recipe_of(), tmp_path / "run")
    assert runs == []


# Several hosts.


def test_other_hosts_wait_for_the_caches_and_need_the_same_folder(
    recipe_of, runs, monkeypatch, tmp_path, without_seqio
):
    synced = []
    monkeypatch.setattr(hosts, "is_main", lambda: False)
    monkeypatch.setattr(hosts, "sync", synced.append)
    with pytest.raises(DataError, match="caches: not shared by all hosts; put cache_dir into a bucket"):
        train.run(recipe_of(), tmp_path / "run")
    assert synced == ["the run folder is locked", "token caches prepared"] and without_seqio == []
    monkeypatch.setattr(hosts, "is_main", lambda: True)
    train.run(recipe_of(), tmp_path / "run")
    monkeypatch.setattr(hosts, "is_main", lambda: False)
    train.run(recipe_of(), tmp_path / "run", {"config.gin": ""})
    runs[-1].begin()  # another host writes nothing
    assert not (tmp_path / "run" / "config.gin").exists()
    assert dict(runs[0].identity) == dict(runs[1].identity)


# Scoring.


@pytest.fixture
def suite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sts.tsv").write_text("sentence1\tsentence2\tscore\na b\ta b\t5\nc d\te f\t1\ng\tg h\t3\n")
    tasks = [{"name": "similar", "type": "sts", "path": "sts.tsv"}]
    (tmp_path / "suite.json").write_text(json.dumps({"name": "small", "tasks": tasks}))


@pytest.mark.parametrize(
    ("metric", "known"),
    [
        ("similar/cosine_spearman", True),
        ("similar/any of its", True),
        ("mean of the types", True),
        ("similr/x", False),
        ("mean", False),
    ],
)
def test_the_best_metric_is_one_that_is_scored(recipe_of, runs, suite, tmp_path, metric, known):
    recipe = recipe_of(**SHARED, best_metric=metric)
    if known:
        train.run(recipe, tmp_path / "run")
        assert callable(runs[0].evaluate) and runs[0].best_metric == metric
    else:
        with pytest.raises(ConfigError, match=f"Recipe.best_metric = '{metric}'; (did you mean|known)"):
            train.run(recipe, tmp_path / "run")


def test_a_suite_is_scored_with_the_parameters_of_the_moment(recipe_of, runs, suite, tmp_path, monkeypatch):
    """The encoder is a stand-in: its vectors are those that it is given."""
    seen = []

    def encode(self, params, items, *, prompt, progress=lambda n: None, allow_empty=False):
        seen.append(prompt)
        return np.stack([params[getattr(item, "text", item)] for item in items]).astype(np.float32)

    monkeypatch.setattr(encoder.Encoder, "__call__", encode)
    train.run(recipe_of(**SHARED, best_metric="sts"), tmp_path / "run")
    at = lambda degrees: np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])  # noqa: E731
    right = {"a b": at(0), "c d": at(0), "e f": at(80), "g": at(0), "g h": at(40)}
    scores = runs[0].evaluate(right)
    assert scores["similar/cosine_spearman"] == pytest.approx(1.0) == scores["sts"] == scores["mean of the types"]
    wrong = {**right, "e f": at(40), "g h": at(80)}
    assert runs[0].evaluate(wrong)["sts"] == pytest.approx(0.5)
    assert set(seen) == {"sentence similarity"}
