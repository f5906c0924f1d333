"""Leases in emulated buckets: one holder at a time, whoever dies, and none that is silent too long."""

import json
import os
import subprocess
import sys
import threading

import pytest

from embed.buckets import client, lease
from embed.buckets.addresses import parse
from embed.buckets.lease import Lease
from embed.errors import InUse


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    for name, value in {"_BEAT": 0.05, "_SILENT": 0.6, "_LOOK": 0.05}.items():
        monkeypatch.setattr(lease, name, value)


def lease_of(bucket: str, lost=None, machine: str | None = None, **holder) -> Lease:
    made = Lease(parse(bucket), lambda line: None, lost or pytest.fail)
    made._holder.update(holder, **({} if machine is None else {"machine": machine}))
    return made


def objects(bucket: str) -> dict[str, dict]:
    folder = parse(f"{bucket}/{lease.FOLDER}")
    return {
        name: json.loads(client.read(folder._replace(path=f"{folder.path}/{name}"))) for name in client.find(folder)
    }


def test_one_holds_it_and_the_next_takes_it_at_once(bucket):
    first = lease_of(bucket)
    first.acquire()
    with pytest.raises(InUse, match=f"{bucket}: in use by process {os.getpid()} on "):
        lease_of(bucket).acquire()
    first.release()
    second = lease_of(bucket)
    second.acquire()
    second.release()
    assert list(objects(bucket)) == ["000000002"]
    assert objects(bucket)["000000002"]["ended"]


def test_a_holder_of_this_machine_that_is_gone_has_lost_it(bucket):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    holder = lease_of(bucket, process=gone.pid)
    assert client.create(holder._object(1), holder._content())
    second = lease_of(bucket)
    second.acquire()
    second.release()


def test_a_holder_elsewhere_is_watched(bucket):
    elsewhere = lease_of(bucket, machine="another")
    elsewhere.acquire()
    with pytest.raises(InUse):
        lease_of(bucket).acquire()
    elsewhere._stop.set()  # as if it were killed
    elsewhere._thread.join()
    second = lease_of(bucket)
    second.acquire()
    second.release()
    assert list(objects(bucket)) == ["000000002"]


def test_a_holder_that_was_silent_learns_that_it_has_lost_it(bucket, monkeypatch):
    lost = threading.Event()
    first = lease_of(bucket, lost=lambda line: lost.set(), machine="another")
    first.acquire()
    write = client.write
    monkeypatch.setattr(client, "write", lambda *given: None)  # it cannot reach the bucket
    second = lease_of(bucket)
    second.acquire()
    monkeypatch.setattr(client, "write", write)
    assert lost.wait(5)
    second.release()


def test_of_many_at_once_one_gets_it(bucket):
    got, refused = [], []

    def one(number: int) -> None:
        mine = lease_of(bucket)
        try:
            mine.acquire()
            got.append(mine)
        except InUse:
            refused.append(number)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1 and len(refused) == 5
    got[0].release()
