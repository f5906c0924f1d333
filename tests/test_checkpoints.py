"""Checkpoints: saved values come back to the bit, damage is caught, a failed save leaves the last step intact."""

import functools
import math
import os
import random
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from compiling import FAST
from jax.sharding import NamedSharding, PartitionSpec

from embed import arrays, checkpoints, files, sharding, trees
from embed.errors import DataError, NumericError, StorageError, UsageError
from embed.sharding import MeshShape

AXES = {
    "encoder": {"embedding": {"table": ("vocab", "width")}, "mlp": {"kernel": ("layers", "width", "mlp")}},
    "projection_0": {"kernel": ("width", "embedding")},
    "scale": ("norm",),
}
SHAPES = {
    "encoder": {"embedding": {"table": (64, 16)}, "mlp": {"kernel": (3, 16, 32)}},
    "projection_0": {"kernel": (16, 12)},
    "scale": (5,),
}
CONTENTS = {"model.json": b'{"format": 1}\n', "tokenizer.model": bytes(range(256))}


def is_shape(x) -> bool:
    return isinstance(x, tuple) and all(isinstance(n, int) for n in x)


def once(make):
    """Makes a tree once for each seed; every call returns other containers of the same arrays."""
    made = functools.cache(make)
    return lambda seed=0: jax.tree.map(lambda x: x, made(seed))


@once
def make_params(seed: int) -> dict:
    """Returns parameters whose values include signed zeros and numbers that are not normal."""
    draw = np.random.default_rng(seed)

    def leaf(shape):
        x = draw.standard_normal(shape).astype(np.float32)
        x.flat[:4] = [0.0, -0.0, 1e-42, 3e38]
        return jnp.asarray(x)

    return jax.tree.map(leaf, SHAPES, is_leaf=is_shape)


def placed(mesh, tree):
    """Returns the tree of shardings on `mesh`: parameters and their moments by their axes, the rest replicated."""
    by_path = trees.flatten(jax.tree.map(lambda a: [a], AXES, is_leaf=lambda x: isinstance(x, tuple)))
    by_path = {path.removesuffix("/0"): axes for path, axes in by_path.items()}

    def of(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        axes = next((a for p, a in by_path.items() if name.endswith(p)), None)
        if axes is None or len(axes) != leaf.ndim:
            return sharding.replicated(mesh)
        return NamedSharding(mesh, sharding.spec(axes, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(of, tree)


def targets(mesh, tree):
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, placed(mesh, tree))


def on(mesh, tree):
    return jax.device_put(tree, placed(mesh, tree))


@once
def make_trees(seed: int) -> dict:
    """Returns params and an AdamW state after one step, as a training run saves them."""
    params = make_params(seed)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(0.1, 0.0, 10)))

    @jax.jit
    def step(params):
        grads = jax.tree.map(lambda x: jnp.where(jnp.abs(x) < 1e3, x, 1.0), params)
        return optimizer.update(grads, optimizer.init(params), params)[1]

    return {"params": params, "opt_state": step(params)}


