"""The copy of one place in a bucket on this machine.

Files below `checkpoints/STEP/` that hold arrays come when they are verified, which is before they are read. Objects go out in an
order in which a folder's MANIFEST.json is the last of it and the first to be removed, so that what a reader finds is whole or not
there. The index.json of an index of a corpus is replaced when all that it lists is there.
"""

import fcntl
import json
import os
import pathlib
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Any, NamedTuple, TypeVar

from embed.buckets import addresses, client, disk, naming
from embed.buckets.addresses import Address
from embed.buckets.lease import Lease
from embed.buckets.naming import MANIFEST
from embed.errors import InUse, StorageError

T = TypeVar("T")
UPLOADING = ".uploading"  # the object that says that the first upload to a place is not finished
_LOOK = 0.3  # seconds between two looks for what another host writes
_LANES = 8  # objects that are copied at once
_ARRAYS = re.compile(r"(?:^|/)checkpoints/\d+/[^/]+/")
_WRITTEN = ".written"  # folder of a step in the bucket: what each of several hosts has written of it


class _Synced(NamedTuple):
    """A file as it was when it and its object were the same. `modified` is None where the file has not been copied here."""

    size: int
    modified: int | None
    version: str


def say(line: str) -> None:
    """Prints a line."""
    print(line, flush=True)


