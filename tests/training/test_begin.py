"""What a run writes and when: nothing before it is accepted, nothing when it is complete, and its start for good."""

import json
import shutil

import pytest

from embed import documents, files

TRAIN = ("train", "--gin_file=tiny.gin", "--gin.TRAIN_STEPS=2")


def content(folder) -> dict[str, bytes]:
    """Every file of a folder, with when it was written."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory, run_embed):
    """The folder of a run from a model, `tuned`, beside another model of the same sizes."""
    folder = tmp_path_factory.mktemp("begin") / "work"
    shutil.copytree(trained, folder)
    for run, more in (("other", ["--gin.SEED=7"]), ("tuned", ["--gin.recipe.Recipe.init_from=model"])):
        done = run_embed(folder, *TRAIN, f"--run_dir={run}", *more)
        assert done.returncode == 0, done.stderr
    return folder


REFUSED = {
    "another start": (["--gin.recipe.Recipe.init_from=other"], 65, "the run began with start"),
    "no start": ([], 65, "the run began with start"),
    "another seed": (
        ["--gin.recipe.Recipe.init_from=model", "--gin.SEED=3"],
        65,
        "the run began with seed 0, now it is 3",
    ),
    "fewer steps": (
        ["--gin.recipe.Recipe.init_from=model", "--gin.TRAIN_STEPS=1", "--gin.WARMUP_STEPS=0"],
        65,
        "past steps = 1",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_run_writes_nothing(folder, run_embed, case):
    more, code, message = REFUSED[case]
    before = content(folder / "tuned")
    done = run_embed(folder, *TRAIN, "--run_dir=tuned", *more)
    assert done.returncode == code and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert content(folder / "tuned") == before
    done = run_embed(folder, *TRAIN, "--run_dir=new", "--gin.BATCH_SIZE=0")
    assert done.returncode == 78 and not (folder / "new").exists()


@pytest.mark.slow
def test_a_complete_run_writes_nothing(folder, run_embed):
    before = content(folder / "tuned")
    done = run_embed(
        folder, *TRAIN, "--run_dir=tuned", "--gin.recipe.Recipe.init_from=model", "--gin.CHECKPOINT_EVERY=1"
    )
    assert done.returncode == 0 and "complete at step 2 of 2; nothing is written" in done.stdout, done.stderr
    assert content(folder / "tuned") == before


@pytest.mark.long
@pytest.mark.slow
def test_the_lineage_of_a_resumed_run_is_that_of_its_checkpoints(folder, run_embed, tmp_path):
    """The start may have been replaced meanwhile by a model that gives the same digest of weights under another name."""
    work = tmp_path / "work"
    shutil.copytree(folder, work)
    lineage = lambda step: documents.read_json(work / f"tuned/checkpoints/{step}/model.json")["lineage"]  # noqa: E731
    first = lineage(2)
    assert first["initial"] == files.folder_digest(work / "model") and first["from"]["inputs"]
    done = run_embed(work, *TRAIN, "--run_dir=tuned", "--gin.recipe.Recipe.init_from=model", "--gin.TRAIN_STEPS=4")
    assert done.returncode == 0, done.stderr
    assert {k: lineage(4)[k] for k in ("initial", "from")} == {k: first[k] for k in ("initial", "from")}


@pytest.mark.slow
def test_a_run_of_an_older_version_is_refused_with_a_line(folder, run_embed, tmp_path):
    """The order of its batches was another."""
    work = tmp_path / "work"
    shutil.copytree(folder, work)
    step = work / "tuned/checkpoints/2"
    meta = json.loads((step / "meta.json").read_text())
    del meta["identity"]["order"]
    (step / "meta.json").write_text(json.dumps(meta))
    manifest = json.loads((step / files.MANIFEST).read_text())
    (step / files.MANIFEST).unlink()
    files.write_manifest(step, step=2, trees=manifest["trees"])
    done = run_embed(work, *TRAIN, "--run_dir=tuned", "--gin.recipe.Recipe.init_from=model", "--gin.TRAIN_STEPS=4")
    assert done.returncode == 65 and "began without order, or with an older version of embed" in done.stderr, (
        done.stderr
    )
