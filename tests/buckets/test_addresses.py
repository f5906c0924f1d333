"""Addresses in buckets: read strictly, found in gin, and the paths of their copies."""

import pathlib

import pytest

from embed.buckets import addresses
from embed.buckets.addresses import Address
from embed.errors import UsageError


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBED_BUCKET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("gs://a-bucket/x/y.txt", Address("gs", "a-bucket", "x/y.txt")),
        ("s3://bucket.name", Address("s3", "bucket.name", "")),
        ("s3://bucket//x//y/", Address("s3", "bucket", "x/y")),
        ("gs://bucket/a b#é+%41?", Address("gs", "bucket", "a b#é+%41?")),
    ],
)
def test_what_is_read(text, address):
    assert addresses.parse(text) == address
    assert addresses.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "gs://",
        "gs:///x",
        "s3://B/x",
        "s3://a/x",
        "gs://bucket/../x",
        "gs://bucket/x/./y",
        "gs://bucket/x\n",
        "s3://bucket/a\\b",
    ],
)
def test_what_is_refused(text):
    assert addresses.is_address(text)
    with pytest.raises(UsageError, match="gs://|s3://"):
        addresses.parse(text)


@pytest.mark.parametrize("text", ["gs:/x", "/gs://x", "http://x", "x", "", "S3://bucket/x"])
def test_what_is_no_address(text):
    assert not addresses.is_address(text)


def test_a_copy_has_one_address(cache):
    for text in ("gs://bucket/x/y.txt", "s3://bucket"):
        path = addresses.copy_of(addresses.parse(text))
        assert path.is_relative_to(cache)
        assert str(addresses.address_of(path)) == text
    for path in (cache / "gs", cache / ".state" / "x", cache.parent, pathlib.Path("x")):
        assert addresses.address_of(path) is None


def test_addresses_in_gin_are_replaced_in_quotes_and_come_back(cache):
    text = "A = 'gs://bucket/x'\n# B = 'gs://bucket/y'\nC = {'k': (\"s3://bucket/p/*.jsonl\", 'gs')}\nD = 'see gs://bucket'"
    assert addresses.quoted(text) == ["gs://bucket/x", "s3://bucket/p/*.jsonl"]
    local = addresses.localized(text)
    assert f"'{cache}/gs/bucket/x'" in local and f"'{cache}/s3/bucket/p/*.jsonl'" in local
    assert "# B = 'gs://bucket/y'" in local and "'see gs://bucket'" in local
    assert addresses.restored(local) == text.replace('"', "'")
