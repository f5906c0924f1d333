"""The copies that this process uses: made when a command names a place in a bucket, and copied back while it runs and at its end.

A copy that another process of this machine uses is not changed. Of several hosts one copies back.
"""

import contextlib
import pathlib
import threading
import time
from collections.abc import Iterable, Iterator

from embed.buckets import addresses, disk
from embed.buckets.addresses import Address
from embed.buckets.copy import Copy, say
from embed.errors import InUse, StorageError, UsageError

_OUTPUTS = ("--output", "--run_dir")  # options that name what a command writes
_FOLLOWER = "--copy_to"  # the option that takes an address as it is
_EVERY = 60.0  # seconds between two looks for files that have changed


class _Session:
    """The copies that this process uses. `writes` is None until it is known whether this process is the one that writes."""

    def __init__(self):
        self.copies: dict[tuple[Address, str | None], Copy] = {}
        self.following: list[Copy] = []  # folders of this machine that are kept in a bucket too
        self.writes: bool | None = True
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def use(self, text: str) -> pathlib.Path:
        address = addresses.parse(text)
        path = addresses.copy_of(address)
        pattern = None
        if "*" in address.path:
            parts = address.path.split("/")
            first = next(i for i, part in enumerate(parts) if "*" in part)
            pattern = "/".join(parts[first:])
            address = address._replace(path="/".join(parts[:first]))
        inside = self.copy_with(addresses.copy_of(address))
        if inside is not None:
            return path
        copy = Copy(address, pattern)
        self.copies[address, pattern] = copy
        copy.pull()
        disk.remember(copy.address)
        self._start()
        return path

    def follow(self, folder: pathlib.Path, address: Address) -> None:
        """Keeps a folder at an address too."""
        copy = Copy(address, path=folder)
        if not copy.is_own:
            raise InUse(
                f"{address}: in use by another process of this machine; wait for it to end or choose another place"
            )
        try:
            copy.follow()
        except BaseException:
            copy.leave()
            raise
        self.following.append(copy)
        self._start()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="copies to buckets", daemon=True)
            self._thread.start()

    def copy_with(self, path: pathlib.Path) -> Copy | None:
        for (_, pattern), copy in self.copies.items():
            if pattern is None and (path == copy.path or copy.path in path.parents):
                return copy
        return None

    def _run(self) -> None:
        while not self._stop.wait(_EVERY):
            try:
                self.push()
            except Exception as e:  # nothing may end the thread
                say(f"note       {e}; what is not copied yet is tried again")

    def push(self) -> None:
        if self.writes:
            for copy in [*self.copies.values(), *self.following]:
                copy.push()

    def close(self) -> None:
        self._stop.set()
        errors = []
        for copy in [*self.copies.values(), *self.following]:
            try:
                if self.writes is False:
                    copy.leave()
                else:
                    copy.close()
            except StorageError as e:
                cache = addresses.cache_folder()  # the path of a copy itself would be shown as its address
                line = f"{e}; what was made is kept below {cache}; run the same command again to copy it"
                errors.append(StorageError(line))
        self.copies, self.following = {}, []
        if self.writes is None:  # the command ended before its hosts met
            self.writes = True
        self._stop, self._thread = threading.Event(), None
        if errors:
            raise errors[0]


_session = _Session()


def local(path) -> pathlib.Path:
    """Returns a path; of an address in a bucket the path of its copy, which is made equal to the bucket first."""
    return _session.use(str(path)) if addresses.is_address(str(path)) else pathlib.Path(path)


def follow(folder, text: str) -> None:
    """Keeps a folder of this machine at a second place, an address in a bucket, from now until the end of the command."""
    if not addresses.is_address(text):
        raise UsageError(f"{text!r} is no address in a bucket; give gs://BUCKET/PATH or s3://BUCKET/PATH")
    _session.follow(pathlib.Path(folder), addresses.parse(text))


def present(path) -> pathlib.Path:
    """Returns a path; one that lies where the copy of a place in a bucket would, and is in none, is copied first."""
    address = addresses.address_of(path)
    return pathlib.Path(path) if address is None else _session.use(str(address))


def folder_of(path) -> pathlib.Path:
    """Returns the folder of a file, whole, for who reads what lies beside the file."""
    return present(pathlib.Path(path).parent)


def localized(text: str) -> str:
    """Returns a text of gin with the paths of copies in the place of addresses, after these copies have been made."""
    for one in addresses.quoted(text):
        _session.use(one)
    return addresses.localized(text)


def words(argv: list[str]) -> list[str]:
    """Returns the words of a command line with the paths of copies in the place of addresses; bindings of gin are left."""
    localized_words = []
    for before, word in zip(["", *argv], argv):
        name, equals, value = ("", "", word) if addresses.is_address(word) else word.partition("=")
        is_kept = name.startswith("--gin.") or _FOLLOWER in (name, before)
        if is_kept or not addresses.is_address(value):
            localized_words.append(word)
            continue
        path = local(value)
        copy = of(path)
        if {name, before} & set(_OUTPUTS) and copy is not None and not copy.is_own:
            raise InUse(
                f"{value}: in use by another process of this machine; wait for it to end or choose another folder"
            )
        localized_words.append(f"{name}{equals}{path}")
    return localized_words


def complete(folder: pathlib.Path, names: Iterable[str]) -> None:
    """Copies those files of a folder that were left when its copy was made; any other folder is left alone."""
    copy = of(folder)
    if copy is not None:
        below = pathlib.Path(folder).relative_to(copy.path).as_posix()
        copy.complete([f"{below}/{name}" if below != "." else name for name in names])


def version(path) -> str | None:
    """Returns the version of the object that a file is the copy of; None for any other file, or one that was changed here."""
    copy = of(path)
    return None if copy is None else copy.version(pathlib.Path(path))


def of(path) -> Copy | None:
    """Returns the copy that a path lies in; None where it is in none that this process uses."""
    return _session.copy_with(pathlib.Path(path)) if _session.copies else None


@contextlib.contextmanager
def locked(folder) -> Iterator[None]:
    """Holds the lease of a folder that lies in a copy; nothing happens for any other folder."""
    folder = pathlib.Path(folder)
    copy = of(folder)
    if copy is None or _session.writes is False:
        yield
        return
    copy.lock(folder)
    try:
        yield
    finally:
        copy.unlock(folder)


def push() -> None:
    """Copies back what has changed so far."""
    _session.push()


def pull(path, seconds: float = 0.0) -> None:
    """Takes over what another host has written to the copy's place in the bucket, unless that was done so many seconds ago."""
    copy = of(path)
    if copy is not None and time.monotonic() - copy.pulled >= seconds:
        copy.pull(removes=False)


def send(path) -> None:
    """Copies the parts of a preparation (`data.parts`) to the bucket, whether or not this is the process that writes."""
    copy = of(path)
    if copy is not None:
        copy.send()


def wait_for_hosts() -> None:
    """Says that several processes will meet, of which one writes: nothing is copied back before `set_writer` tells which."""
    _session.writes = None


def set_writer(writes: bool) -> None:
    """Says whether this process is the one that writes."""
    _session.writes = writes


def finish() -> None:
    """Copies back what has changed and ends the use of all copies; a failure is a StorageError."""
    _session.close()