def assert_same_bits(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for (path, a), b in zip(trees.flatten(found).items(), jax.tree.leaves(wanted)):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.shape == b.shape, path
        assert a.tobytes() == b.tobytes(), path


def latest_step(folder, say=print):
    """The step that a run goes on from, the damaged ones set aside."""
    step, damaged = checkpoints.newest_intact_step(folder)
    checkpoints.set_aside(folder, damaged, say)
    return step


def names(folder) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def saver(tmp_path):
    saver = checkpoints.Saver(tmp_path / "checkpoints", keep_last=2)
    yield saver
    saver.close()


def test_steps_that_are_kept_for_good(tmp_path):
    saver = checkpoints.Saver(tmp_path / "checkpoints", keep_last=1, keep_every=4)
    for step in range(2, 11, 2):
        saver.save(step, make_trees(), CONTENTS)
    saver.close()
    assert files.committed_steps(tmp_path / "checkpoints") == [4, 8, 10]


@pytest.fixture(scope="module")
def step_folder(tmp_path_factory):
    """A committed step of `make_trees()`. Tests must not change it; `copied` gives a copy."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    saver = checkpoints.Saver(folder)
    saver.save(7, make_trees(), CONTENTS, seed=3)
    saver.close()
    return folder / "7"


@pytest.fixture
def copied(step_folder, tmp_path):
    return shutil.copytree(step_folder, tmp_path / "checkpoints" / "7")


def one_device():
    return sharding.make_mesh(MeshShape(1, 1, 1), jax.devices()[:1])


# saving and restoring


def test_a_step_exists_once_it_is_committed(saver):
    assert files.committed_steps(saver.folder) == []
    saver.save(1, make_trees(), CONTENTS, seed=3)
    saver.wait()
    assert files.committed_steps(saver.folder) == [1]
    assert names(saver.folder) == ["1"]
    manifest = files.verify_manifest(saver.folder / "1")
    assert manifest["step"] == 1 and manifest["seed"] == 3
    assert manifest["trees"] == {n: trees.spec(t) for n, t in make_trees().items()}
    for name, content in CONTENTS.items():
        assert (saver.folder / "1" / name).read_bytes() == content
        assert name in manifest["files"]


def test_save_copies_the_arrays_before_it_returns(saver):
    host = jax.tree.map(lambda x: np.array(x), make_params())
    params = jax.tree.map(jnp.asarray, host)
    saver.save(1, {"params": params}, {})
    for leaf in jax.tree.leaves(params):
        leaf.delete()
    saver.wait()
    assert_same_bits(arrays.load_numpy(saver.folder / "1"), host)


def test_on_commit_is_told_after_the_manifest(tmp_path):
    told = []

    def committed(step):
        told.append((step, files.committed_steps(tmp_path / "c")))

    saver = checkpoints.Saver(tmp_path / "c", on_commit=committed)
    for step in (1, 2):
        saver.save(step, {"params": make_params()}, {})
    saver.close()
    assert told == [(1, [1]), (2, [1, 2])]


@pytest.mark.slow
@pytest.mark.parametrize(
    "first, second",
    [
        (MeshShape(8, 1, 1), None),
        (MeshShape(1, 8, 1), None),
        (MeshShape(2, 2, 2), MeshShape(1, 4, 2)),
        (None, MeshShape(2, 2, 2)),
    ],
)
def test_restoring_on_another_mesh_gives_the_same_bits(saver, first, second):
    first, second = (one_device() if s is None else sharding.make_mesh(s) for s in (first, second))
    trees = make_trees()
    saver.save(1, {name: on(first, tree) for name, tree in trees.items()}, {})
    saver.wait()
    for name, tree in trees.items():
        wanted = targets(second, tree)
        found = checkpoints.restore(saver.folder / "1", name, wanted)
        assert_same_bits(found, tree)
        for leaf, target in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
            assert leaf.sharding == target.sharding


def test_restore_gives_back_optax_states(step_folder):
    wanted = make_trees()["opt_state"]
    found = checkpoints.restore(step_folder, "opt_state", targets(sharding.make_mesh(), wanted))
    assert isinstance(found[1][0], optax.ScaleByAdamState)
    assert int(found[1][0].count) == 1
    assert_same_bits(found, wanted)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int32", "uint32", "bool"])
def test_every_dtype_comes_back(tmp_path, dtype):
    x = jnp.asarray(np.random.default_rng(0).integers(-3, 3, (4, 6))).astype(dtype)
    checkpoints.write_bundle(tmp_path / "b", {"x": x, "y": jnp.ones((3,), jnp.float32)}, {})
    found = arrays.load_numpy(tmp_path / "b")
    assert found["x"].dtype == x.dtype and found["x"].tobytes() == np.asarray(x).tobytes()


def test_load_numpy_equals_what_was_saved(step_folder):
    assert_same_bits(arrays.load_numpy(step_folder), make_params())


def test_load_numpy_verifies(copied):
    flip(next((copied / "params").rglob("d/*")), 0, 1)
    with pytest.raises(DataError, match="damaged"):
        arrays.load_numpy(copied)


def test_restoring_an_item_that_is_not_there_names_those_that_are(step_folder):
    with pytest.raises(DataError, match="'ema'") as caught:
        checkpoints.restore(step_folder, "ema", targets(one_device(), make_params()))
    assert "params" in str(caught.value) and "opt_state" in str(caught.value)


# which steps are kept


def save_steps(saver, steps):
    for step in steps:
        saver.save(step, {"params": {"x": jnp.full((3,), float(step))}}, {})
    saver.wait()


def test_the_newest_steps_are_kept(saver):
    save_steps(saver, [1, 2, 9, 10, 11])
    assert files.committed_steps(saver.folder) == [10, 11]
    assert names(saver.folder) == ["10", "11"]


def test_steps_are_ordered_by_number_not_by_name(saver):
    save_steps(saver, [9, 10, 100])
    assert files.committed_steps(saver.folder) == [10, 100]
    assert latest_step(saver.folder) == 100


def test_the_protected_step_is_kept_until_another_is(saver):
    save_steps(saver, [1, 2])
    saver.protect(1)
    save_steps(saver, [3, 4, 5])
    assert files.committed_steps(saver.folder) == [1, 4, 5]
    saver.protect(4)
    save_steps(saver, [6, 7])
    assert files.committed_steps(saver.folder) == [4, 6, 7]
    saver.protect(None)
    save_steps(saver, [8])
    assert files.committed_steps(saver.folder) == [7, 8]


# damage


def flip(path, offset: int, mask: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= mask
    path.write_bytes(bytes(content))


def all_files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != files.MANIFEST)


def try_restore(folder, mesh):
    """Returns both trees of a step; the manifest is checked by each restore."""
    return {name: checkpoints.restore(folder, name, targets(mesh, tree)) for name, tree in make_trees().items()}


@pytest.mark.slow
def test_every_flipped_byte_is_caught(copied):
    draw, mesh = random.Random(0), one_device()
    paths = [p for p in all_files(copied) if p.stat().st_size]
    sizes = [p.stat().st_size for p in paths]
    for trial in range(60):
        path = draw.choice(paths) if trial % 2 else draw.choices(paths, sizes)[0]
        offset, mask = draw.randrange(path.stat().st_size), draw.randrange(1, 256)
        flip(path, offset, mask)
        with pytest.raises(DataError) as caught:
            try_restore(copied, mesh)
        assert str(path) in str(caught.value), (path, offset)
        flip(path, offset, mask)
    assert_same_bits(try_restore(copied, mesh), make_trees())


def test_no_flip_in_the_manifest_gives_wrong_values(copied):
    draw, path, mesh = random.Random(0), copied / files.MANIFEST, one_device()
    size, crashed = path.stat().st_size, []
    for _ in range(200):
        offset, mask = draw.randrange(size), 1 << draw.randrange(8)
        around = path.read_bytes()[max(0, offset - 12) : offset + 12]
        flip(path, offset, mask)
        try:
            assert_same_bits(try_restore(copied, mesh), make_trees())
        except DataError:
            pass
        except (KeyError, TypeError, AttributeError, ValueError) as e:
            crashed.append((around, repr(e)))
        flip(path, offset, mask)
    assert not crashed, f"{len(crashed)} flips ended in another error than DataError, e.g. {crashed[:3]}"


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_append(path):
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.slow
@pytest.mark.parametrize("damage", [damage_truncate, damage_append, os.unlink])
def test_truncation_and_deletion_of_any_file_are_caught(copied, damage):
    mesh = one_device()
    for path in all_files(copied):
        intact = path.read_bytes()
        if not intact:
            continue
        damage(path)
        with pytest.raises(DataError) as caught:
            try_restore(copied, mesh)
        assert str(path) in str(caught.value)
        path.write_bytes(intact)
    assert_same_bits(try_restore(copied, mesh), make_trees())


def test_the_latest_step_falls_back_past_damaged_ones(saver):
    saver._keep_last = 5
    save_steps(saver, [1, 2, 3, 4])
    flip(all_files(saver.folder / "4" / "params")[0], 3, 1)
    all_files(saver.folder / "3" / "params")[-1].unlink()
    said = []
    assert latest_step(saver.folder, said.append) == 2
    assert names(saver.folder) == ["1", "2", "3.damaged", "4.damaged"]
    assert len(said) == 2
    for line, step in zip(said, (4, 3)):
        assert f"checkpoint {step} is damaged" in line and f"{step}.damaged" in line and "falling back" in line
    assert files.committed_steps(saver.folder) == [1, 2]


def test_a_second_damaged_step_of_the_same_number_is_kept_too(saver):
    for _ in range(3):
        save_steps(saver, [1])
        flip(all_files(saver.folder / "1" / "params")[0], 3, 1)
        assert latest_step(saver.folder, lambda line: None) is None
    assert names(saver.folder) == ["1.damaged", "1.damaged-2", "1.damaged-3"]


def test_a_step_with_a_damaged_manifest_is_set_aside(saver):
    save_steps(saver, [1, 2])
    path = saver.folder / "2" / files.MANIFEST
    path.write_bytes(path.read_bytes()[:-20])
    said = []
    assert latest_step(saver.folder, said.append) == 1
    assert len(said) == 1 and names(saver.folder) == ["1", "2.damaged"]


def test_a_flipped_key_in_the_manifest_sets_the_step_aside(saver):
    save_steps(saver, [1, 2])
    path = saver.folder / "2" / files.MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"sha256"', b'"sha257"', 1))
    assert latest_step(saver.folder, lambda line: None) == 1


def test_damaged_steps_are_found_before_anything_is_renamed(saver):
    save_steps(saver, [1, 2])
    flip(all_files(saver.folder / "2" / "params")[0], 3, 1)
    step, damaged = checkpoints.newest_intact_step(saver.folder)
    assert step == 1 and list(damaged) == [2] and "damaged" in str(damaged[2])
    assert names(saver.folder) == ["1", "2"]


def test_no_steps_at_all(tmp_path):
    assert latest_step(tmp_path / "none") is None
    assert files.committed_steps(tmp_path / "none") == []


# another model


def change_dtype(tree):
    tree["scale"] = tree["scale"].astype(jnp.bfloat16)
    return "scale is float32[5], the model has bfloat16[5]"


def change_shape(tree):
    tree["projection_0"]["kernel"] = jnp.zeros((16, 24))
    return "projection_0/kernel is float32[16, 12], the model has float32[16, 24]"


def transpose(tree):
    tree["projection_0"]["kernel"] = jnp.zeros((12, 16))
    return "projection_0/kernel is float32[16, 12], the model has float32[12, 16]"


def add_leaf(tree):
    tree["encoder"]["embedding"]["bias"] = jnp.zeros((3,))
    return "encoder/embedding/bias is missing"


def drop_leaf(tree):
    del tree["encoder"]["mlp"]
    return "encoder/mlp/kernel is not in the model"


@pytest.mark.parametrize("change", [change_dtype, change_shape, transpose, add_leaf, drop_leaf])
def test_another_model_is_refused_with_the_difference(step_folder, change):
    tree = make_params()
    line = change(tree)
    with pytest.raises(DataError) as caught:
        checkpoints.restore(step_folder, "params", targets(one_device(), tree))
    assert line in str(caught.value) and str(step_folder) in str(caught.value)


def test_a_part_that_is_not_wanted_is_not_read(tmp_path):
    tree = {name: {"kernel": np.full(3, i, np.float32)} for i, name in enumerate(("encoder", "decoder"))}
    folder = checkpoints.write_bundle(tmp_path / "bundle", tree, {})
    target = jax.eval_shape(lambda: {"encoder": {"kernel": jnp.zeros(3)}})
    found = checkpoints.restore(folder, "params", target, without=("decoder", "head"))
    assert list(found) == ["encoder"] and found["encoder"]["kernel"].tolist() == [0, 0, 0]
    with pytest.raises(DataError, match="decoder/kernel is not in the model"):
        checkpoints.restore(folder, "params", target, without=("head",))
    whole = checkpoints.restore(folder, "params", jax.eval_shape(lambda: tree), without=("decoder",))
    assert whole["decoder"]["kernel"].tolist() == [1, 1, 1]


def test_all_differences_are_in_one_error(step_folder):
    tree = make_params()
    lines = [change(tree) for change in (change_dtype, change_shape, add_leaf, drop_leaf)]
    with pytest.raises(DataError) as caught:
        checkpoints.restore(step_folder, "params", targets(one_device(), tree))
    assert all(line in str(caught.value) for line in lines)
    assert "\n" not in str(caught.value)


def test_a_long_list_of_differences_is_cut_and_counted(step_folder):
    tree = {f"x{i}": jnp.zeros((1,)) for i in range(20)}
    with pytest.raises(DataError, match="and 19 more"):
        checkpoints.restore(step_folder, "params", targets(one_device(), tree))


# what a killed run leaves


def test_a_step_without_manifest_does_not_exist_and_is_cleaned(saver):
    save_steps(saver, [1, 2])
    (saver.folder / "2" / files.MANIFEST).unlink()
    assert files.committed_steps(saver.folder) == [1]
    assert latest_step(saver.folder) == 1
    with pytest.raises(DataError, match="never completed"):
        checkpoints.restore(saver.folder / "2", "params", {"x": jax.ShapeDtypeStruct((3,), jnp.float32)})
    saver.clean()
    assert names(saver.folder) == ["1"]


def test_clean_removes_leftovers_and_nothing_else(saver):
    save_steps(saver, [1])
    for name in (
        "2.orbax-checkpoint-tmp",
        "3.orbax-checkpoint-tmp-1700000000",
        ".deleting-1",
        "4",
        "5.damaged",
        "notes",
    ):
        (saver.folder / name / "inner").mkdir(parents=True)
    (saver.folder / "6").write_text("a file of the user's")
    saver.clean()
    assert names(saver.folder) == ["1", "5.damaged", "6", "notes"]


def test_clean_without_a_folder_does_nothing(tmp_path):
    saver = checkpoints.Saver(tmp_path / "none")
    saver.clean()
    saver.close()
    assert not (tmp_path / "none").exists()


# values that are not finite


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_never_written(saver, tmp_path, value):
    save_steps(saver, [1])
    params = make_params()
    params["projection_0"]["kernel"] = params["projection_0"]["kernel"].at[3, 2].set(value)
    with pytest.raises(NumericError, match="projection_0/kernel") as caught:
        saver.save(2, {"params": params}, {})
    assert caught.value.exit_code == 70
    assert names(saver.folder) == ["1"]
    with pytest.raises(NumericError, match="projection_0/kernel"):
        checkpoints.write_bundle(tmp_path / "b", params, {})
    assert names(tmp_path) == ["checkpoints"]


def test_check_finite_counts_the_bad_arrays():
    params = make_params()
    params["scale"] = params["scale"].at[0].set(jnp.nan)
    params["encoder"]["mlp"]["kernel"] = params["encoder"]["mlp"]["kernel"].at[0].set(jnp.inf)
    with pytest.raises(NumericError, match=r"encoder/mlp/kernel .*2 arrays"):
        checkpoints.check_finite(params, "x")
    checkpoints.check_finite(make_params(), "x")


def test_integers_are_always_finite():
    checkpoints.check_finite({"ids": jnp.arange(3)}, "x")
    with pytest.raises(NumericError, match="x: b "):
        checkpoints.check_finite({"a": jnp.arange(3), "b": jnp.full((2,), jnp.nan)}, "x")


# failing saves

# A process that loads what saves, and becomes one process for each failure: loading takes longer than all that they do.
FAILING = """
import contextlib, os, pathlib, resource, signal, sys, traceback
import numpy as np
from embed import arrays, checkpoints, files
from embed.errors import StorageError

def params(step):
    x = np.random.default_rng(step).standard_normal((300, 1000)).astype(np.float32)
    return {"x": x, "y": np.full(3, step, np.float32)}

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def disk_full(folder):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    saver = checkpoints.Saver(folder)
    saver.save(1, {"params": params(1)}, {"model.json": b"{}"})
    saver.wait()

    def failing(step, contents):
        try:
            saver.save(step, {"params": params(step)}, contents)
            saver.wait()
            print("no error")
        except StorageError as e:
            print(e.exit_code, " ".join(str(e).split()))
        print(sorted(p.name for p in folder.iterdir()), checkpoints.newest_intact_step(folder)[0])

    limit(100_000)
    failing(2, {"model.json": b"{}"})
    limit(resource.RLIM_INFINITY)
    saver.save(3, {"params": params(3)}, {"model.json": b"{}"})
    saver.wait()
    print(files.committed_steps(folder))
    limit(2_000_000)
    failing(4, {"model.json": b"x" * 3_000_000})
    limit(resource.RLIM_INFINITY)
    saver.save(4, {"params": params(4)}, {"model.json": b"{}"})
    saver.close()
    print(files.committed_steps(folder))
    limit(100_000)
    try:
        checkpoints.write_bundle(folder.parent / "bundle", params(1), {})
        print("no error")
    except Exception as e:
        print(type(e).__name__, getattr(e, "exit_code", None))
    print(sorted(p.name for p in folder.parent.iterdir()))
    limit(resource.RLIM_INFINITY)

def killed(folder):
    saver = checkpoints.Saver(folder, keep_last=2)
    for step in (1, 2, 3):
        if step == 3:
            os.environ["EMBED_FAIL_AT"] = folder.parent.name
        saver.save(step, {"params": params(step)}, {"model.json": b"{}"})
        saver.wait()
    print("alive")

base = pathlib.Path(sys.argv[1])
for name in sys.argv[2:]:
    (base / name).mkdir()
    if not (pid := os.fork()):
        code = 1
        try:
            with open(base / f"{name}.said", "w") as said, contextlib.redirect_stdout(said):
                (disk_full if name == "full" else killed)(base / name / "checkpoints")
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    print(name, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
# killed in the middle: (newest step afterwards, steps after cleaning)
KILL_POINTS = {
    "checkpoint.after_device_to_host": (2, ["1", "2"]),
    "checkpoint.before_manifest": (2, ["1", "2"]),
    "checkpoint.after_manifest": (3, ["1", "2", "3"]),
    "checkpoint.before_delete": (3, ["2", "3"]),
}


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """The folder of processes that failed while they saved, and what they said."""
    base = tmp_path_factory.mktemp("failed")
    command = [sys.executable, "-c", FAILING, str(base), "full", *KILL_POINTS]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FAST}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    wanted = ["full 0", *(f"{point} {-signal.SIGKILL}" for point in KILL_POINTS)]
    assert done.stdout.splitlines() == wanted, done.stderr[-2000:]
    return base


def child_params(step: int) -> dict:
    x = np.random.default_rng(step).standard_normal((300, 1000)).astype(np.float32)
    return {"x": x, "y": np.full(3, step, np.float32)}


@pytest.fixture(scope="module")
def disk_full(failed):
    """What a process said whose file sizes were limited while it saved, line by line, and its folder."""
    return failed / "full" / "checkpoints", (failed / "full.said").read_text().splitlines()


def test_a_save_that_fails_waits_whether_another_host_is_lost(tmp_path, monkeypatch):
    """Orbax says of a host that is lost that time was up, which is no fault of the disk."""
    waited = []
    monkeypatch.setattr(checkpoints.hosts, "await_loss", lambda: waited.append(1))
    saver = checkpoints.Saver(tmp_path / "checkpoints")
    monkeypatch.setattr(checkpoints.files, "write_manifest", lambda *_, **__: 1 / 0)
    saver.save(1, {"params": {"x": np.zeros(3, np.float32)}}, {})
    with pytest.raises(StorageError, match="could not be written"):
        saver.wait()
    assert waited == [1]
    saver.close()


@pytest.mark.slow
def test_a_full_disk_is_a_storage_error_that_tells_which_step_is_intact(disk_full):
    line = disk_full[1][0]
    assert line.startswith("74 ") and f"{disk_full[0]}/2" in line
    assert "could not be written" in line and "step 1 is intact" in line and "free space" in line


@pytest.mark.slow
def test_a_full_disk_leaves_the_step_before_and_no_rubbish(disk_full):
    assert disk_full[1][1] == "['1'] 1"


@pytest.mark.slow
def test_saving_works_again_when_there_is_space(disk_full):
    assert disk_full[1][2] == "[1, 3]"
    for step in (1, 3, 4):
        assert_same_bits(arrays.load_numpy(disk_full[0] / str(step)), child_params(step))


@pytest.mark.slow
def test_a_disk_that_fills_before_the_manifest_is_a_storage_error(disk_full):
    line = disk_full[1][3]
    assert line.startswith("74 ") and "step 3 is intact" in line
    assert disk_full[1][5] == "[1, 3, 4]"


def test_a_disk_that_fills_before_the_manifest_leaves_no_rubbish(disk_full):
    assert disk_full[1][4] == "['1', '3'] 3"


def test_a_bundle_on_a_full_disk_is_a_storage_error(disk_full):
    assert disk_full[1][6] == "StorageError 74"


def test_a_bundle_on_a_full_disk_leaves_nothing(disk_full):
    assert disk_full[1][7] == "['checkpoints']"


def test_too_little_space_is_told_before_anything_is_written(saver, monkeypatch):
    save_steps(saver, [1])
    usage = shutil.disk_usage(saver.folder)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(StorageError, match="free") as caught:
        saver.save(2, {"params": make_params()}, {})
    assert str(saver.folder) in str(caught.value)
    assert names(saver.folder) == ["1"]


@pytest.mark.parametrize("point", KILL_POINTS)
def test_a_run_killed_while_saving_goes_on_from_the_newest_whole_step(failed, point):
    """Of a run that was killed at each point while it saved step 3, keeping 2."""
    folder = failed / point / "checkpoints"
    newest, kept = KILL_POINTS[point]
    assert latest_step(folder, pytest.fail) == newest
    saver = checkpoints.Saver(folder, keep_last=2)
    saver.clean()
    assert names(folder) == kept
    for step in kept:
        assert_same_bits(arrays.load_numpy(folder / step), child_params(int(step)))
    saver.save(4, {"params": child_params(4)}, {})
    saver.close()
    assert names(folder) == [str(newest), "4"]
    assert_same_bits(arrays.load_numpy(folder / "4"), child_params(4))


def test_an_error_in_the_background_comes_with_the_next_save(saver, monkeypatch):
    save_steps(saver, [1])

    def broken(*_, **__):
        raise RuntimeError("the disk is on fire")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.files, "write_manifest", broken)
        saver.save(2, {"params": make_params()}, {})
        saver._thread.join()
    with pytest.raises(StorageError, match="on fire"):
        saver.save(3, {"params": make_params()}, {})
    assert files.committed_steps(saver.folder) == [1]
    save_steps(saver, [4])
    assert latest_step(saver.folder) == 4


