"""Saving and restoring trees of arrays on devices. The only file that knows Orbax.

A *step folder* holds one Orbax item per tree (`params`, `opt_state`, and where a run has them `learned` and `moving`), small
files (`model.json`, `meta.json`, the tokenizer) and MANIFEST.json, written last. Without a manifest a step does not exist; with
one, what is read of it is verified before it is used. This closes three gaps measured in Orbax 0.12: a flipped bit restores
silently, a dtype is cast silently, and a save that failed is reported as done. A *bundle* is a step folder with `params` alone.
"""

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

from embed import arrays, documents, files, hosts, trees
from embed.buckets import copies
from embed.errors import DataError, EmbedError, NumericError, StorageError
from embed.packed_arrays import Packed

_LEFTOVER = re.compile(r"\.orbax-checkpoint-tmp|^\.deleting-")


@jax.jit
def _finite(tree):
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves])) if leaves else jnp.array(True)


def check_finite(tree, what: str) -> None:
    """Raises NumericError, naming the first bad leaf, when any value in `tree` is not finite."""
    if not bool(_finite(tree)):
        bad = [p for p, x in trees.flatten(tree).items() if not bool(jnp.all(jnp.isfinite(x)))]
        raise NumericError(f"{what}: {bad[0]} holds values that are not finite ({len(bad)} arrays in all); not written")


def _piece(x) -> tuple[int, ...]:
    """Returns the shape of the pieces that an array is stored in: each lies on one device whole."""
    shard = x.sharding.shard_shape(x.shape) if isinstance(x, jax.Array) else x.shape
    return arrays.piece_of(shard, x.dtype, [a != b for a, b in zip(x.shape, shard)])


def _save_arguments(tree) -> ocp.args.PyTreeSave:
    """Returns Orbax's arguments for saving a tree: pieces small enough to be read, and averaged, block by block."""

    def of(x) -> ocp.SaveArgs:
        return ocp.SaveArgs(chunk_byte_size=math.prod(_piece(x)) * jnp.dtype(x.dtype).itemsize)

    return ocp.args.PyTreeSave(tree, save_args=jax.tree.map(of, tree))


def _handler() -> ocp.CompositeCheckpointHandler:
    """Returns Orbax's handler of several trees, not compressed: the digits of float32 parameters are near to random. zstd takes
    8 percent off their size, and makes an average take an eighth longer."""
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    registry.add(None, ocp.args.PyTreeSave, ocp.PyTreeCheckpointHandler(use_compression=False))
    return ocp.CompositeCheckpointHandler(handler_registry=registry)


def _is_apart(folder) -> bool:
    """Returns whether each of several hosts has its own copy of a folder, which lies in a bucket."""
    return jax.process_count() > 1 and copies.of(folder) is not None


def _own_blocks(x: jax.Array) -> list[tuple[arrays.Block, np.ndarray]]:
    """Returns the blocks of an array that this host stores, and no other does, as copies off their devices."""
    return [(shard.index, np.asarray(shard.data)) for shard in x.addressable_shards if shard.replica_id == 0]


