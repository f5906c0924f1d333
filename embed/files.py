"""Files that are whole or not there: atomic writes, digest manifests, folder locks. No jax here.

A folder is *committed* when it holds MANIFEST.json, which is always written last and lists the size and sha256 of every
other file. Orbax restores a flipped bit without a word, so nothing is used before what was read of it has been verified.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import shutil
import signal
import socket
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any, Required, TypedDict

from embed import documents, ranges
from embed.buckets import copies
from embed.errors import DataError, InUse, StorageError, UsageError

MANIFEST = "MANIFEST.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a full disk, or a used up quota, is reported as


class _Entry(TypedDict):
    size: ranges.Natural
    sha256: ranges.Text


class _Manifest(TypedDict, total=False):
    """What every MANIFEST.json holds; folders of one kind add keys of their own."""

    files: Required[dict[str, _Entry]]
    digest: Required[str]
    trees: dict[str, dict[str, dict]]
    packed: dict[str, dict[str, dict]]


def failpoint(name: str) -> None:
    """Kills this process with SIGKILL when the environment variable EMBED_FAIL_AT names this point (fault tests).

    `NAME:STOP` there stops the process instead, by SIGSTOP, which looks from outside like a machine that hangs.
    """
    point, _, kind = os.environ.get("EMBED_FAIL_AT", "").partition(":")
    if point == name:
        os.kill(os.getpid(), signal.SIGSTOP if kind == "STOP" else signal.SIGKILL)


def fsync_folder(folder: pathlib.Path) -> None:
    """Makes the renames and creations inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync(folder) -> None:
    """Makes everything under `folder` durable, before a manifest says that it is there."""
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        else:
            fsync_folder(path)


def write_atomic(path, content: bytes | str) -> None:
    """Writes `content` to `path` so that a reader sees the old file or the new one, never a part."""
    path = pathlib.Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = _temporary(path)
    try:
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as e:
        temporary.unlink(missing_ok=True)
        raise storage_error(path, e) from e


def write_json(path, value) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_atomic(path, documents.json_bytes(value))


def storage_error(path, error: OSError) -> StorageError:
    """Returns the StorageError that tells the user what to do about `error` at `path`."""
    if error.errno in FULL:
        return StorageError(f"{path}: no space left to write ({error.strerror}); free some and run the command again")
    return StorageError(f"{path}: cannot write ({error.strerror or error}); check the path and its permissions")


def sha256_file(path) -> str:
    """Returns the hex sha256 of a file's bytes."""
    with open(path, "rb", buffering=0) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def begin_job(path, identity: Mapping[str, Any]) -> None:
    """Writes down in `path` what a job is, or checks that the job there is this one: what two jobs left must not be mixed."""
    path = pathlib.Path(path)
    if not path.is_file():
        write_json(path, identity)
        return
    before = documents.read_json(path)
    changed = [name for name in identity if before.get(name) != identity[name]]
    if changed:
        raise DataError(
            f"{path.parent}: was begun with another {', '.join(changed)}{_values(before, identity, changed[0])}; give the same, "
            "or another --output"
        )


def _values(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> str:
    """Returns both values of a field in brackets, where they are short."""
    change = f" ({before.get(name)!r}, now {now[name]!r})"
    return change if len(change) <= 60 else ""


def entries_of(folder) -> dict[str, _Entry]:
    """Returns {name: size and sha256} of every file in a folder that a manifest lists."""
    folder = pathlib.Path(folder)
    # A README is for people, who may add to it.
    names = sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and p.name not in (MANIFEST, "README.md")
    )
    with futures.ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(lambda name: sha256_file(folder / name), names))
    return {name: {"size": (folder / name).stat().st_size, "sha256": digest} for name, digest in zip(names, digests)}