# bundles on disk


def test_a_bundle_holds_params_and_small_files(tmp_path):
    path = checkpoints.write_bundle(tmp_path / "b", make_params(), CONTENTS, source="x")
    manifest = files.verify_manifest(path)
    assert list(manifest["trees"]) == ["params"] and manifest["source"] == "x"
    assert names(path) == [files.MANIFEST, "model.json", "params", "tokenizer.model"]
    assert_same_bits(arrays.load_numpy(path), make_params())
    assert_same_bits(
        checkpoints.restore(path, "params", targets(sharding.make_mesh(MeshShape(2, 2, 2)), make_params())),
        make_params(),
    )


def test_a_bundle_never_replaces_a_folder_untold(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine").write_text("1")
    with pytest.raises(StorageError, match="already exists"):
        checkpoints.write_bundle(tmp_path / "b", make_params(), {})
    assert names(tmp_path / "b") == ["mine"] and names(tmp_path) == ["b"]
    checkpoints.write_bundle(tmp_path / "b", make_params(), {}, overwrite=True)
    assert names(tmp_path / "b") == [files.MANIFEST, "params"]


def by_blocks(path, tree, values=None, rows=2):
    """Writes a tree block by block, `rows` of the first dimension in each."""
    leaves = trees.flatten(tree)
    blocks = {
        p: [
            (slice(i, min(i + rows, x.shape[0])), *(slice(0, n) for n in x.shape[1:]))
            for i in range(0, x.shape[0], rows)
        ]
        if x.shape
        else [()]
        for p, x in leaves.items()
    }
    specs = {p: (x.shape, x.dtype) for p, x in leaves.items()}
    return arrays.write_bundle_by_blocks(
        path, specs, blocks, values or (lambda p, block: np.asarray(leaves[p])[block]), CONTENTS, source="x"
    )


@pytest.mark.parametrize("rows", [1, 1000])
def test_a_bundle_written_by_blocks_is_the_same_bundle(tmp_path, rows):
    params = make_params()
    whole = checkpoints.write_bundle(tmp_path / "a", params, CONTENTS, source="x")
    pieces = by_blocks(tmp_path / "b", params, rows=rows)
    a, b = (files.verify_manifest(p) for p in (whole, pieces))
    assert a["trees"] == b["trees"] and a["source"] == b["source"] and names(whole) == names(pieces)
    assert_same_bits(arrays.load_numpy(pieces), params)
    mesh = sharding.make_mesh(MeshShape(2, 2, 2))
    assert_same_bits(checkpoints.restore(pieces, "params", targets(mesh, params)), params)
    # Orbax's own reader needs to be told nothing.
    assert_same_bits(ocp.StandardCheckpointer().restore(pieces.absolute() / "params"), params)


def test_a_bundle_holds_arrays_of_every_kind(tmp_path):
    tree = {
        "empty": np.zeros((0, 4), np.float32),
        "flags": np.array([True, False]),
        "half": jnp.linspace(-1, 1, 6, dtype=jnp.bfloat16).reshape(2, 3),
        "number": np.asarray(-7, np.int32),
        "zeros": np.zeros((3, 1), np.float32),
    }
    path = checkpoints.write_bundle(tmp_path / "b", tree, {})
    assert_same_bits(arrays.load_numpy(path), tree)
    assert_same_bits(ocp.StandardCheckpointer().restore(path.absolute() / "params"), tree)


def test_a_bundle_whose_values_cannot_be_made_is_not_there(tmp_path):
    def broken(path, block):
        raise NumericError("no such value")

    with pytest.raises(NumericError, match="no such value"):
        by_blocks(tmp_path / "b", make_params(), broken)
    assert names(tmp_path) == []


@pytest.mark.parametrize("stage", ["write_manifest", "fsync_folder"])
def test_a_bundle_is_whole_or_not_there(tmp_path, monkeypatch, stage):
    def broken(*_, **__):
        raise RuntimeError("power is gone")

    monkeypatch.setattr(files, stage, broken)
    with pytest.raises(RuntimeError, match="power"):
        checkpoints.write_bundle(tmp_path / "b", make_params(), CONTENTS)
    assert names(tmp_path) == []


# reading in blocks


@pytest.mark.parametrize("item", ["params", "opt_state"])
def test_open_arrays_reads_any_block(step_folder, item):
    wanted = trees.flatten(make_trees()[item])
    opened = arrays.open_arrays(step_folder, item)
    assert list(opened) == list(wanted)
    for path, array in opened.items():
        found = np.zeros(array.shape, array.dtype.numpy_dtype)
        for block in np.ndindex(array.shape[:1]):  # a row at a time
            found[block] = np.asarray(array[block].read().result())
        assert found.tobytes() == np.asarray(wanted[path]).tobytes(), path


@pytest.mark.slow
def test_open_arrays_of_a_sharded_save(saver):
    params = make_params()
    saver.save(1, {"params": on(sharding.make_mesh(MeshShape(2, 2, 2)), params)}, {})
    saver.wait()
    for path, array in arrays.open_arrays(saver.folder / "1").items():
        assert np.asarray(array.read().result()).tobytes() == np.asarray(trees.flatten(params)[path]).tobytes()


def test_arrays_are_stored_without_a_padded_shape(tmp_path):
    x = jax.device_put(jnp.arange(24.0).reshape(8, 3), NamedSharding(sharding.make_mesh(), PartitionSpec("data")))
    checkpoints.write_bundle(tmp_path / "b", {"x": x}, {})
    assert tuple(arrays.open_arrays(tmp_path / "b")["x"].shape) == (8, 3)


STORED = [(10_174, 384), (1025, 1024), (7, 128, 2048), (1024, 1100), (10_007, 200)]
AWKWARD = [
    *STORED,
    (30_522, 384),
    (4096, 1100),
    (28, 256, 3072),
    (4, 1024, 3072),
    (12, 768, 3072),
    (262_144, 768),
    (26, 2304, 9216),
]


@pytest.mark.parametrize("shape", AWKWARD, ids=str)
def test_pieces_are_neither_crumbs_nor_lumps_and_divide_their_array(shape):
    piece = arrays.piece_of(shape, np.float32)
    assert all(n % p == 0 for n, p in zip(shape, piece))
    assert 1 << 20 <= 4 * math.prod(piece) <= 1 << 23


@pytest.mark.slow
@pytest.mark.parametrize("shape", STORED, ids=str)
def test_runs_and_bundles_store_an_array_in_the_same_pieces(saver, tmp_path, shape):
    """Neither crumbs nor lumps, whatever the factors of its dimensions, and nothing is filled up."""
    x = np.zeros(shape, np.float32)
    x[..., 0] = 1
    saver.save(1, {"params": {"x": jnp.asarray(x)}}, {})
    saver.wait()
    bundle = checkpoints.write_bundle(tmp_path / "b", {"x": x}, {})
    run, own = (arrays.open_arrays(f)["x"].spec().to_json()["metadata"] for f in (saver.folder / "1", bundle))
    assert run == own and own["compressor"] is None
    piece = 4 * math.prod(own["chunks"])
    assert 1 << 20 <= piece <= 1 << 23
    stored = sum(p.stat().st_size for p in (bundle / "params").rglob("*") if p.is_file())
    assert stored < 1.02 * x.nbytes + 20_000


def test_pieces_of_a_shard_divide_it_along_the_devices():
    assert arrays.piece_of((262_144, 48), np.float32, (False, True)) == (262_144, 4)
    assert arrays.piece_of((15_261, 384), np.float32, (True, False)) == (5087, 384)


def test_crumbs_are_read_several_at_once():
    assert arrays.several((6, 384), (30_522, 384), np.float32) == (2730, 384)
    assert arrays.several((2, 3), (4, 7), np.float32) == (4, 7)
    assert arrays.several((4096, 1024), (8192, 1024), np.float32) == (4096, 1024)
    assert arrays.several((), (), np.float32) == ()


@pytest.mark.parametrize(
    "name", ["a b", "new\nline", "ü 語", "what? *", "#5%20", "{a,b}", "'q' \"d\"", "~ $HOME;&|", "a/../b"]
)
def test_a_step_is_saved_and_restored_under_any_name(tmp_path, name):
    folder = tmp_path / name
    (tmp_path / "a").mkdir(exist_ok=True)
    saver = checkpoints.Saver(folder)
    params = make_params()
    saver.save(1, {"params": params}, CONTENTS)
    saver.close()
    read = arrays.load_numpy(folder / "1")
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    restored = checkpoints.restore(folder / "1", "params", target)
    for wanted, one, other in zip(*map(jax.tree.leaves, (params, read, restored)), strict=True):
        np.testing.assert_array_equal(one, wanted)
        np.testing.assert_array_equal(other, wanted)


@pytest.mark.parametrize(
    "name, what", [("runs [1]", r"\["), ("back\\slash", r"\\"), ("bad\udcff", "bytes that are not UTF-8")]
)
def test_a_folder_in_which_steps_would_be_lost_is_refused_before_anything_is_saved(tmp_path, name, what):
    with pytest.raises(UsageError, match=f"below a folder with {what} in its name"):
        checkpoints.Saver(tmp_path / name)
    if "[" not in name:  # Orbax alone takes it for a pattern
        with pytest.raises(UsageError, match=f"below a folder with {what} in its name"):
            checkpoints.write_bundle(tmp_path / name, make_params(), CONTENTS)
    else:
        checkpoints.write_bundle(tmp_path / name, make_params(), CONTENTS)
        arrays.load_numpy(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ([name] if "[" in name else [])


def test_a_host_with_its_own_copy_takes_over_what_the_main_host_has_set_aside(tmp_path, monkeypatch):
    saver = checkpoints.Saver(tmp_path / "checkpoints")
    for step in (4, 8):
        saver.save(step, make_trees(), CONTENTS)
    saver.close()
    four = tmp_path / "checkpoints" / "4"
    checkpoints.agree_with_main(four.parent, 4)
    monkeypatch.setattr(checkpoints.hosts, "is_main", lambda: False)
    checkpoints.agree_with_main(four.parent, 4)
    assert files.committed_steps(tmp_path / "checkpoints") == [4, 8], "one host, or hosts with a common disk"
    monkeypatch.setattr(checkpoints, "_is_apart", lambda folder: True)
    checkpoints.agree_with_main(four.parent, 4)
    assert files.committed_steps(tmp_path / "checkpoints") == [4]
    (four / "model.json").write_text("{}")
    with pytest.raises(DataError, match="model.json"):
        checkpoints.agree_with_main(four.parent, 4)
    checkpoints.agree_with_main(four.parent, -1)
    assert files.committed_steps(tmp_path / "checkpoints") == [], "the main host found none that is whole"


def test_hosts_agree_whether_a_step_is_there(tmp_path, monkeypatch):
    saver = checkpoints.Saver(tmp_path / "checkpoints")
    saver.save(4, make_trees(), CONTENTS)
    saver.wait()
    assert saver.has(4) and not saver.has(8)
    monkeypatch.setattr(checkpoints.hosts, "agree", lambda value: np.array(False))
    assert saver.has(4)
    saver._is_apart = True
    assert not saver.has(4), "the main host's word counts"
    saver.close()
