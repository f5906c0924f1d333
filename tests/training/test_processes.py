"""Two and four processes, and 1, 2, 4, 8 simulated devices: the same batches and, to 1e-5, the same losses and parameters."""

import numpy as np
import pytest

from embed import arrays, trees
from embed.data import cache, loader, tasks
from embed.data.examples import Examples
from embed.data.text_features import Lengths, pairs

TRAIN = (
    "train",
    "--gin_file=tiny.gin",
    "--gin.TRAIN_STEPS=3",
    "--gin.loop.Schedule.log_every=1",
    "--gin.CHECKPOINT_EVERY=100",
)
ONE_LAYER = ("--gin.gemma.Gemma.num_layers=1", "--gin.gemma.Gemma.global_every=1", "--gin.gemma.Gemma.unroll=1")
# No dropout, which depends on the mesh, and batches of one shape, so that a program is compiled once on every host. So wide that
# the token table is spread over replicas (`sharding.SPREAD_FROM`).
SAME = (
    "--gin.gemma.Gemma.dropout=0.0",
    "--gin.gemma.Gemma.width=256",
    "--gin.tasks.Mixture.only=('first',)",
    *ONE_LAYER,
)


def metrics(folder, run: str) -> list[float]:
    import json

    return [json.loads(line)["loss"] for line in (folder / run / "metrics.jsonl").read_text().splitlines()]


def parameters(folder, run: str) -> dict[str, np.ndarray]:
    return trees.flatten(arrays.load_numpy(folder / run / "checkpoints" / "3"))


def train_on(work, run_embed, run: str, devices: int, mesh: str) -> None:
    flags = f"--xla_force_host_platform_device_count={devices}"
    data, fsdp, tensor = mesh.split(",")
    done = run_embed(
        work,
        *TRAIN,
        f"--run_dir={run}",
        f"--gin.sharding.MeshShape.data={data}",
        f"--gin.sharding.MeshShape.fsdp={fsdp}",
        f"--gin.sharding.MeshShape.tensor={tensor}",
        *SAME,
        XLA_FLAGS=flags,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def one_device(prepared, tmp_path_factory, run_embed):
    import shutil

    folder = tmp_path_factory.mktemp("meshes") / "work"
    shutil.copytree(prepared, folder)
    train_on(folder, run_embed, "one", 1, "1,1,1")
    return folder


def assert_same_training(folder, run: str) -> None:
    np.testing.assert_allclose(metrics(folder, run), metrics(folder, "one"), rtol=1e-5)
    own, reference = parameters(folder, run), parameters(folder, "one")
    for path, value in reference.items():
        scale = np.linalg.norm(value) or 1.0
        assert np.linalg.norm(own[path] - value) / scale < 1e-5, path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "mesh"),
    [(8, "2,2,2"), (4, "4,1,1")],
)
def test_the_command_line_on_simulated_devices(one_device, run_embed, devices, mesh):
    train_on(one_device, run_embed, f"on{devices}", devices, mesh)
    assert_same_training(one_device, f"on{devices}")


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [4])
def test_processes_over_gloo(one_device, run_on_hosts, hosts):
    mesh = ("--gin.sharding.MeshShape.data=2", "--gin.sharding.MeshShape.fsdp=2", *SAME)
    printed = run_on_hosts(one_device, hosts, *TRAIN, f"--run_dir=hosts{hosts}", *mesh, devices=4 // hosts)
    assert f"4 cpu device(s), {hosts} process(es)" in printed
    assert_same_training(one_device, f"hosts{hosts}")


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [2])
def test_a_run_goes_on_on_another_number_of_hosts(one_device, run_embed, run_on_hosts, hosts):
    """Two steps on several hosts, the third on one; what is averaged of either is the same."""
    mesh = ("--gin.sharding.MeshShape.data=2", "--gin.sharding.MeshShape.fsdp=2", *SAME)
    run = f"moved{hosts}"
    steps = ("--gin.TRAIN_STEPS=2", "--gin.CHECKPOINT_EVERY=1")
    run_on_hosts(one_device, hosts, *TRAIN, f"--run_dir={run}", *mesh, *steps, devices=4 // hosts)
    done = run_embed(one_device, "average", run, "--last=2", f"--output={run}-soup")
    assert done.returncode == 0, done.stderr
    train_on(one_device, run_embed, run, 1, "1,1,1")
    assert_same_training(one_device, run)
    own, first, second = (
        trees.flatten(arrays.load_numpy(one_device / f))
        for f in (f"{run}-soup", f"{run}/checkpoints/1", f"{run}/checkpoints/2")
    )
    for path, value in own.items():
        np.testing.assert_allclose(value, (first[path] + second[path]) / 2, rtol=1e-6, atol=1e-7)


def batches(folder, shards: int) -> loader.Batches:
    """The batches of the tiny recipe, opened from its caches alone."""
    found = sorted((folder / "data").glob("*/MANIFEST.json"))
    from embed import files

    caches = [cache.Cache(p.parent, files.verify_manifest(p.parent)) for p in found]
    declared = [tasks.Task(name=c.name, source=None) for c in caches]
    mixture = tasks.Mixture(name="made_up", tasks=declared, rates={"first": 2.0, "second": 1.0})
    return loader.Batches(Examples(mixture, caches, pairs(Lengths(48, 56), 2), 16, seed=0), shards)


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_the_hosts_slices_are_the_global_batch(prepared, hosts):
    whole, sliced = batches(prepared, 8), batches(prepared, 8)
    for t in range(12):
        parts = [sliced.at(t, h * 8 // hosts, (h + 1) * 8 // hosts) for h in range(hosts)]
        for name, value in whole.at(t).items():
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), value)
