"""Shards of images: what was added is read again, in several shards, and damage is told."""

import hashlib
import json
import tarfile

import pytest

from embed.errors import DataError
from embed.sources.image_shards import ImageShards


@pytest.fixture
def folder(tmp_path):
    shards = ImageShards(tmp_path / "web", shard_bytes=2000)
    for number in range(6):
        shards.add(f"http://h/{number}", bytes([number]) * 700, "png")
    shards.refuse("http://h/no", "status 404", False)
    shards.close()
    return tmp_path / "web"


def test_images_lie_in_several_tar_files(folder):
    shards = ImageShards(folder)
    assert [shards.read(f"http://h/{number}")[:1] for number in range(6)] == [bytes([number]) for number in range(6)]
    assert shards.entries["http://h/no"].reason == "status 404"
    names = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    assert names == [f"{hashlib.sha256(bytes([n]) * 700).hexdigest()[:32]}.png" for n in range(6)]
    assert len(list(folder.glob("*.tar"))) == 3


def test_reading_writes_nothing_and_adding_goes_on(folder):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    shards = ImageShards(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    digest = shards.digest
    shards.add("http://h/more", b"more", "jpg")
    shards.close()
    assert ImageShards(folder).read("http://h/more") == b"more" and ImageShards(folder).digest != digest
    assert not ImageShards(folder.parent / "nowhere").entries and not (folder.parent / "nowhere").exists()


def test_a_damaged_shard_is_told(folder):
    path = folder / "images-00000.tar"
    content = bytearray(path.read_bytes())
    content[520] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="images-00000.tar: the image of http://h/0 is damaged; remove .* and fetch"):
        ImageShards(folder).read("http://h/0")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"url": "http://h/x", "what": 1}, "fetched.jsonl:8: is no line of fetched images"),
        ({"url": "http://h/x", "shard": "../x.tar"}, "fetched.jsonl:8: names a shard outside of the folder"),
    ],
)
def test_a_damaged_index_is_told(folder, line, message):
    with (folder / "fetched.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=message):
        ImageShards(folder)
