"""Runs of an objective with all that one may have, from the command line: killed and resumed, and on two hosts.

Its parameters are a model and a learned temperature. `moving` are a teacher, the model's moving average, and the centre of what it
gives, which a term in sums brings together.
"""

import hashlib
import json
import shutil
import signal

import numpy as np
import pytest

from embed import arrays

CODE = """
import dataclasses

import jax
import jax.numpy as jnp

from embed.objectives.moving_average import moving_average
from embed.objectives.pairs import Pairs
from embed.objectives.items import embed_texts
from embed.types import Outputs, Variables


@dataclasses.dataclass(frozen=True)
class Taught(Pairs):
    decay: float = 0.8

    def init(self, key, start=None):
        first = super().init(key, start)
        teacher = jax.tree.map(jnp.copy, first.params["model"])
        return Variables(first.params, {"teacher": teacher, "centre": jnp.zeros(self.model.embedding_dim)}, {})

    def axes(self):
        axes = super().axes()
        return Variables(axes.params, {"teacher": axes.params["model"], "centre": (None,)}, {})

    def forward(self, variables, batch, key, step):
        student = super().forward(variables, batch, key, step)
        teacher = embed_texts(self.model, variables.moving["teacher"], batch)["target"]
        centred = jax.lax.stop_gradient(teacher - variables.moving["centre"])
        count = jnp.float32(teacher.shape[0])
        sums = {"agreement": jnp.sum(student.rows["target"] * centred), "teacher": jnp.sum(teacher, 0), "count": count}
        return Outputs(student.rows, sums)

    def loss(self, params, outputs, batch, step):
        value, metrics = super().loss(params, outputs, batch, step)
        agreement = outputs.sums["agreement"] / outputs.sums["count"]
        return value - 0.5 * agreement, {**metrics, "agreement": agreement}

    def update(self, variables, outputs, step):
        moving, mean = variables.moving, outputs.sums["teacher"] / outputs.sums["count"]
        return {
            "teacher": moving_average(moving["teacher"], variables.params["model"], self.decay, step),
            "centre": self.decay * moving["centre"] + (1 - self.decay) * mean,
        }
"""
RECIPE = """
import taught

recipe.Recipe.objective = @taught.Taught()
taught.Taught.loss_fn = @contrastive.Contrastive()
contrastive.Contrastive.temperature = %TEMPERATURE
contrastive.Contrastive.learn_temperature = True
recipe.Recipe.micro_batches = 2
"""
TRAIN = (
    "train",
    "--gin_file=taught.gin",
    "--gin.TRAIN_STEPS=6",
    "--gin.CHECKPOINT_EVERY=2",
    "--gin.loop.Schedule.log_every=1",
)


def write(folder) -> None:
    """Writes the objective and a recipe of it beside the tiny one."""
    (folder / "taught.py").write_text(CODE)
    tiny = (folder / "tiny.gin").read_text()
    kept = [
        line for line in tiny.splitlines() if not line.startswith(("MATRYOSHKA_DIMS", "HARDNESS", "recipe.Recipe.ema"))
    ]
    text = "\n".join(kept).replace("include 'runs/train.gin'", "include 'runs/base.gin'")
    text = text.replace(
        "from embed import sources\n", "from embed import sources\nfrom embed.losses import contrastive\n"
    )
    (folder / "taught.gin").write_text(f"{text}\n{RECIPE}")


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory, run_embed):
    """A folder with a run of six steps that nothing disturbed."""
    folder = tmp_path_factory.mktemp("objectives") / "work"
    shutil.copytree(prepared, folder)
    write(folder)
    done = run_embed(folder, *TRAIN, "--run_dir=run", PYTHONPATH=".")
    assert done.returncode == 0, done.stderr
    return folder


def leaves(folder, run: str) -> dict[str, np.ndarray]:
    """Returns every array of the last checkpoint."""
    items = ("params", "learned", "moving", "opt_state")
    step = folder / run / "checkpoints" / "6"
    return {f"{i}/{p}": a.read().result() for i in items for p, a in arrays.open_arrays(step, i).items()}


def digests(folder, run: str) -> dict[str, str]:
    return {path: hashlib.sha256(x.tobytes()).hexdigest() for path, x in leaves(folder, run).items()}


@pytest.mark.slow
def test_everything_learns_or_moves(whole):
    rows = [json.loads(line) for line in (whole / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len({row["temperature"] for row in rows}) > 1 and rows[-1]["agreement"] != rows[0]["agreement"]
    found = leaves(whole, "run")
    assert np.abs(found["moving/centre"]).max() > 0
    table = "encoder/embedding/table"
    assert np.abs(found[f"moving/teacher/{table}"] - found[f"params/{table}"]).max() > 0
    assert any(path.startswith("learned/") for path in found)


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize("place", ["train.after_step_3", "checkpoint.before_manifest"])
def test_killed_and_resumed_is_the_same_to_the_bit(whole, run_embed, place):
    run = f"--run_dir={place}"
    killed = run_embed(whole, *TRAIN, run, PYTHONPATH=".", EMBED_FAIL_AT=place)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run_embed(whole, *TRAIN, run, PYTHONPATH=".")
    assert resumed.returncode == 0, resumed.stderr
    assert digests(whole, place) == digests(whole, "run")


@pytest.mark.long
@pytest.mark.slow
def test_two_hosts_train_as_one(whole, run_embed, run_on_hosts):
    mesh = ("--gin.sharding.MeshShape.data=4", "--gin.gemma.Gemma.dropout=0.0")
    one = ("--run_dir=one", "--gin.gemma.Gemma.dropout=0.0")
    assert run_embed(whole, *TRAIN, *one, PYTHONPATH=".").returncode == 0
    run_on_hosts(whole, 2, *TRAIN, *mesh, "--run_dir=two", devices=2)
    own, reference = leaves(whole, "two"), leaves(whole, "one")
    for path, value in reference.items():
        if not path.startswith("opt_state"):
            assert np.linalg.norm(own[path] - value) <= 1e-4 * (np.linalg.norm(value) or 1.0), path
