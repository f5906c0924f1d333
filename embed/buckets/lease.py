"""A lease: who may write below an address. It stands for the lock of a folder, which buckets do not have.

A lease is an object `.lease/NUMBER` that its holder creates, which only one can, and writes again every few seconds. It has ended
when its holder says so, or is a process of this machine that is gone, or has not written for a minute: then another takes the next
number. No clocks are compared: who waits watches whether the object changes.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import TypedDict

import msgspec

from embed.buckets import client
from embed.buckets.addresses import Address
from embed.errors import InUse, StorageError

FOLDER = ".lease"
_BEAT, _SILENT, _LOOK = (
    15.0,
    60.0,
    2.0,
)  # seconds between two writes, until a silent holder is gone, and between two looks


class _Holder(TypedDict):
    """What a lease's object holds. `machine` is of one start of a machine, so that its process ids are."""

    holder: str
    host: str
    machine: str
    process: int
    beat: int
    ended: bool


def _machine() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
            return f"{f.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid.uuid4().hex


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # of another user
    return True


class Lease:
    """The right to write below `address`, from `acquire` until `release`.

    `lost` is called, in a thread, when another process has taken over, as this one could not write for a minute.
    """

    def __init__(self, address: Address, say: Callable[[str], None], lost: Callable[[str], None]):
        self._address, self._say, self._lost = address, say, lost
        self._holder: _Holder = {
            "holder": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "machine": _machine(),
            "process": os.getpid(),
            "beat": 0,
            "ended": False,
        }
        self._number = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def _object(self, number: int) -> Address:
        return self._address._replace(path=f"{self._address.path}/{FOLDER}/{number:09d}".strip("/"))

    def _numbers(self) -> list[int]:
        folder = self._address._replace(path=f"{self._address.path}/{FOLDER}".strip("/"))
        return sorted(int(name) for name in client.find(folder) if name.isdecimal())

    def _read(self, number: int) -> tuple[bytes, _Holder] | None:
        content = client.read(self._object(number))
        if content is None:
            return None
        try:
            return content, msgspec.json.decode(content, type=_Holder)
        except msgspec.MsgspecError as e:
            raise StorageError(f"{self._object(number)}: is no lease; remove it when nobody writes there") from e

    def _content(self) -> bytes:
        return json.dumps(self._holder, sort_keys=True).encode()

    def acquire(self) -> None:
        """Takes the lease; InUse where another process holds it."""
        while True:
            numbers = self._numbers()
            if numbers and not self._has_ended(numbers[-1]):
                continue  # it has changed hands meanwhile
            number = numbers[-1] + 1 if numbers else 1
            if client.create(self._object(number), self._content()):
                break
        self._number = number
        for old in numbers:
            client.remove(self._object(old))
        self._thread = threading.Thread(target=self._beat, name=f"lease of {self._address}", daemon=True)
        self._thread.start()

    def _has_ended(self, number: int) -> bool:
        """Returns True when a lease has ended, after watching it, and False when it is not there any more."""
        lease = self._read(number)
        if lease is None:
            return False
        first, holder = lease
        who = f"process {holder['process']} on {holder['host']}"
        if holder["ended"] or (holder["machine"] == self._holder["machine"] and not _lives(holder["process"])):
            return True
        if holder["machine"] == self._holder["machine"]:
            raise InUse(f"{self._address}: in use by {who}; wait for it to end or choose another folder")
        self._say(f"{self._address}: was in use by {who}; looking for at most {_SILENT:.0f} s whether it still is")
        begun = time.monotonic()
        while time.monotonic() - begun < _SILENT:
            time.sleep(_LOOK)
            lease = self._read(number)
            if lease is None:
                return False
            if lease[1]["ended"]:
                return True
            if lease[0] != first:
                raise InUse(f"{self._address}: in use by {who}; wait for it to end or choose another folder")
        return True

    def _beat(self) -> None:
        while not self._stop.wait(_BEAT):
            try:
                if self._numbers()[-1:] != [self._number]:
                    self._lost(f"{self._address}: another process has taken it over, as this one was silent too long")
                    return
                self._holder["beat"] += 1
                client.write(self._object(self._number), self._content())
            except StorageError as e:
                self._say(f"note: the lease could not be written ({e})")

    def release(self) -> None:
        """Gives the lease back; the next process takes it at once."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._holder["ended"] = True
        client.write(self._object(self._number), self._content())
