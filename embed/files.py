"""Files that are whole or not there: atomic writes, digest manifests, folder locks. No jax here.

A folder is *committed* when it holds MANIFEST.json, which is always written last and lists the size and sha256 of every
other file. Orbax restores a flipped bit without a word, so nothing is used before what was read of it has been verified.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
from collections.abc import Mapping
from concurrent import futures
from typing import Any

from embed.errors import DataError, StorageError

MANIFEST = "MANIFEST.json"


def failpoint(name: str) -> None:
    """Kills this process with SIGKILL when the environment variable EMBED_FAIL_AT names this point (fault tests)."""
    if os.environ.get("EMBED_FAIL_AT") == name:
        os.kill(os.getpid(), signal.SIGKILL)


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
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
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


def json_bytes(value) -> bytes:
    """Returns `value` as indented JSON in UTF-8, keys in their own order."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def write_json(path, value) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_atomic(path, json_bytes(value))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object; a name that it has twice is a ValueError, because readers differ in which they take."""
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(n for n in names if names.count(n) > 1)!r} is there twice in one object")
    return value


def read_json(path, kind: type = dict) -> Any:
    """Returns the JSON value in `path`, an object or a `kind`; a missing or malformed file is a one-line DataError."""
    path = pathlib.Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except FileNotFoundError as e:
        raise DataError(f"{path}: no such file") from e
    except (ValueError, UnicodeDecodeError, RecursionError) as e:
        raise DataError(f"{path}: not valid JSON ({e}); restore the file from its source") from e
    if not isinstance(value, kind):
        expected = {dict: "an object", list: "a list"}[kind]
        raise DataError(
            f"{path}: holds a JSON {type(value).__name__}, expected {expected}; restore the file from its source"
        )
    return value


def storage_error(path, error: OSError) -> StorageError:
    """Returns the StorageError that tells the user what to do about `error` at `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(f"{path}: no space left to write ({error.strerror}); free some and run the command again")
    return StorageError(f"{path}: cannot write ({error.strerror or error}); check the path and its permissions")


def first_line(error: Exception) -> str:
    """Returns the first line of what a library says went wrong, for a message of one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def sha256_file(path) -> str:
    """Returns the hex sha256 of a file's bytes."""
    with open(path, "rb", buffering=0) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def digest_json(value) -> str:
    """Returns the hex sha256 of `value` in canonical JSON; values JSON does not know are taken by `repr`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=repr).encode()).hexdigest()


def begin_job(path, identity: Mapping[str, Any]) -> None:
    """Writes down in `path` what a job is, or checks that the job there is this one: what two jobs left must not be mixed."""
    path = pathlib.Path(path)
    before = read_json(path) if path.is_file() else identity
    changed = [name for name in identity if before.get(name) != identity[name]]
    if changed:
        raise DataError(
            f"{path.parent}: was begun with another {', '.join(changed)}{_values(before, identity, changed[0])}; give the same, "
            "or another --output"
        )
    write_json(path, identity)


def _values(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> str:
    """Returns both values of a field in brackets, where they are short."""
    told = f" ({before.get(name)!r}, now {now[name]!r})"
    return told if len(told) <= 60 else ""


def write_manifest(folder, **extra) -> dict:
    """Commits `folder`: hashes every file in it and writes MANIFEST.json last. Returns the manifest."""
    folder = pathlib.Path(folder)
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    with futures.ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(lambda name: sha256_file(folder / name), names))
    entries = {name: {"size": (folder / name).stat().st_size, "sha256": digest} for name, digest in zip(names, digests)}
    manifest = {"format": 1, **extra, "files": entries}
    manifest = {**manifest, "digest": digest_json(manifest)}
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder) -> dict:
    """Returns the manifest of a committed folder without checking the files."""
    folder = pathlib.Path(folder)
    if not (folder / MANIFEST).is_file():
        raise DataError(f"{folder}: no {MANIFEST}, so this folder was never completed; point to a committed one")
    manifest = read_json(folder / MANIFEST)
    if digest_json({k: v for k, v in manifest.items() if k != "digest"}) != manifest.get("digest"):
        raise DataError(
            f"{folder / MANIFEST}: does not match its own digest: it is damaged; restore the folder from its source"
        )
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
        for found in pool.map(problem, listed.items()):
            if found:
                raise DataError(f"{found}; restore the folder from its source, or remove it if it can be made again")
    return manifest


def committed_steps(folder) -> list[int]:
    """Returns the steps under a `checkpoints` folder that have a manifest, oldest first."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and (p / MANIFEST).is_file())


def folder_digest(folder) -> str:
    """Returns one digest for a committed folder: the sha256 over its manifest's file list."""
    return digest_json(read_manifest(folder)["files"])


def check_new(path) -> None:
    """Raises StorageError when the output `path` is already there (an empty folder is not)."""
    path = pathlib.Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StorageError(f"{path}: already exists; choose another output or remove it first")


@contextlib.contextmanager
def new_folder(path, overwrite: bool = False):
    """Yields a temporary folder that becomes `path` when the block ends without an error, else leaves nothing."""
    path = pathlib.Path(path)
    if not overwrite:
        check_new(path)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as e:
        raise storage_error(path, e) from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def new_file(path):
    """Yields the path of a temporary file that becomes `path` when the block ends without an error, else leaves nothing."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        yield temporary
        with open(temporary, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as e:
        raise storage_error(path, e) from e
    finally:
        temporary.unlink(missing_ok=True)


class FolderLock:
    """Holds a folder for one process; a second one gets a one-line StorageError. Freed when the process ends, however it ends."""

    def __init__(self, folder):
        self._path = pathlib.Path(folder) / ".lock"
        self._file = None

    def __enter__(self):
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "a+", encoding="utf-8")  # noqa: SIM115 - held open as long as the lock
        except OSError as e:
            raise storage_error(self._path.parent, e) from e
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise StorageError(
                f"{self._path.parent}: in use by {holder}; wait for it to end or choose another folder"
            ) from e
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()
        return self

    def __exit__(self, *_):
        self._file.close()
