"""A run that is killed, however often and wherever, ends with the same bits as one that is not."""

import hashlib
import json
import signal
import subprocess
import sys

import pytest
from compiling import FAST

from embed import arrays, files

TRAIN = ("train", "--gin_file=tiny.gin", "--run_dir=run")


def digests(folder, step=12) -> dict[str, str]:
    """Returns the sha256 of every leaf of the moving average, which is served, of what is learned, and of the optimiser."""
    found = {}
    for item in ("params", "learned", "opt_state"):
        opened = arrays.open_arrays(folder / "run" / "checkpoints" / str(step), item)
        for path, array in opened.items():
            found[f"{item}/{path}"] = hashlib.sha256(array.read().result().tobytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def uninterrupted(prepared, tmp_path_factory, run_embed):
    """The folder of a run that nothing disturbed."""
    import shutil

    folder = tmp_path_factory.mktemp("reference") / "work"
    shutil.copytree(prepared, folder)
    done = run_embed(folder, *TRAIN)
    assert done.returncode == 0, done.stderr
    return folder


def losses(folder) -> dict[int, float]:
    rows = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows}


@pytest.mark.slow
def test_the_same_command_again_changes_nothing(uninterrupted, run_embed):
    before = digests(uninterrupted)
    again = run_embed(uninterrupted, *TRAIN)
    assert again.returncode == 0 and "complete at step 12 of 12; nothing is written" in again.stdout
    assert digests(uninterrupted) == before


@pytest.mark.slow
def test_every_leaf_is_compared(uninterrupted):
    found = digests(uninterrupted)
    trees = json.loads((uninterrupted / "run/checkpoints/12/MANIFEST.json").read_text())["trees"]
    assert len(found) == sum(map(len, trees.values())) > 50
    assert digests(uninterrupted, 8) != found, "training stands still"


KILLS = ["checkpoint.before_manifest"]
MORE_KILLS = [f"train.after_step_{n}" for n in (1, 4, 6, 11)] + [
    "checkpoint.after_device_to_host",
    "checkpoint.after_manifest",
    "checkpoint.before_delete",
]
COMPILED = [pytest.mark.slow, pytest.mark.compiled]


@pytest.mark.parametrize("place", KILLS + [pytest.param(p, marks=COMPILED) for p in MORE_KILLS])
def test_killed_and_resumed_is_the_same_to_the_bit(place, uninterrupted, work, run_embed):
    few = ["--gin.loop.Schedule.keep_last=1"] if place.endswith("before_delete") else []
    killed = run_embed(work, *TRAIN, *few, EMBED_FAIL_AT=place)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    resumed = run_embed(work, *TRAIN, *few)
    assert resumed.returncode == 0, resumed.stderr
    assert digests(work) == digests(uninterrupted)
    assert losses(work) == losses(uninterrupted)
    assert not list((work / "run" / "checkpoints").glob("*tmp*"))