class Copy:
    """The copy of one address. With `pattern` it has the objects below the address that match, and is read only."""

    def __init__(self, address: Address, pattern: str | None = None, path: pathlib.Path | None = None):
        self.address, self.path, self._pattern = address, path or addresses.copy_of(address), pattern
        self._lock = disk.Locks(address, fcntl.LOCK_EX if pattern is None else fcntl.LOCK_SH)
        self.is_own = self._lock.is_granted
        self._state_path = addresses.cache_folder() / ".state" / f"{disk.digest(address)}.json"
        self._synced = self._read_state()
        self._pushing = threading.RLock()
        self._was_empty = False
        self._mine: set[str] = set()  # names that were here, and go from the bucket when they go here
        self._unfinished: set[str] = set()  # names that an upload which was not finished has left
        self.pulled = 0.0  # when it was made equal to the bucket, by the clock of `time.monotonic`
        self._leases: dict[pathlib.Path, Lease] = {}

    def _read_state(self) -> dict[str, _Synced]:
        try:
            state = json.loads(self._state_path.read_text(encoding="utf-8"))
            return {name: _Synced(*entry) for name, entry in state.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}  # everything is copied again

    def _write_state(self) -> None:
        self._state_path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._state_path.with_name(f".{self._state_path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(self._synced), encoding="utf-8")
        os.replace(temporary, self._state_path)

    def _at(self, name: str) -> pathlib.Path:
        return self.path / name if name else self.path

    def version(self, path: pathlib.Path) -> str | None:
        """Returns the version of the object that a file below the copy is the same as; None where it was changed here."""
        name = "" if path == self.path else path.relative_to(self.path).as_posix()
        synced = self._synced.get(name)
        return synced.version if synced is not None and disk.stat(path) == synced[:2] else None

    def _object(self, name: str) -> Address:
        return self.address._replace(path=f"{self.address.path}/{name}".strip("/")) if name else self.address

    def _remote(self) -> dict[str, client.Object]:
        """Returns {name: object}; the name of an address that is one object is ''."""
        whole = client.info(self.address) if self.address.path and self._pattern is None else None
        if whole is not None:
            return {"": whole}
        objects = client.find(self.address)
        strange = [name for name in objects if not naming.is_path(name)]
        if strange and self.pulled == 0.0:
            say(
                f"note       {self.address}: {len(strange):,} objects have names that are no paths, such as {strange[0]!r}; they "
                "are left out"
            )
        objects = {name: entry for name, entry in objects.items() if naming.is_path(name)}
        if self._pattern is not None:
            return {name: objects[name] for name in objects if naming.matches(name, self._pattern)}
        return {name: entry for name, entry in objects.items() if name == UPLOADING or naming.is_shared(name)}

    def pull(self, removes: bool = True) -> None:
        """Makes the copy equal to the bucket. Arrays of checkpoints are left until `complete` asks for them.

        What was made here and has not been copied back stays. Without `removes` what the bucket has no more stays too.
        """
        with self._pushing:
            self._pull(removes)
            self._mine |= {name for name in self._local() if name in self._synced}
            self._mine |= {
                name for name, entry in self._synced.items() if entry.modified is None and self._is_whole(name)
            }
            self.pulled = time.monotonic()

    def _pull(self, removes: bool) -> None:
        remote, is_first = self._remote(), self.pulled == 0.0
        self._was_empty = not remote
        if UPLOADING in remote:
            say(f"note       {self.address}: an upload that was not finished; what there is of it is ignored")
            self._was_empty, self._unfinished = True, set(remote) - {UPLOADING}
            remote = {}
        if self.is_own and removes:
            for name, there in self._local().items():
                if name not in remote and self._synced.get(name, ())[:2] == there:
                    self._at(name).unlink(missing_ok=True)
            if not remote:
                _remove_empty(self.path)
        self._synced = {name: entry for name, entry in self._synced.items() if name in remote}
        missing = []
        for name, entry in remote.items():
            synced = self._synced.get(name)
            there = disk.stat(self._at(name))
            is_same = synced is not None and synced.version == entry.version
            if is_same and (there == (synced.size, synced.modified) or (there is not None and not is_first)):
                continue  # or was changed by this process
            if not self.is_own and there is not None:
                continue  # of the process that uses it
            if _ARRAYS.search(name):
                self._at(name).unlink(missing_ok=True)
                self._synced[name] = _Synced(entry.size, None, entry.version)
            else:
                missing.append((name, entry))
        self._download(missing)

    def follow(self) -> None:
        """Begins to make the bucket equal to a folder that is not its copy so far. Nothing that was there before is removed.

        An address with other things than a run, or with a run that has no checkpoint in common with the folder, is a StorageError.
        """
        remote = self._remote()
        manifests = {
            name
            for name in remote
            if naming.is_manifest(name) and naming.step_of(name) == name.removesuffix(f"/{MANIFEST}")
        }
        is_same = any(
            self._at(name).is_file() and client.read(self._object(name)) == self._at(name).read_bytes()
            for name in manifests
        )
        if remote and not is_same:
            held = (
                f"a run of {len(manifests)} checkpoints, none of which {self.path} has" if manifests else "other files"
            )
            raise StorageError(f"{self.address}: holds {held}; name another place")
        self._synced = {}
        self._lease(self.path, self.address)

    def complete(self, names: Iterable[str]) -> None:
        """Copies files, by their names below the address, that were left."""
        with self._pushing:
            left = [(n, s) for n in names if (s := self._synced.get(n)) is not None and s.modified is None]
            self._download([(name, client.Object(synced.size, synced.version)) for name, synced in left])

    def _download(self, missing: list[tuple[str, client.Object]]) -> None:
        if not missing:
            return
        total = sum(entry.size for _, entry in missing)
        disk.make_room(total, self.address)
        if total > 1 << 20:
            say(f"bucket     copying {len(missing):,} {_files(len(missing))}, {total / 1e6:,.1f} MB, of {self.address}")

        def one(item: tuple[str, client.Object]) -> None:
            name, entry = item
            client.download(self._object(name), self._at(name), entry)

        try:
            _each(one, missing)
        except FileNotFoundError as e:
            raise StorageError(f"{self.address}: changed while it was copied; run the command again") from e
        except OSError as e:
            raise StorageError(
                f"{self.path}: cannot write ({e.strerror or e}); free space or set {addresses.CACHE_VARIABLE}"
            ) from e
        for name, entry in missing:
            size, modified = disk.stat(self._at(name)) or (entry.size, 0)
            self._synced[name] = _Synced(size, modified, entry.version)
        self._write_state()

    def _local(self) -> dict[str, tuple[int, int]]:
        """Returns {name: size and time of change} of the files that belong into the bucket."""
        if self.path.is_file():
            return {"": disk.stat(self.path)}
        stats = {}
        for folder, folders, names in os.walk(self.path):
            folders[:] = sorted(filter(naming.is_shown, folders))
            for name in names:
                path = pathlib.Path(folder, name)
                relative = path.relative_to(self.path).as_posix()
                if naming.is_shared(relative) and not path.is_symlink() and (there := disk.stat(path)) is not None:
                    stats[relative] = there
        return stats

    def push(self) -> None:
        """Makes the bucket equal to the copy: what is new or changed first, manifests last; then removes what is gone."""
        if not self.is_own or self._pattern is not None:
            return
        with self._pushing:
            local = self._local()
            gone = [name for name in self._mine if name not in local and self._is_gone(name)]
            incomplete = {
                step
                for name in local
                if (step := naming.step_of(name)) and not self._at(f"{step}/{MANIFEST}").is_file()
            }
            local = {name: there for name, there in local.items() if naming.step_of(name) not in incomplete}
            changed = [n for n, there in local.items() if n not in self._synced or self._synced[n][:2] != there]
            if not changed and not gone:
                return
            # A folder with a lease may be there in part: its command goes on with what there is.
            marks = self._was_empty and not self._leases and changed != [""]
            if marks:
                client.write(self._object(UPLOADING), b"")
            for name in changed:
                if naming.is_manifest(name) and name in self._synced:
                    self._remove([name])  # its folder is written anew
            first = [name for name in changed if naming.group(name, local) == 0]
            manifests = sorted((n for n in changed if naming.group(n, local) == 1), key=lambda n: (-n.count("/"), n))
            self._upload(first)
            for name in manifests:
                self._upload([name])
            for group in (2, 3):
                self._upload([name for name in changed if naming.group(name, local) == group])
            self._remove([name for name in gone if naming.is_manifest(name)])
            self._remove([name for name in gone if not naming.is_manifest(name) and name in self._synced])
            if marks:
                self._remove(sorted(self._unfinished - set(local)))
                client.remove(self._object(UPLOADING))
            self._was_empty, self._unfinished = False, set()
            self._write_state()

    def _is_gone(self, name: str) -> bool:
        step = naming.step_of(name)
        if name not in self._synced:
            return False
        left = self._synced[name].modified is None
        return not left or (step is not None and not self._at(step).is_dir())

    def _is_whole(self, name: str) -> bool:
        return self._at(f"{naming.step_of(name)}/{MANIFEST}").is_file()

    def _upload(self, names: list[str]) -> None:
        def one(name: str) -> tuple[str, _Synced] | None:
            there = disk.stat(self._at(name))
            if there is None:
                return None  # removed meanwhile
            try:
                entry = client.upload(self._at(name), self._object(name))
            except FileNotFoundError as e:
                if disk.stat(self._at(name)) is None:
                    return None
                raise StorageError(f"{self.address}: no such bucket; create it, or correct its name") from e
            return name, _Synced(there[0], there[1], entry.version)

        failpoint = os.environ.get("EMBED_FAIL_AT", "")
        for number, done in enumerate(_each(one, names), 1):
            if done is not None:
                self._synced[done[0]] = done[1]
                self._mine.add(done[0])
            if failpoint == f"buckets.after_upload_{number}":
                os.kill(os.getpid(), 9)

    def _remove(self, names: list[str]) -> None:
        _each(lambda name: client.remove(self._object(name)), names)
        for name in names:
            self._synced.pop(name, None)
            self._mine.discard(name)

    def publish(self, folder: pathlib.Path, host: int, entries: dict[str, Any]) -> None:
        """Copies one host's files of a folder to the bucket, and then says which they are."""
        below = folder.relative_to(self.path).as_posix()
        with self._pushing:
            self._upload([f"{below}/{name}" for name in entries])
        client.write(self._object(f"{below}/{_WRITTEN}/{host}.json"), json.dumps(entries).encode())

    def collect(self, folder: pathlib.Path, others: Iterable[int]) -> dict[str, Any]:
        """Returns what other hosts have said of their files of a folder, once all have."""
        below, entries = folder.relative_to(self.path).as_posix(), {}
        for host in others:
            part = self._object(f"{below}/{_WRITTEN}/{host}.json")
            entries |= json.loads(_awaited(lambda part=part: client.read(part)))
        for name, entry in entries.items():
            self._synced.setdefault(f"{below}/{name}", _Synced(entry["size"], None, ""))
            self._mine.add(f"{below}/{name}")
        for host in others:
            client.remove(self._object(f"{below}/{_WRITTEN}/{host}.json"))
        return entries

    def await_manifest(self, folder: pathlib.Path) -> None:
        """Waits until a folder is whole in the bucket, and copies its small files."""
        manifest = f"{folder.relative_to(self.path).as_posix()}/{MANIFEST}"
        _awaited(lambda: client.info(self._object(manifest)))
        self.pull(removes=False)

    def send(self) -> None:
        """Copies the parts of a preparation to the bucket: of each the file that says that it is whole after the part itself."""
        with self._pushing:
            local = self._local()
            parts = [n for n, there in local.items() if naming.PREPARED in n and self._synced.get(n, ())[:2] != there]
            for kind in (".records", ".json", ""):  # a marker of a process that has ended has no suffix
                self._upload([name for name in parts if pathlib.PurePosixPath(name).suffix == kind])

    def lock(self, folder: pathlib.Path) -> None:
        """Takes the lease of a folder of the copy, and makes the copy equal to the bucket."""
        address = addresses.address_of(folder)
        if not self.is_own:
            raise InUse(
                f"{address}: in use by another process of this machine; wait for it to end or choose another folder"
            )
        self._lease(folder, address)
        self.pull()

    def _lease(self, folder: pathlib.Path, address: Address) -> None:
        lease = Lease(address, say, _end)
        lease.acquire()
        self._leases[folder] = lease

    def unlock(self, folder: pathlib.Path) -> None:
        """Copies back what has changed, and gives the lease of a folder back."""
        lease = self._leases.pop(folder, None)
        if lease is not None:
            try:
                self.push()
            finally:
                lease.release()

    def close(self) -> None:
        """Copies back what has changed, and frees the copy for other processes."""
        if not self.is_own and self._pattern is None and not self._lock.is_granted:
            self._lock = disk.Locks(self.address)  # the process that used it may have ended
            self.is_own = self._lock.is_granted
        try:
            self.push()
        finally:
            self.leave()

    def leave(self) -> None:
        """Frees the copy for other processes, as it is."""
        for lease in self._leases.values():
            lease.release()
        self._leases = {}
        self._lock.release()


def _files(count: int) -> str:
    return "file" if count == 1 else "files"


def _awaited(look: Callable[[], T | None]) -> T:
    """Returns what `look` finds, which another host is about to write. That a host is lost is noticed elsewhere."""
    while (content := look()) is None:
        time.sleep(_LOOK)
    return content


def _each(operation: Callable, items: list) -> list:
    with futures.ThreadPoolExecutor(_LANES) as pool:
        return list(pool.map(operation, items))


def _remove_empty(path: pathlib.Path) -> None:
    """Removes a folder that holds folders alone."""
    if path.is_dir() and not any(one.is_file() for one in path.rglob("*")):
        shutil.rmtree(path, ignore_errors=True)


def _end(message: str) -> None:
    """Ends this process, which must not write any more."""
    print(f"embed: {message}", file=sys.stderr, flush=True)
    os._exit(StorageError.exit_code)
