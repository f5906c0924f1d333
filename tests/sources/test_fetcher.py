"""Images are fetched from a server of this machine, with faults: nothing is lost, nothing comes twice, nothing private is asked."""

import dataclasses
import hashlib
import multiprocessing
import os
import re
import tarfile

import pytest
from web_server import QUICK, picture, running

from embed.errors import ConfigError, DataError
from embed.sources import TarShards, addresses
from embed.sources.fetcher import Fetching, fetch
from embed.sources.image_shards import ImageShards


@pytest.fixture
def server():
    with running() as server:
        yield server


def got(server, folder, *names, options=QUICK):
    shards = ImageShards(folder)
    lines = []
    fetch([f"{server.url}/{name}" for name in names], shards, options, lines.append)
    return ImageShards(folder), lines


def test_images_lie_in_shards_that_other_tools_read(server, tmp_path):
    names = [f"image-{i}" for i in range(20)]
    shards, lines = got(server, tmp_path / "web", *names)
    assert [shards.read(f"{server.url}/{name}") for name in names] == [picture(i) for i in range(20)]
    with tarfile.open(tmp_path / "web/images-00000.tar") as tar:
        members = {hashlib.sha256(tar.extractfile(m).read()).hexdigest()[:32] + ".png" for m in tar}
        assert members == {m.name for m in tar} and len(members) == 20
    records = list(TarShards(str(tmp_path / "web/*.tar"), fields={"image": "image"}).examples())
    assert {r["image"] for _, r in records} == {picture(i) for i in range(20)}
    assert "fetched    20 of 20 images" in lines[-1]
    assert server.agents == {QUICK.user_agent} and "someone@example.org" in QUICK.user_agent