class Saver:
    """Writes checkpoint steps of one run in the background and keeps the newest and the best of them, and every `keep_every`th.

    `save` returns once the arrays have left the device; the step exists only when its manifest has been written. An error in
    the background is raised by the next `save` or `wait`, and nothing before it is lost.
    """

    def __init__(
        self,
        folder,
        *,
        keep_last: int = 5,
        keep_every: int | None = None,
        on_commit: Callable[[int], None] = lambda step: None,
    ):
        self.folder = pathlib.Path(folder)
        # Orbax looks for what the hosts wrote with a pattern of which this is a part: it finds nothing, and the step is lost.
        arrays.resolved(folder, "\\[")
        self._keep_last, self._keep_every = keep_last, keep_every
        self._on_commit = on_commit
        self._is_apart = _is_apart(folder)
        self._checkpointer = ocp.AsyncCheckpointer(_handler())
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

    def has(self, step: int) -> bool:
        """Returns whether a step is committed; the same on every host, though each may have its own copy of the folder."""
        is_committed = step in files.committed_steps(self.folder)
        return bool(hosts.agree(np.array(is_committed))) if self._is_apart else is_committed

    def protect(self, step: int | None) -> None:
        """Keeps `step` (the best so far) from being deleted; it replaces the step protected before."""
        self._protected = set() if step is None else {step}

    def save(self, step: int, items: Mapping[str, Any], contents: Mapping[str, bytes], **extra) -> None:
        """Starts writing the trees `items` and the small files `contents` (name -> bytes) as checkpoint `step`."""
        self.wait()
        if (self.folder / str(step) / files.MANIFEST).is_file():
            return  # it was being written when it was asked for again
        for name in ("params", "learned", "moving"):
            if name in items:
                check_finite(items[name], f"checkpoint {step}, {name}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_space(items)
        path = arrays.resolved(self.folder) / str(step)
        specs = {name: trees.spec(tree) for name, tree in items.items()}
        try:
            write = (self._apart_writer if self._is_apart else self._orbax_writer)(path, items)
        except Exception as e:  # Orbax wraps storage faults in many types; all mean this step was not written.
            raise self._failed(step, e) from e
        files.failpoint("checkpoint.after_device_to_host")
        self._thread = threading.Thread(
            target=self._finish, args=(write, step, path, specs, contents, extra), daemon=True
        )
        self._thread.start()

    def _orbax_writer(self, path: pathlib.Path, items: Mapping[str, Any]) -> Callable[[], None]:
        """Begins to write trees, and returns the function that waits until they are written."""
        saved = {name: _save_arguments(tree) for name, tree in items.items()}
        self._checkpointer.save(path, args=ocp.args.Composite(**saved), force=True)
        return self._checkpointer.wait_until_finished

    def _apart_writer(self, path: pathlib.Path, items: Mapping[str, Any]) -> Callable[[], None]:
        """Returns the function that writes this host's blocks of trees, which have left their devices.

        The hosts' files lie together in the bucket. Those of OCDBT, which Orbax writes, would have to be merged there.
        """
        stored = {}
        for name, tree in items.items():
            leaves = trees.flatten(tree)
            pieces = {p: _piece(x) for p, x in leaves.items()}
            stored[name] = {p: (x.shape, x.dtype, pieces[p], _own_blocks(x)) for p, x in leaves.items()}

        def write() -> None:
            for name, blocks in stored.items():
                arrays.write_blocks(path / name, blocks)

        return write

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

    def _finish(self, write, step, path, specs, contents, extra) -> None:
        try:
            write()
            copy = copies.of(path) if self._is_apart else None
            if jax.process_index():
                if copy is not None:
                    copy.publish(path, jax.process_index(), files.entries_of(path))
                    copy.await_manifest(path)
                return
            others = {} if copy is None else copy.collect(path, range(1, jax.process_count()))
            files.failpoint("checkpoint.before_manifest")
            for name, content in contents.items():
                (path / name).write_bytes(content)
            files.sync(path)
            files.write_manifest(path, others, step=step, trees=specs, **extra)
            files.failpoint("checkpoint.after_manifest")
            copies.push()
            self._on_commit(step)
            self._collect()
        except Exception as e:
            self._error = e if isinstance(e, EmbedError) else self._failed(step, e)

    def _collect(self) -> None:
        """Deletes all committed steps but the newest `keep_last`, the protected one and those that `keep_every` divides."""
        for step in files.committed_steps(self.folder)[: -self._keep_last]:
            if step not in self._protected and (self._keep_every is None or step % self._keep_every):
                doomed = self.folder / f".deleting-{step}"
                (self.folder / str(step)).rename(doomed)
                files.failpoint("checkpoint.before_delete")
                shutil.rmtree(doomed)

    def _check_space(self, items: Mapping[str, Any]) -> None:
        needed = sum(math.prod(x.shape) * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(dict(items)))
        free = shutil.disk_usage(self.folder).free
        if free < 1.1 * needed:
            raise StorageError(
                f"{self.folder}: the next checkpoint needs about {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; "
                "free some and run the same command again"
            )

    def _failed(self, step: int, error: Exception) -> StorageError:
        hosts.await_loss()  # Orbax waits for the others, and says of one that is lost that time was up
        for left in [self.folder / str(step), *self.folder.glob(f"{step}.orbax-checkpoint-tmp*")]:
            if not (left / files.MANIFEST).exists():
                shutil.rmtree(left, ignore_errors=True)
        steps = files.committed_steps(self.folder)
        return StorageError(
            f"{self.folder / str(step)}: the checkpoint could not be written ({documents.first_line(error)}); "
            f"{f'step {steps[-1]} is intact' if steps else 'no step was written before'}; "
            "free space or repair the disk and run the same command again"
        )


def newest_intact_step(folder) -> tuple[int | None, dict[int, DataError]]:
    """Returns the newest step whose files all match its manifest, or None, and the damaged steps that are newer."""
    folder, damaged = pathlib.Path(folder), {}
    for step in reversed(files.committed_steps(folder)):
        try:
            files.verify_manifest(folder / str(step))
            return step, damaged
        except DataError as e:
            damaged[step] = e
    return None, damaged


def set_aside(folder, damaged: Mapping[int, DataError], say: Callable[[str], None] = print) -> None:
    """Renames damaged steps to `<step>.damaged`, which nothing reads and nobody deletes, and says so."""
    folder = pathlib.Path(folder)
    for step, reason in damaged.items():
        aside, number = folder / f"{step}.damaged", 1
        while aside.exists():
            number += 1
            aside = folder / f"{step}.damaged-{number}"
        (folder / str(step)).rename(aside)
        say(
            f"checkpoint {step} is damaged and was set aside as {aside.name} ({reason}); falling back to the one before"
        )


def agree_with_main(folder, step: int) -> None:
    """Verifies the step that the main host goes on from (-1 for none), and removes those that it has set aside, where this host
    has its own copy: it would take one of them for saved."""
    folder = pathlib.Path(folder)
    if hosts.is_main() or not _is_apart(folder):
        return
    if step >= 0:
        files.verify_manifest(folder / str(step))
    for other in files.committed_steps(folder):
        if other > step:
            shutil.rmtree(folder / str(other))


def tree_paths(step_folder, item: str) -> set[str]:
    """Returns the paths of the arrays in one item."""
    return set(files.read_manifest(step_folder).get("trees", {}).get(item, {}))


def stored_shape(step_folder, item: str, path: str) -> tuple[int, ...]:
    """Returns the shape of one array of an item."""
    return tuple(files.read_manifest(step_folder)["trees"][item][path]["shape"])


def restore(step_folder, item: str, target, *, verified: bool = False, without: Sequence[str] = ()):
    """Returns the tree `item` of a step folder, laid out as `target` (a tree of ShapeDtypeStruct with shardings).

    Packed arrays are unpacked. Differences in paths, shapes or dtypes are one DataError that lists them. Parts of the tree in
    `without`, by the first name of their paths, are not read where `target` has none. `verified` skips the digest check when the
    caller has just made it.
    """
    step_folder = pathlib.Path(step_folder)
    manifest = files.read_manifest(step_folder) if verified else files.verify_manifest(step_folder, item)
    check_fits(step_folder, item, target, manifest, without)
    files.failpoint("checkpoint.before_restore")
    is_plain = not (step_folder / item / "manifest.ocdbt").is_file()  # `_apart_writer` wrote it
    if manifest.get("packed", {}).get(item) or is_plain or _is_apart(step_folder):
        return _restore_by_parts(step_folder, item, target)
    options = ocp.checkpoint_utils.construct_restore_args(target)
    reader = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    try:
        # What `target` lacks is not read: the check allows parts of `without` alone.
        arguments = ocp.args.PyTreeRestore(target, restore_args=options, partial_restore=bool(without))
        return reader.restore(arrays.resolved(step_folder) / item, args=arguments)
    except (ValueError, KeyError) as e:  # of Orbax, about files that match their manifest
        raise arrays.unreadable(step_folder / item, e) from e
    finally:
        reader.close()


def _restore_by_parts(step_folder: pathlib.Path, item: str, target):
    """Returns an item whose arrays are packed, which Orbax does not know, or lie on each host's own disk, where Orbax would wait
    for the others. Every host reads what its devices hold, of packed arrays all."""
    leaves, shapes = arrays.open_arrays(step_folder, item), trees.flatten(target)
    restored = {}
    for path, x in shapes.items():
        leaf = leaves[path]
        whole = np.asarray(leaf.read().result()) if isinstance(leaf, Packed) else None

        def read(index, leaf=leaf, whole=whole):
            return np.asarray(leaf[index].read().result()) if whole is None else whole[index]

        placed = x.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        restored[path] = jax.make_array_from_callback(x.shape, placed, read)
    return jax.tree.unflatten(jax.tree.structure(target), restored.values())


def check_fits(
    step_folder, item: str, target, manifest: Mapping[str, Any] | None = None, without: Sequence[str] = ()
) -> None:
    """Raises one DataError that lists how the tree `item` of a step folder differs from `target` in paths, shapes or dtypes.

    Nothing but the manifest is read. Parts in `without` need not be in `target`, as in `restore`.
    """
    manifest = files.read_manifest(pathlib.Path(step_folder)) if manifest is None else manifest
    specs = manifest.get("trees", {}).get(item)
    if specs is None:
        raise DataError(
            f"{step_folder}: holds no {item!r}; it has {', '.join(manifest.get('trees', {})) or 'no arrays'}"
        )
    unread = [part for part in without if part not in target]
    specs = {path: spec for path, spec in specs.items() if path.partition("/")[0] not in unread}
    differences = trees.spec_differences(specs, trees.spec(target))
    if differences:
        raise DataError(
            f"{step_folder}: {item} does not match the model: {'; '.join(differences[:5])}"
            f"{f'; and {len(differences) - 5} more' if len(differences) > 5 else ''}; "
            "use the configuration the checkpoint was made with"
        )


def write_bundle(path, params, contents: Mapping[str, bytes], *, overwrite: bool = False, **extra) -> pathlib.Path:
    """Writes `params` and the small files `contents` as the self-describing folder `path`; whole or not at all."""
    check_finite(params, str(path))
    leaves = {p: np.asarray(x) for p, x in trees.flatten(params).items()}
    return arrays.write_bundle_by_blocks(
        path,
        {p: (x.shape, x.dtype) for p, x in leaves.items()},
        {p: arrays.blocks(x.shape, arrays.piece_of(x.shape, x.dtype)) for p, x in leaves.items()},
        lambda p, block: leaves[p][block],
        contents,
        overwrite=overwrite,
        **extra,
    )