def write_manifest(folder, others: Mapping[str, _Entry] | None = None, **extra) -> dict:
    """Commits `folder`: hashes every file in it and writes MANIFEST.json last. Returns the manifest.

    `others` are files that other hosts have written, of a folder in a bucket; those that are here too count as here.
    """
    folder = pathlib.Path(folder)
    entries = {**(others or {}), **entries_of(folder)}
    manifest = {"format": 1, **extra, "files": dict(sorted(entries.items()))}
    manifest = {**manifest, "digest": documents.digest_json(manifest)}
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder) -> dict:
    """Returns the manifest of a committed folder without checking the files."""
    folder = pathlib.Path(folder)
    if not (folder / MANIFEST).is_file():
        raise DataError(f"{folder}: no {MANIFEST}, so this folder was never completed; point to a committed one")
    manifest = documents.read_json(folder / MANIFEST, _Manifest)
    if documents.digest_json({k: v for k, v in manifest.items() if k != "digest"}) != manifest.get("digest"):
        raise DataError(
            f"{folder / MANIFEST}: does not match its own digest: it is damaged; restore the folder from its source"
        )
    for name in manifest["files"]:
        if pathlib.PurePath(name).is_absolute() or ".." in pathlib.PurePath(name).parts:
            raise DataError(f"{folder / MANIFEST}: names {name!r}, which is outside the folder; do not use this folder")
    return manifest


def verify_manifest(folder, item: str | None = None) -> dict:
    """Returns the manifest after checking the size and sha256 of every file it lists.

    Of a checkpoint of several trees, `item` is the only one to look at, for who reads no other: a third of the bytes or less.
    Raises DataError naming the first bad file.
    """
    folder = pathlib.Path(folder)
    manifest = read_manifest(folder)
    others = {f"{name}/" for name in manifest.get("trees", {}) if item not in (None, name)}
    listed = {name: entry for name, entry in sorted(manifest["files"].items()) if not name.startswith(tuple(others))}
    copies.complete(folder, listed)

    def problem(item) -> str | None:
        name, entry = item
        path = folder / name
        if not path.is_file():
            return f"{path}: missing, but listed in {MANIFEST}"
        if path.stat().st_size != entry["size"]:
            return f"{path}: {path.stat().st_size} bytes, but {MANIFEST} says {entry['size']}"
        try:
            same = sha256_file(path) == entry["sha256"]
        except OSError as e:
            return f"{path}: cannot be read ({e.strerror or e})"
        return None if same else f"{path}: its sha256 differs from {MANIFEST}: the file is damaged"

    with futures.ThreadPoolExecutor(4) as pool:
        for message in pool.map(problem, listed.items()):
            if message:
                raise DataError(f"{message}; restore the folder from its source, or remove it if it can be made again")
    return manifest


def committed_steps(folder) -> list[int]:
    """Returns the steps under a `checkpoints` folder that have a manifest, oldest first."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and (p / MANIFEST).is_file())


def folder_digest(folder) -> str:
    """Returns one digest for a committed folder: the sha256 over its manifest's file list."""
    return documents.digest_json(read_manifest(folder)["files"])


def check_new(path) -> None:
    """Raises StorageError when the output `path` is already there (an empty folder is not), UsageError for one without a name."""
    path = pathlib.Path(path)
    if path.name in ("", ".."):
        raise UsageError(f"{path}: names no output of its own; name a file or a folder in it")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StorageError(f"{path}: already exists; choose another output or remove it first")


@contextlib.contextmanager
def new_folder(path, overwrite: bool = False):
    """Yields a temporary folder that becomes `path` when the block ends without an error, else leaves nothing.

    A second command with the same output is refused while this one works. What appears at `path` meanwhile stays as it is,
    and the result is kept beside it; with `overwrite` it is replaced.
    """
    path = pathlib.Path(path)
    if not overwrite:
        check_new(path)
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Lock(path.with_name(f".{path.name}.lock"), path):
            try:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir()
                yield temporary
                if overwrite:
                    _remove(path)
                _rename_folder(temporary, path)
                fsync_folder(path.parent)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as e:
        raise storage_error(path, e) from e


