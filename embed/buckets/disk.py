"""The folder of all copies on this machine: which process uses which copy, and room for new ones."""

import fcntl
import hashlib
import json
import os
import pathlib
import shutil

from embed.buckets import addresses
from embed.buckets.addresses import Address
from embed.errors import ConfigError, StorageError

LIMIT_VARIABLE = "EMBED_BUCKET_CACHE_GB"


_held: dict[pathlib.Path, list] = {}  # path of a lock -> [its open file, how often this process holds it]


class Locks:
    """A lock on the copy of an address for this process, so far as no other process uses it or a part of it.

    It is exclusive, or shared by those that only read. Parts of one another may be held by one process.
    """

    def __init__(self, address: Address, kind: int = fcntl.LOCK_EX):
        self._paths: list[pathlib.Path] = []
        parts = address.path.split("/") if address.path else []
        above = [address._replace(path="/".join(parts[:n])) for n in range(len(parts))]
        self.is_granted = all(self._take(one, fcntl.LOCK_SH) for one in above) and self._take(address, kind)
        if not self.is_granted:
            self.release()

    def _take(self, address: Address, kind: int) -> bool:
        path = addresses.cache_folder() / ".locks" / digest(address)
        entry = _held.get(path)
        if entry is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            entry = [open(path, "a", encoding="utf-8"), 0]  # noqa: SIM115 - held open as long as the lock
        if entry[1] == 0 or kind == fcntl.LOCK_EX:  # one that is exclusive stays it
            try:
                fcntl.flock(entry[0], kind | fcntl.LOCK_NB)
            except OSError:
                if entry[1] == 0:
                    entry[0].close()
                else:
                    fcntl.flock(entry[0], fcntl.LOCK_SH | fcntl.LOCK_NB)  # which a failed change may have lost
                return False
        _held[path] = [entry[0], entry[1] + 1]
        self._paths.append(path)
        return True

    def release(self) -> None:
        """Frees the copy."""
        for path in self._paths:
            handle, count = _held.pop(path)
            if count > 1:
                _held[path] = [handle, count - 1]
            else:
                handle.close()
        self._paths = []


def digest(address: Address) -> str:
    """Returns what stands for an address in the names of files."""
    return hashlib.sha256(str(address).encode()).hexdigest()[:32]


def stat(path: pathlib.Path) -> tuple[int, int] | None:
    """Returns the size and the time of change of a file; None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size, status.st_mtime_ns


def make_room(needed: int, address: Address) -> None:
    """Removes copies that were not used for longest where $EMBED_BUCKET_CACHE_GB or the disk has no room for more."""
    base = addresses.cache_folder()
    base.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(base).free
    limit = os.environ.get(LIMIT_VARIABLE)
    try:
        room = free if not limit else min(free, int(float(limit) * 1e9) - size_of(base))
    except ValueError as e:
        raise ConfigError(f"{LIMIT_VARIABLE}={limit}: is no number of gigabytes; correct it") from e
    if room < needed:
        for state in sorted((base / ".state").glob("*.json"), key=lambda p: p.stat().st_mtime):
            room += _forget(state)
            if room >= needed:
                break
    if room < needed:
        raise StorageError(
            f"{address}: {needed / 1e9:.2f} GB are to be copied to {base}, which has room for {max(0, room) / 1e9:.2f} GB; "
            f"free some, or set {addresses.CACHE_VARIABLE} or {LIMIT_VARIABLE}"
        )


def size_of(folder: pathlib.Path) -> int:
    """Returns the bytes of all files in a folder."""
    return sum(there[0] for path in folder.rglob("*") if path.is_file() and (there := stat(path)) is not None)


def _forget(state: pathlib.Path) -> int:
    """Removes the copy that a state file is of, unless a process uses it; returns the bytes that this frees."""
    try:
        given = json.loads(state.with_suffix(".address").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    address = addresses.parse(given)
    locks = Locks(address)
    try:
        if not locks.is_granted:
            return 0
        path = addresses.copy_of(address)
        freed = size_of(path) if path.is_dir() else (stat(path) or (0, 0))[0]
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        state.unlink(missing_ok=True)
        return freed
    finally:
        locks.release()


def remember(address: Address) -> None:
    """Writes down which address a state file is of."""
    path = addresses.cache_folder() / ".state" / f"{digest(address)}.address"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(str(address)), encoding="utf-8")
