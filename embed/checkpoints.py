"""Saving and restoring trees of arrays. The only file that knows orbax and tensorstore.

A *step folder* holds one Orbax item per tree (`params`, `opt_state`, `ema`), small files (`model.json`, `meta.json`, the
tokenizer) and MANIFEST.json, written last. Without a manifest a step does not exist; with one it is verified before it is
read. This closes three gaps measured in Orbax 0.12: a flipped bit restores silently, a dtype is cast silently, and a save
that failed is reported as done. A *bundle* is a step folder with `params` alone.
"""

import contextlib
import math
import pathlib
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from embed import files
from embed.errors import DataError, EmbedError, NumericError, StorageError

_CHUNK = 1 << 24  # bytes of an array that are stored, and later read, in one piece
_LEFTOVER = re.compile(r"\.orbax-checkpoint-tmp|^\.deleting-")


def flatten(tree) -> dict[str, Any]:
    """Returns {path: leaf} with paths like 'encoder/layers/mlp/gate/kernel', in the tree's order."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def unflatten(leaves: Mapping[str, Any]) -> dict:
    """Returns the nested dict whose `flatten` is `leaves`."""
    tree: dict = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree


def tree_spec(tree) -> dict[str, dict]:
    """Returns {path: {"shape", "dtype"}} as JSON values."""
    return {p: {"shape": list(x.shape), "dtype": str(jnp.dtype(x.dtype))} for p, x in flatten(tree).items()}


def spec_differences(found: Mapping[str, dict], wanted: Mapping[str, dict]) -> list[str]:
    """Returns one phrase per path that is missing, left over, or of another shape or dtype."""
    lines = [f"{p} is missing" for p in wanted if p not in found]
    lines += [f"{p} is not in the model" for p in found if p not in wanted]
    for p in wanted:
        if p in found and found[p] != wanted[p]:
            a, b = (f"{s['dtype']}{s['shape']}" for s in (found[p], wanted[p]))
            lines.append(f"{p} is {a}, the model has {b}")
    return lines


@jax.jit
def _finite(tree):
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves])) if leaves else jnp.array(True)


def check_finite(tree, what: str) -> None:
    """Raises NumericError, naming the first bad leaf, when any value in `tree` is not finite."""
    if not bool(_finite(tree)):
        bad = [p for p, x in flatten(tree).items() if not bool(jnp.all(jnp.isfinite(x)))]
        raise NumericError(f"{what}: {bad[0]} holds values that are not finite ({len(bad)} arrays in all); not written")


def _save_arguments(tree) -> ocp.args.StandardSave:
    """Returns what Orbax is told about a tree: chunks small enough to be read, and averaged, block by block."""
    return ocp.args.StandardSave(tree, save_args=jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK), tree))


class Saver:
    """Writes checkpoint steps of one run in the background and keeps the newest and the best of them.

    `save` returns once the arrays have left the device; the step exists only when its manifest has been written. An error in
    the background is raised by the next `save` or `wait`, and nothing before it is lost.
    """

    def __init__(self, folder, *, keep_last: int = 5, on_commit: Callable[[int], None] = lambda step: None):
        self.folder = pathlib.Path(folder)
        self._keep_last = keep_last
        self._on_commit = on_commit
        self._checkpointer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._protected: set[int] = set()

    def clean(self) -> None:
        """Removes what a killed run left half-written. Call it only while holding the run's lock."""
        if jax.process_index() or not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            uncommitted = path.name.isdigit() and not (path / files.MANIFEST).exists()
            if path.is_dir() and (uncommitted or _LEFTOVER.search(path.name)):
                shutil.rmtree(path)

    def protect(self, step: int | None) -> None:
        """Keeps `step` (the best so far) from being deleted; it replaces the step protected before."""
        self._protected = set() if step is None else {step}

    def save(self, step: int, trees: Mapping[str, Any], contents: Mapping[str, bytes], **extra) -> None:
        """Starts writing `trees` and the small files `contents` (name -> bytes) as checkpoint `step`."""
        self.wait()
        for name in ("params", "ema"):
            if name in trees:
                check_finite(trees[name], f"checkpoint {step}, {name}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_space(trees)
        path = self.folder.absolute() / str(step)
        specs = {name: tree_spec(tree) for name, tree in trees.items()}
        items = {name: _save_arguments(tree) for name, tree in trees.items()}
        try:
            self._checkpointer.save(path, args=ocp.args.Composite(**items), force=True)
        except Exception as e:  # Orbax wraps storage faults in many types; all mean this step was not written.
            raise self._failed(step, e) from e
        files.failpoint("checkpoint.after_device_to_host")
        self._thread = threading.Thread(target=self._finish, args=(step, path, specs, contents, extra), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Blocks until the last `save` is committed; raises what went wrong with it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Waits for the last save and frees the background threads."""
        try:
            self.wait()
        finally:
            self._checkpointer.close()

    def _finish(self, step, path, specs, contents, extra) -> None:
        try:
            self._checkpointer.wait_until_finished()
            if jax.process_index():
                return
            files.failpoint("checkpoint.before_manifest")
            for name, content in contents.items():
                (path / name).write_bytes(content)
            _sync_files(path)
            files.write_manifest(path, step=step, trees=specs, **extra)
            files.failpoint("checkpoint.after_manifest")
            self._on_commit(step)
            self._collect()
        except Exception as e:
            self._error = e if isinstance(e, EmbedError) else self._failed(step, e)

    def _collect(self) -> None:
        """Deletes all committed steps but the newest `keep_last` and the protected one."""
        for step in committed_steps(self.folder)[: -self._keep_last]:
            if step not in self._protected:
                doomed = self.folder / f".deleting-{step}"
                (self.folder / str(step)).rename(doomed)
                files.failpoint("checkpoint.before_delete")
                shutil.rmtree(doomed)

    def _check_space(self, trees) -> None:
        needed = sum(math.prod(x.shape) * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(dict(trees)))
        free = shutil.disk_usage(self.folder).free
        if free < 1.1 * needed:
            raise StorageError(
                f"{self.folder}: the next checkpoint needs about {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; "
                "free some and run the same command again"
            )

    def _failed(self, step: int, error: Exception) -> StorageError:
        for left in [self.folder / str(step), *self.folder.glob(f"{step}.orbax-checkpoint-tmp*")]:
            if not (left / files.MANIFEST).exists():
                shutil.rmtree(left, ignore_errors=True)
        steps = committed_steps(self.folder)
        return StorageError(
            f"{self.folder / str(step)}: the checkpoint could not be written ({_first_line(error)}); "
            f"{f'step {steps[-1]} is intact' if steps else 'no step was written before'}; "
            "free space or repair the disk and run the same command again"
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _sync_files(folder: pathlib.Path) -> None:
    """Makes everything under `folder` durable before the manifest says that it is there."""
    import os

    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        else:
            files.fsync_folder(path)


def committed_steps(folder) -> list[int]:
    """Returns the steps under a `checkpoints` folder that have a manifest, oldest first."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and (p / files.MANIFEST).is_file())


def latest_verified_step(folder, say: Callable[[str], None] = print, set_aside: bool = True) -> int | None:
    """Returns the newest step whose files all match its manifest, or None.

    A damaged step is set aside by renaming it to `<step>.damaged` (never deleted), and `say` is told.
    """
    folder = pathlib.Path(folder)
    for step in reversed(committed_steps(folder)):
        try:
            files.verify_manifest(folder / str(step))
            return step
        except DataError as e:
            if not set_aside:
                raise
            aside = folder / f"{step}.damaged"
            number = 1
            while aside.exists():
                number += 1
                aside = folder / f"{step}.damaged-{number}"
            (folder / str(step)).rename(aside)
            say(f"checkpoint {step} is damaged and was set aside as {aside.name} ({e}); falling back to the one before")
    return None


def tree_paths(step_folder, item: str) -> set[str]:
    """Returns the paths of the arrays in one item."""
    return set(files.read_manifest(step_folder).get("trees", {}).get(item, {}))


def restore(step_folder, item: str, target, *, verified: bool = False):
    """Returns the tree `item` of a step folder, laid out as `target` (a tree of ShapeDtypeStruct with shardings).

    Differences in paths, shapes or dtypes are one DataError that lists them. `verified` skips the digest check when the
    caller has just made it.
    """
    step_folder = pathlib.Path(step_folder)
    manifest = files.read_manifest(step_folder) if verified else files.verify_manifest(step_folder)
    check_fits(step_folder, item, target, manifest)
    reader = ocp.Checkpointer(ocp.StandardCheckpointHandler())
    try:
        return reader.restore(step_folder.absolute() / item, args=ocp.args.StandardRestore(target))
    finally:
        reader.close()


def check_fits(step_folder, item: str, target, manifest: Mapping[str, Any] | None = None) -> None:
    """Raises one DataError that lists how the tree `item` of a step folder differs from `target` in paths, shapes or dtypes.

    Nothing but the manifest is read.
    """
    manifest = files.read_manifest(pathlib.Path(step_folder)) if manifest is None else manifest
    found = manifest.get("trees", {}).get(item)
    if found is None:
        raise DataError(
            f"{step_folder}: holds no {item!r}; it has {', '.join(manifest.get('trees', {})) or 'no arrays'}"
        )
    differences = spec_differences(found, tree_spec(target))
    if differences:
        raise DataError(
            f"{step_folder}: {item} does not match the model: {'; '.join(differences[:5])}"
            f"{f'; and {len(differences) - 5} more' if len(differences) > 5 else ''}; "
            "use the configuration the checkpoint was made with"
        )


def write_bundle(path, params, contents: Mapping[str, bytes], *, overwrite: bool = False, **extra) -> pathlib.Path:
    """Writes `params` and the small files `contents` as the self-describing folder `path`; whole or not at all."""
    check_finite(params, str(path))
    with _new_bundle(path, tree_spec(params), contents, overwrite, extra) as (folder, writer):
        writer.save(folder, args=_save_arguments(params))
    return pathlib.Path(path)


def write_bundle_by_blocks(
    path,
    specs: Mapping[str, tuple[tuple[int, ...], Any]],
    blocks_of: Mapping[str, Sequence[tuple[slice, ...]]],
    values: Callable[[str, tuple[slice, ...]], np.ndarray],
    contents: Mapping[str, bytes],
    **extra,
) -> pathlib.Path:
    """Writes a bundle whose parameters are never in memory whole: `values(path, block)` gives one block of one array.

    `specs` are the shape and the dtype of every array by its path, `blocks_of` the blocks that cover it, all of one size but
    the last ones; each is stored as a piece of its own. Whole or not at all, like `write_bundle`.
    """
    tree = {p: {"shape": list(shape), "dtype": str(jnp.dtype(dtype))} for p, (shape, dtype) in specs.items()}
    with _new_bundle(path, tree, contents, False, extra) as (folder, writer):
        # Orbax writes what tells of the tree; the arrays, which it would hold whole, replace its placeholders.
        placeholders = unflatten({p: np.zeros((1,), dtype) for p, (_, dtype) in specs.items()})
        writer.save(folder, args=_save_arguments(placeholders))
        for name, (shape, _) in specs.items():
            array = _replaced(folder, name, shape, blocks_of[name])
            writing = None
            for block in blocks_of[name]:
                made = values(name, block)  # while the block before is written
                if writing is not None:
                    writing.result()
                writing = array[block].write(made)
            if writing is not None:
                writing.result()
    return pathlib.Path(path)


@contextlib.contextmanager
def _new_bundle(path, tree: Mapping[str, dict], contents: Mapping[str, bytes], overwrite: bool, extra):
    """Gives the folder of the parameters and a writer of Orbax's; what is written there becomes a bundle at the end."""
    path = pathlib.Path(path)
    with files.new_folder(path, overwrite) as temporary:
        writer = ocp.Checkpointer(ocp.StandardCheckpointHandler())
        try:
            yield temporary.absolute() / "params", writer
        except EmbedError:
            raise
        except Exception as e:  # Orbax and tensorstore wrap storage faults in many types
            raise StorageError(f"{path}: could not be written ({_first_line(e)}); free space or repair the disk") from e
        finally:
            writer.close()
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        _sync_files(temporary)
        files.write_manifest(temporary, trees={"params": dict(tree)}, **extra)


def _replaced(folder: pathlib.Path, name: str, shape: tuple[int, ...], blocks_of: Sequence[tuple[slice, ...]]):
    """Returns an empty array of this shape in the place of one that Orbax wrote, stored in pieces of the first block's size."""
    there = tensorstore.open(_store(folder, name), read=True, open=True).result().spec().to_json()["metadata"]
    piece = [len(range(*s.indices(n))) for s, n in zip(blocks_of[0], shape)]
    metadata = {k: there[k] for k in ("compressor", "dtype", "fill_value", "filters", "order") if k in there}
    wanted = {**_store(folder, name), "metadata": {**metadata, "shape": list(shape), "chunks": piece}}
    return tensorstore.open(wanted, create=True, delete_existing=True, read=True, write=True).result()


def _store(folder: pathlib.Path, name: str) -> dict:
    """Returns where tensorstore finds the array `name` of an item."""
    base = {"driver": "file", "path": f"{folder}/"}
    return {"driver": "zarr", "kvstore": {"driver": "ocdbt", "base": base, "path": name.replace("/", ".") + "/"}}


def open_arrays(step_folder, item: str = "params") -> dict[str, tensorstore.TensorStore]:
    """Returns {path: lazily read array} of one item, so that a reader holds only the blocks it asks for."""
    step_folder = pathlib.Path(step_folder).absolute()
    paths = files.read_manifest(step_folder)["trees"][item]
    opened = {path: tensorstore.open(_store(step_folder / item, path), read=True, open=True) for path in paths}
    return {path: future.result() for path, future in opened.items()}


def load_numpy(step_folder, item: str = "params") -> dict:
    """Returns an item as a nested dict of numpy arrays, after verifying the manifest."""
    files.verify_manifest(step_folder)
    futures = {path: array.read() for path, array in open_arrays(step_folder, item).items()}
    return unflatten({path: np.asarray(future.result()) for path, future in futures.items()})