FAULTS = {
    "html-1": "no image that Pillow reads",
    "missing-1": "status 404",
    "broken-1": "status 500",
    "huge-1": "2,147,483,648 bytes, and at most 1,048,576 are read",
    "endless-1": "more than 1,048,576 bytes",
    "short-1": "ended after|cannot be reached",
    "slow-1": "no answer within 1 s",
    "packed-1": "compressed as gzip",
    "private-1": "status|private|cannot be reached|no answer",
    "round-1": "more than 5 redirects",
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_and_the_others_come(server, tmp_path, name):
    shards, lines = got(server, tmp_path / "web", "image-1", name, "image-2")
    entry = shards.entries[f"{server.url}/{name}"]
    assert not entry.is_there
    assert re.search(FAULTS[name], entry.reason), entry.reason
    assert shards.entries[f"{server.url}/image-2"].is_there and "1 failed" in lines[-1]
    assert server.sent <= 8 << 20


def test_busy_servers_are_waited_for_and_redirects_followed(server, tmp_path):
    shards, _ = got(server, tmp_path / "web", "busy-1", "to-image-5")
    assert shards.read(f"{server.url}/busy-1") == picture(7) and shards.read(f"{server.url}/to-image-5") == picture(5)
    assert server.asked["busy-1"] == 2 and server.times[-1] - server.times[0] >= 0.2


def test_the_same_image_is_kept_once(server, tmp_path):
    shards, _ = got(server, tmp_path / "web", "image-3", "copy-1", "copy-2")
    with tarfile.open(tmp_path / "web/images-00000.tar") as tar:
        assert len(tar.getmembers()) == 1
    assert {shards.read(url) for url in shards.entries} == {picture(3)}


def test_robots_are_obeyed(server, tmp_path):
    server.robots = (200, b"User-agent: embed\nDisallow: /image-1\nCrawl-delay: 1\n")
    shards, _ = got(server, tmp_path / "web", "image-1", "image-2", "image-3")
    assert shards.entries[f"{server.url}/image-1"].reason == "its host's robots.txt forbids it"
    assert server.asked["image-1"] == 0 and server.asked["image-2"] == 1 and server.asked["robots.txt"] == 1
    assert server.times[-1] - server.times[-2] >= 0.9


def test_urls_of_a_host_whose_robots_file_fails_are_fetched_in_the_next_run(server, tmp_path):
    server.robots = (503,)
    shards, _ = got(server, tmp_path / "web", "image-1", "image-2")
    assert {e.reason for e in shards.entries.values()} == {"robots.txt: status 503"}
    assert server.asked == {"robots.txt": QUICK.max_attempts}  # however many images of the host are wanted
    server.robots = (404,)
    shards, _ = got(server, tmp_path / "web", "image-1", "image-2")
    assert all(e.is_there for e in shards.entries.values())


@pytest.mark.parametrize("target", ["ftp://host/robots.txt", "http://a:b@host/", "http://[::1/"])
def test_a_robots_file_that_moved_to_what_is_no_url_ends_nothing(server, tmp_path, target):
    server.robots, server.robots_headers = (302,), {"Location": target}
    shards, lines = got(server, tmp_path / "web", "image-1", "image-2")
    assert len(shards.entries) == 2 and not any(e.is_there for e in shards.entries.values())
    assert all(e.reason and e.retriable for e in shards.entries.values()) and "2 failed" in lines[-1]


@pytest.mark.parametrize(
    ("line", "comes"),
    [
        ("Disallow: //[x", False),
        ("Crawl-delay: \u00b2", False),
        ("Crawl-delay: " + "9" * 400, True),
        ("Crawl: x", True),
    ],
)
def test_a_robots_file_with_a_wrong_line_ends_nothing(server, tmp_path, line, comes):
    server.robots = (200, f"User-agent: *\n{line}\n".encode())
    options = dataclasses.replace(QUICK, max_wait=0.01)
    shards, lines = got(server, tmp_path / "web", "image-1", options=options)
    (entry,) = shards.entries.values()
    assert entry.is_there == comes
    assert comes or (entry.retriable and entry.reason.startswith("robots.txt: cannot be parsed"))


def test_a_compressed_robots_file_is_asked_for_again_in_the_next_run(server, tmp_path):
    server.robots, server.robots_headers = (200, b"x"), {"Content-Encoding": "gzip"}
    shards, _ = got(server, tmp_path / "web", "image-1")
    assert shards.entries[f"{server.url}/image-1"].reason.startswith("robots.txt: is compressed")
    server.robots, server.robots_headers = (404,), {}
    shards, _ = got(server, tmp_path / "web", "image-1")
    assert shards.entries[f"{server.url}/image-1"].is_there


@pytest.mark.parametrize("limit", [{"max_bytes": 10}, {"max_pixels": 15}, {"allow_private": False}])
def test_what_a_limit_refused_is_fetched_with_a_higher_limit(server, tmp_path, limit):
    shards, _ = got(server, tmp_path / "web", "image-1", options=dataclasses.replace(QUICK, **limit))
    entry = shards.entries[f"{server.url}/image-1"]
    assert not entry.is_there and entry.retriable
    assert server.asked["image-1"] <= 1  # the limit is the same for all attempts of a run
    shards, _ = got(server, tmp_path / "web", "image-1")
    assert shards.entries[f"{server.url}/image-1"].is_there


def test_a_second_run_asks_for_nothing_that_came_or_never_will(server, tmp_path):
    names = ("image-1", "missing-1", "broken-1")
    got(server, tmp_path / "web", *names)
    before = server.asked.copy()
    got(server, tmp_path / "web", *names)
    asked_again = server.asked - before
    assert set(asked_again) == {"broken-1", "robots.txt"}


def test_hosts_are_not_asked_faster_than_allowed(server, tmp_path):
    options = Fetching("me@example.org", min_interval=0.05, allow_private=True)
    got(server, tmp_path / "web", *(f"image-{i}" for i in range(6)), options=options)
    times = server.times[1:]  # without robots.txt
    assert times[-1] - times[0] >= 5 * 0.05 * 0.9


@pytest.mark.parametrize(
    "url", ["ftp://host/a.png", "file:///etc/passwd", "http://", "http://a:b@host/", "http://[::1/", "http://h/a b"]
)
def test_what_is_no_url_is_refused(url, tmp_path):
    with pytest.raises(DataError):
        addresses.host_of(url)
    shards = ImageShards(tmp_path / "web")
    fetch([url], shards, QUICK, lambda line: None)
    assert not shards.entries[url].is_there and not shards.entries[url].retriable


def test_a_private_host_is_not_asked_by_default(server, tmp_path):
    shards, _ = got(
        server, tmp_path / "web", "image-1", options=Fetching("me@example.org", min_interval=0, max_attempts=1)
    )
    assert "private address" in shards.entries[f"{server.url}/image-1"].reason and not server.asked


def _fetch_in_process(folder, urls, dies_after):
    """Fetches, and dies without a word after so many images."""
    kept = ImageShards.add

    def add(self, url, content, extension):
        nonlocal dies_after
        dies_after -= 1
        kept(self, url, content, extension)
        if dies_after <= 0:
            os._exit(9)

    ImageShards.add = add
    fetch(urls, ImageShards(folder), QUICK, lambda line: None)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [b"", b'{"url": "http://h/x", "sha'])
def test_a_killed_run_goes_on_and_fetches_nothing_twice(server, tmp_path, damage):
    folder = tmp_path / "web"
    urls = [f"{server.url}/image-{i}" for i in range(30)]
    process = multiprocessing.get_context("spawn").Process(target=_fetch_in_process, args=(folder, urls, 12))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    came = set(ImageShards(folder).entries)
    assert len(came) >= 11
    with (folder / "fetched.jsonl").open("ab") as file:
        file.write(damage)
    with (folder / "images-00000.tar").open("ab") as file:
        file.write(b"half an image")
    before = server.asked.copy()
    fetch(urls, ImageShards(folder), QUICK, lambda line: None)
    shards = ImageShards(folder)
    assert [shards.read(url) for url in urls] == [picture(i) for i in range(30)]
    again = {name for name, count in (server.asked - before).items() if name != "robots.txt"}
    assert not again & {url.rpartition("/")[2] for url in came}
    with tarfile.open(folder / "images-00000.tar") as tar:
        assert len(tar.getmembers()) == 30


def test_a_contact_is_needed():
    with pytest.raises(ConfigError, match="contact is empty"):
        Fetching(" ")
