"""A run with adapters: checkpoints hold the merged model, the base stays, a killed run ends with the same bits."""

import hashlib
import re
import signal

import numpy as np
import pytest

from embed import arrays

ADAPT = [
    "recipe.Recipe.lora = @lora.Lora()",
    "lora.Lora.rank = 4",
    "recipe.Recipe.init_from = 'base'",
    "recipe.Recipe.ema_decay = None",
]


def leaves(folder, step, item="params"):
    opened = arrays.open_arrays(folder / "run" / "checkpoints" / str(step), item)
    return {path: array.read().result() for path, array in opened.items()}


def digest(values) -> str:
    return hashlib.sha256(b"".join(values[p].tobytes() for p in sorted(values))).hexdigest()


@pytest.fixture(scope="module")
def adapting(prepared, tmp_path_factory, run_embed):
    """A folder with a base trained for a few steps and a recipe that adapts it."""
    import shutil

    folder = tmp_path_factory.mktemp("lora") / "work"
    shutil.copytree(prepared, folder)
    done = run_embed(folder, "train", "--gin_file=tiny.gin", "--run_dir=first", "--gin.TRAIN_STEPS=4")
    assert done.returncode == 0, done.stderr
    done = run_embed(folder, "average", "first", "--output=base")
    assert done.returncode == 0, done.stderr
    text = (folder / "tiny.gin").read_text().replace("recipe.Recipe.ema_decay = 0.9\n", "")
    text = text.replace(
        "from embed.models import gemma\n", "from embed.models import gemma\nfrom embed.models import lora\n"
    )
    (folder / "adapt.gin").write_text(text + "\n".join(ADAPT) + "\n")
    return folder


TRAIN = ("train", "--gin_file=adapt.gin", "--run_dir=run", "--gin.TRAIN_STEPS=8", "--gin.CHECKPOINT_EVERY=2")


@pytest.mark.slow
def test_adapters_are_merged_saved_and_resumed_to_the_bit(adapting, tmp_path, run_embed):
    import shutil

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    shutil.copytree(adapting, whole)
    shutil.copytree(adapting, killed)
    done = run_embed(whole, *TRAIN)
    assert done.returncode == 0, done.stderr
    assert "adapters" in done.stdout
    base = {p: a.read().result() for p, a in arrays.open_arrays(whole / "base").items()}
    after = leaves(whole, 8)
    assert list(after) == list(base)
    changed = {p for p in base if not np.array_equal(base[p], after[p])}
    assert changed == {p for p in base if p.endswith("kernel") and "projection" not in p}

    stopped = run_embed(killed, *TRAIN, EMBED_FAIL_AT="train.after_step_7")
    assert stopped.returncode == -signal.SIGKILL
    resumed = run_embed(killed, *TRAIN)
    # A save waits for the one before: when step 6 was being saved, step 4 was there.
    assert resumed.returncode == 0 and re.search("resuming at step [46] of 8", resumed.stdout), resumed.stderr
    for item in ("params", "learned", "opt_state"):
        assert digest(leaves(killed, 8, item)) == digest(leaves(whole, 8, item))
    # What was adapted is an ordinary model.
    again = run_embed(whole, "average", "run", "base", "--output=soup")
    assert again.returncode == 0, again.stderr


@pytest.mark.long
@pytest.mark.slow
def test_another_base_is_refused_when_a_run_goes_on(adapting, tmp_path, run_embed):
    import shutil

    folder = tmp_path / "work"
    shutil.copytree(adapting, folder)
    assert run_embed(folder, *TRAIN, "--gin.TRAIN_STEPS=4").returncode == 0
    other = run_embed(folder, *TRAIN, "--gin.recipe.Recipe.init_from='first'")
    assert other.returncode == 65 and "the run began with start" in other.stderr


@pytest.mark.long
@pytest.mark.slow
def test_adapters_are_averaged_and_the_average_is_merged_saved_and_resumed(adapting, tmp_path, run_embed):
    import shutil

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    averaged = (*TRAIN, "--gin.recipe.Recipe.ema_decay=0.9")
    for folder in (whole, killed):
        shutil.copytree(adapting, folder)
    assert run_embed(whole, *averaged).returncode == 0
    assert run_embed(killed, *averaged, EMBED_FAIL_AT="train.after_step_7").returncode == -signal.SIGKILL
    assert run_embed(killed, *averaged).returncode == 0
    for item in ("params", "learned", "moving", "opt_state"):
        assert digest(leaves(killed, 8, item)) == digest(leaves(whole, 8, item))
    path = "encoder/stack/layers/mlp/down/kernel"
    base = arrays.open_arrays(whole / "base")[path].read().result()
    factors = leaves(whole, 8, "moving")
    a, b = (factors[f"ema/model/{path}/{name}"] for name in "ab")
    np.testing.assert_allclose(leaves(whole, 8)[path], base + 32.0 / 4 * a @ b, atol=1e-6)