def start(folder, *arguments):
    import os

    env = {**os.environ, "XLA_FLAGS": FAST}
    return subprocess.Popen(
        [sys.executable, "-m", "embed", *arguments],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_sigterm_saves_exits_75_and_goes_on_to_the_same_bits(uninterrupted, work, run_embed):
    slow = "--gin.loop.Schedule.log_every=1"
    running = start(work, *TRAIN, slow)
    for line in running.stdout:
        if line.startswith("step 5/"):
            running.send_signal(signal.SIGTERM)
            break
    rest = running.stdout.read()
    running.stdout.close()
    assert running.wait(60) == 75, rest
    assert "run the same command to go on" in rest
    saved = files.committed_steps(work / "run" / "checkpoints")
    assert saved and 5 <= saved[-1] < 12
    resumed = run_embed(work, *TRAIN, slow)
    assert resumed.returncode == 0 and f"resuming at step {saved[-1]}" in resumed.stdout
    assert digests(work) == digests(uninterrupted)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_at_random_moments_again_and_again(uninterrupted, work):
    import random

    choose, kills = random.Random(3), 0
    for _ in range(12):
        running = start(work, *TRAIN, "--gin.CHECKPOINT_EVERY=1")
        try:
            code = running.wait(choose.uniform(3.0, 12.0))
            running.stdout.close()
            assert code == 0
            break
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            running.stdout.close()
            kills += 1
    else:
        running = start(work, *TRAIN, "--gin.CHECKPOINT_EVERY=1")
        assert running.wait(120) == 0
    assert kills > 0
    assert digests(work) == digests(uninterrupted)


@pytest.mark.slow
def test_a_flipped_byte_in_the_last_checkpoint_falls_back_to_the_one_before(uninterrupted, work, run_embed):
    import shutil

    shutil.copytree(uninterrupted / "run", work / "run")
    victim = max((work / "run/checkpoints/12/params/d").iterdir(), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    resumed = run_embed(work, *TRAIN)
    assert resumed.returncode == 0, resumed.stderr
    assert "set aside as 12.damaged" in resumed.stdout and "resuming at step 8" in resumed.stdout
    assert digests(work) == digests(uninterrupted)


def test_a_second_run_in_the_same_folder_is_refused(work, run_embed):
    from embed.files import FolderLock

    with FolderLock(work / "run"):
        second = run_embed(work, *TRAIN)
    assert second.returncode == 74
    assert "in use by process" in second.stderr and second.stderr.count("\n") == 1


@pytest.mark.long
@pytest.mark.slow
def test_disk_full_during_a_save_keeps_the_step_before(uninterrupted, work, run_embed):
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    code = limit + "from embed.commands.main import main; main(sys.argv[1:])"
    first = run_embed(work, *TRAIN, "--gin.TRAIN_STEPS=4", "--gin.optimizers.schedule.total_steps=12")
    assert first.returncode == 0, first.stderr
    import os

    env = {**os.environ, "XLA_FLAGS": FAST, "EMBED_COMPILATION_CACHE": "off"}
    full = subprocess.run([sys.executable, "-c", code, *TRAIN], cwd=work, env=env, capture_output=True, text=True)
    assert full.returncode == 74, full.stderr
    assert "step 4 is intact" in full.stderr or "no space left" in full.stderr
    resumed = run_embed(work, *TRAIN)
    assert resumed.returncode == 0, resumed.stderr
    assert digests(work) == digests(uninterrupted)


@pytest.mark.slow
def test_changed_data_is_refused_on_resume(uninterrupted, work, run_embed):
    import shutil

    shutil.copytree(uninterrupted / "run", work / "run")
    with open(work / "first.jsonl", "a") as f:
        f.write('{"question": "new", "answer": "row"}\n')
    again = run_embed(work, *TRAIN)
    assert again.returncode == 65 and "the run began with data" in again.stderr


@pytest.mark.slow
def test_another_seed_is_refused_on_resume(uninterrupted, run_embed):
    again = run_embed(uninterrupted, *TRAIN, "--gin.SEED=3")
    assert again.returncode == 65 and "the run began with seed 0, now it is 3" in again.stderr


@pytest.mark.long
@pytest.mark.slow
def test_micro_batches_are_as_many_again_when_a_run_goes_on(work, run_embed, tmp_path):
    """How many there are decides the last bits; a resumed run takes the number that the run began with."""
    import shutil

    whole = tmp_path / "whole"
    shutil.copytree(work, whole)
    cut = "--gin.recipe.Recipe.micro_batches=4"
    done = run_embed(whole, *TRAIN, cut)
    assert done.returncode == 0, done.stderr
    assert "in 4 micro-batches by cached gradients" in done.stdout
    killed = run_embed(work, *TRAIN, cut, EMBED_FAIL_AT="train.after_step_9")
    assert killed.returncode == -signal.SIGKILL
    meta = json.loads((work / "run" / "checkpoints" / "4" / "meta.json").read_text())
    assert meta["micro_batches"] == 4
    resumed = run_embed(work, *TRAIN)
    assert resumed.returncode == 0, resumed.stderr
    assert "in 4 micro-batches by cached gradients" in resumed.stdout
    assert digests(work) == digests(whole)


@pytest.mark.long
@pytest.mark.slow
def test_a_mesh_that_does_not_take_as_many_micro_batches_takes_fewer(work, run_embed):
    """No example may be left out because a batch does not split over shards times the parts of before."""
    cut = "--gin.recipe.Recipe.micro_batches=4"
    assert run_embed(work, *TRAIN, cut, "--gin.TRAIN_STEPS=4").returncode == 0
    eight = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = run_embed(work, *TRAIN, "--gin.TRAIN_STEPS=5", "--gin.sharding.MeshShape.data=8", **eight)
    assert done.returncode == 0, done.stderr
    assert "resuming at step 4 of 5" in done.stdout and "micro-batches" not in done.stdout
    asked = run_embed(work, *TRAIN, cut, "--gin.TRAIN_STEPS=6", "--gin.sharding.MeshShape.data=8", **eight)
    assert asked.returncode == 78 and "batch_size = 16 does not split" in asked.stderr
