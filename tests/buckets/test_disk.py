"""Room for copies of places in emulated buckets."""

import pytest
from bucket_places import put

from embed.buckets import addresses, copies, disk
from embed.errors import StorageError


def test_copies_that_were_not_used_for_longest_make_room(bucket, monkeypatch):
    for name in ("one", "two", "three"):
        put(bucket, **{f"{name}__x": "x" * 4000})
    monkeypatch.setenv("EMBED_BUCKET_CACHE_GB", "1")
    one = copies.local(f"{bucket}/one")
    copies.finish()
    two = copies.local(f"{bucket}/two")
    used = disk.size_of(addresses.cache_folder())
    monkeypatch.setenv("EMBED_BUCKET_CACHE_GB", str((used + 1000) / 1e9))
    copies.local(f"{bucket}/three")
    assert two.is_dir() and not one.exists()
    monkeypatch.setenv("EMBED_BUCKET_CACHE_GB", "1e-6")
    with pytest.raises(StorageError, match="which has room for 0.00 GB; free some, or set EMBED_BUCKET_CACHE"):
        copies.local(f"{bucket}/one")
