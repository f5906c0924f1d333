"""A bucket of each kind, with faults on the way to it."""

import asyncio
import types
import uuid

import bucket_servers
import pytest

from embed.buckets import client, copies
from embed.buckets.addresses import parse


def hurry(monkeypatch) -> None:
    """Makes the libraries wait for a moment only where they try again."""
    import gcsfs.retry
    import s3fs.core

    async def sleep(seconds):
        await asyncio.sleep(min(seconds, 0.01))

    hasty = types.SimpleNamespace(**{**vars(asyncio), "sleep": sleep})
    monkeypatch.setattr(gcsfs.retry, "asyncio", hasty)
    monkeypatch.setattr(s3fs.core, "asyncio", hasty)


@pytest.fixture(scope="session", params=["gs", "s3"])
def service(request):
    """(scheme, environment, faults) of a service that runs."""
    with bucket_servers.served(request.param) as (environment, faults):
        yield request.param, environment, faults


@pytest.fixture
def bucket(service, monkeypatch, tmp_path):
    """The address, as a text, of an empty place in a bucket that this process reaches."""
    scheme, environment, faults = service
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EMBED_BUCKET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(client, "_WAITS", (0.01,) * 8)
    hurry(monkeypatch)
    client._filesystem.cache_clear()
    faults.set(0)
    faults.refused = None
    yield f"{scheme}://{bucket_servers.BUCKET}/{uuid.uuid4().hex}"
    faults.set(0)
    faults.refused = None
    copies.finish()
    client._filesystem.cache_clear()


@pytest.fixture
def faults(service):
    """What goes wrong on the way to the bucket."""
    return service[2]


@pytest.fixture
def contents():
    """contents(address) -> {name: bytes} of what is there, without leases."""

    def of(address: str) -> dict[str, bytes]:
        place = parse(address)
        found = [name for name in client.find(place) if not name.startswith(".lease")]
        return {name: client.read(place._replace(path=f"{place.path}/{name}")) for name in found}

    return of