@contextlib.contextmanager
def new_file(path, overwrite: bool = False):
    """Yields the path of a temporary file that becomes `path` when the block ends without an error, else leaves nothing.

    What appears at `path` meanwhile stays as it is, and the result is kept beside it; with `overwrite` it is replaced.
    """
    path = pathlib.Path(path)
    temporary = _temporary(path)
    try:
        yield temporary
        with open(temporary, "rb+") as f:
            os.fsync(f.fileno())
        if overwrite:
            os.replace(temporary, path)
        else:
            _rename_new(temporary, path)
        fsync_folder(path.parent)
    except OSError as e:
        raise storage_error(path, e) from e
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def _rename_folder(temporary: pathlib.Path, path: pathlib.Path) -> None:
    """Renames a folder; StorageError, with the result kept, where a file or a folder with content is there."""
    try:
        os.rename(temporary, path)
    except OSError as e:
        if e.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        raise _kept_beside(temporary, path) from e


def _rename_new(temporary: pathlib.Path, path: pathlib.Path) -> None:
    """Renames a file; StorageError, with the result kept, where `path` is there."""
    try:
        os.link(temporary, path)  # unlike a rename it never replaces what is there
    except FileExistsError as e:
        raise _kept_beside(temporary, path) from e
    except OSError:  # a file system without links
        if path.exists():
            raise _kept_beside(temporary, path) from None
        os.replace(temporary, path)


def _kept_beside(temporary: pathlib.Path, path: pathlib.Path) -> StorageError:
    kept = path.with_name(f"{path.name}.new-{os.getpid()}")
    os.replace(temporary, kept)
    return StorageError(f"{path}: appeared while the command worked and is left as it is; the result is kept as {kept}")


def _remove(path: pathlib.Path) -> None:
    """Removes a folder, first from its name: it is never there in part."""
    if path.exists():
        doomed = path.with_name(f".{path.name}.old-{os.getpid()}")
        os.replace(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


class Lock:
    """Holds a file for one process and removes it in the end; it is freed when the process ends, however it ends.

    A second process gets InUse about `subject` or, with `wait`, waits its turn: `wait` is called with the holder.
    """

    def __init__(self, path: pathlib.Path, subject: pathlib.Path, wait: Callable[[str], None] | None = None):
        self._path, self._subject, self._wait = path, subject, wait
        self._file = None

    def __enter__(self):
        while True:
            self._file = open(self._path, "a+", encoding="utf-8")  # noqa: SIM115 - held open as long as the lock
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as e:
                self._file.seek(0)
                holder = self._file.read().strip() or "another process"
                if self._wait is None:
                    self._file.close()
                    raise InUse(
                        f"{self._subject}: in use by {holder}; wait for it to end or choose another folder"
                    ) from e
                self._wait(holder)
                fcntl.flock(self._file, fcntl.LOCK_EX)
            if self._is_in_place():
                break
            self._file.close()  # the holder before removed it after it was opened here
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()
        return self

    def _is_in_place(self) -> bool:
        try:
            return os.stat(self._path).st_ino == os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return False

    def __exit__(self, *_):
        self._path.unlink(missing_ok=True)
        self._file.close()


class FolderLock:
    """Holds a folder, which is made when it is not there, for one process. One that was made and stays empty is removed.

    Of a folder that is the copy of one in a bucket the bucket's lease is held too (`buckets.lease`).
    """

    def __init__(self, folder):
        self._folder = pathlib.Path(folder)
        self._lock = Lock(self._folder / ".lock", self._folder)
        self._lease = copies.locked(self._folder)

    def __enter__(self):
        self._made = [p for p in (self._folder, *self._folder.parents) if not p.exists()]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.__enter__()
        except OSError as e:
            raise storage_error(self._folder, e) from e
        try:
            self._lease.__enter__()
        except BaseException:
            self._lock.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            self._lease.__exit__(None, None, None)
        finally:
            self._lock.__exit__()
        with contextlib.suppress(OSError):  # not empty
            for folder in self._made:
                folder.rmdir()
