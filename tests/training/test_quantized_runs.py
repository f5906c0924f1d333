"""A run that is trained for four bits: its checkpoints and exports are quantised; killed, it ends with the same bits."""

import hashlib
import shutil
import signal

import numpy as np
import pytest

from embed import arrays, trees
from embed.documents import read_json
from embed.models import quantization
from embed.quantized_arrays import Scheme, rounded

TRAIN = ("train", "--gin_file=quantized.gin", "--gin.TRAIN_STEPS=8", "--gin.CHECKPOINT_EVERY=2")
DOWN = "encoder/stack/layers/mlp/down/kernel"


def leaves(step_folder, item="params") -> dict[str, np.ndarray]:
    return {path: array.read().result() for path, array in arrays.open_arrays(step_folder, item).items()}


def digests(run_dir) -> dict[str, str]:
    """Returns the digest of every array of the last checkpoint."""
    items = ("params", "learned", "moving", "opt_state")
    read = {f"{item}/{path}": x for item in items for path, x in leaves(run_dir / "checkpoints" / "8", item).items()}
    return {path: hashlib.sha256(x.tobytes()).hexdigest() for path, x in read.items()}


@pytest.fixture(scope="module")
def folder(prepared, tmp_path_factory, run_embed):
    """A folder with a finished run of four bits in blocks, with a moving average."""
    folder = tmp_path_factory.mktemp("quantized") / "work"
    shutil.copytree(prepared, folder)
    text = (folder / "tiny.gin").read_text()
    first = "from embed.models import gemma\n"
    text = text.replace(first, f"{first}from embed.models import quantization\n")
    (folder / "quantized.gin").write_text(f"{text}\nrecipe.Recipe.quantization = @quantization.int4_blocks()\n")
    done = run_embed(folder, *TRAIN, "--run_dir=run")
    assert done.returncode == 0, done.stderr
    (folder / "printed.txt").write_text(done.stdout)
    return folder


@pytest.mark.long
@pytest.mark.slow
def test_what_is_saved_are_quantised_values_of_the_average(folder):
    step = folder / "run" / "checkpoints" / "8"
    average = leaves(step, "moving")[f"ema/model/{DOWN}"]
    saved = leaves(step)
    np.testing.assert_array_equal(saved[DOWN], rounded(average, Scheme(4, 32, (1,))))
    assert np.any(leaves(step, "learned")[f"model/{DOWN}"] != average)
    described = read_json(step / "model.json")["quantization"]
    assert described["name"] == "int4_blocks"
    assert quantization.from_description(described) == quantization.int4_blocks()
    printed = (folder / "printed.txt").read_text()
    assert "\nquantised  as int4_blocks: " in printed and "what learns stays float32" in printed


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_to_the_bit(folder, run_embed):
    killed = run_embed(folder, *TRAIN, "--run_dir=killed", EMBED_FAIL_AT="train.after_step_7")
    assert killed.returncode == -signal.SIGKILL
    resumed = run_embed(folder, *TRAIN, "--run_dir=killed")
    assert resumed.returncode == 0, resumed.stderr
    assert digests(folder / "killed") == digests(folder / "run")


@pytest.mark.long
@pytest.mark.slow
def test_a_run_goes_on_with_its_quantisation_alone(folder, run_embed, tmp_path):
    shutil.copytree(folder, tmp_path / "work")
    float32 = ("train", "--gin_file=tiny.gin", "--run_dir=run", "--gin.TRAIN_STEPS=10")
    without = run_embed(tmp_path / "work", *float32)
    assert without.returncode == 65 and "the run began with quantization {'name': 'int4_blocks'" in without.stderr
    assert "now it is None" in without.stderr
    assert run_embed(tmp_path / "work", *float32[:2], "--run_dir=plain", "--gin.TRAIN_STEPS=2").returncode == 0
    quantised = run_embed(tmp_path / "work", *TRAIN, "--run_dir=plain")
    assert quantised.returncode == 65 and "the run began without quantization" in quantised.stderr


@pytest.mark.slow
def test_its_packed_bundle_has_every_value(folder, run_embed):
    done = run_embed(folder, "export", "run", "packed", "--format=bundle")
    assert done.returncode == 0, done.stderr
    assert "have the values of run/checkpoints/8, to the bit" in done.stdout and "note" not in done.stdout
    checkpoint, packed = (
        leaves(folder / "run" / "checkpoints" / "8"),
        trees.flatten(arrays.load_numpy(folder / "packed")),
    )
    assert list(packed) == list(checkpoint)
    assert all(packed[path].tobytes() == x.tobytes() for path, x in checkpoint.items())
    average = run_embed(folder, "average", "packed", "run", "--output=soup")
    assert average.returncode == 0, average.stderr
    assert "int4_blocks: inputs are quantised, their average is not" in average.stdout
    assert "quantization" not in read_json(folder / "soup" / "model.json")
    soup = trees.flatten(arrays.load_numpy(folder / "soup"))
    assert all(np.array_equal(soup[path], x) for path, x in checkpoint.items())


@pytest.mark.long
@pytest.mark.slow
def test_a_run_may_start_from_packed_weights(folder, run_embed):
    assert run_embed(folder, "export", "run", "start", "--format=bundle").returncode == 0
    done = run_embed(
        folder,
        "train",
        "--gin_file=tiny.gin",
        "--run_dir=next",
        "--gin.TRAIN_STEPS=3",
        "--gin.recipe.Recipe.init_from='start'",
    )
    assert done.returncode == 0, done.stderr
    assert "start      start is quantised as int4_blocks; its values are what learns on" in done.stdout
    assert "quantization" not in read_json(folder / "next" / "checkpoints" / "3" / "model.json")
