"""Tar shards as tar itself and Python's tarfile write them; what is cut, apart or no shard is said with shard and key."""

import io
import json
import subprocess
import tarfile

import pytest

from embed.errors import DataError
from embed.sources import TarShards

FIELDS = {"image": "image", "caption": "txt", "long_caption": "json.caption"}


def write(path, members, mode="w", end=True):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        size = archive.offset
    path.write_bytes(file.getvalue() if end else file.getvalue()[:size])
    return path


def members(count=3, extension="jpg"):
    rows = []
    for i in range(count):
        key = f"{i:05d}"
        rows.append((f"{key}.{extension}", bytes([i]) * (700 + i)))
        rows.append((f"{key}.txt", f"número {i}".encode()))
        rows.append((f"{key}.json", json.dumps({"caption": f"the long one, {i}", "url": "-"}).encode()))
    return rows


def records(path, **options):
    return list(TarShards(str(path), FIELDS, **options).examples())


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_members_of_one_name_are_a_record(mode, tmp_path):
    path = write(tmp_path / "a.tar", members(), mode)
    assert records(path) == [
        (
            f"{path}:{i:05d}",
            {"image": bytes([i]) * (700 + i), "caption": f"número {i}", "long_caption": f"the long one, {i}"},
        )
        for i in range(3)
    ]
    raw = dict(TarShards(str(path), FIELDS).rows(str(path)))[f"{path}:00001"]
    assert raw["__key__"] == "00001" and raw["jpg"] == raw["image"] and raw["json"]["url"] == "-"


def test_a_shard_of_the_program_tar(tmp_path):
    folder = tmp_path / "files"
    (folder / "cats").mkdir(parents=True)
    for name, content in members(2, "png"):
        (folder / "cats" / name).write_bytes(content)
    subprocess.run(["tar", "--sort=name", "-cf", "a.tar", "-C", "files", "cats"], cwd=tmp_path, check=True)
    found = records(tmp_path / "a.tar")
    assert [location.rpartition(":")[2] for location, _ in found] == ["cats/00000", "cats/00001"]
    assert found[1][1]["caption"] == "número 1"


@pytest.mark.parametrize("end", [False, True])
def test_a_shard_that_is_cut_short(end, tmp_path):
    """Within a member, within a header, and behind the last member, where the blocks that end a tar are missing."""
    whole = write(tmp_path / "whole.tar", members(), end=end).read_bytes()
    sizes = [len(whole)] if not end else [1200, 3 * 512 + 100, 9 * 512 + 700]
    for size in sizes:
        path = tmp_path / "cut.tar"
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=f"^{path}(:0000.)?: cut short.*; fetch it again"):
            records(path)


def test_whole_records_before_a_cut_are_kept_where_bad_ones_are_skipped(tmp_path):
    whole = write(tmp_path / "whole.tar", members()).read_bytes()
    path = tmp_path / "cut.tar"
    path.write_bytes(whole[: whole.index(b"00002.txt") + 600])
    source = TarShards(str(path), FIELDS, on_bad_record="skip", max_bad_share=0.5)
    assert [record["caption"] for _, record in source.examples()] == ["número 0", "número 1"]
    assert source.bad_records.skipped == 1 and "cut.tar:00002: cut short" in source.bad_records.first[0]


def test_a_gzip_that_is_cut_short(tmp_path):
    path = write(tmp_path / "a.tar.gz", members(), "w:gz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="a.tar.gz.*: cut short"):
        records(path)


REFUSED = {
    "apart": ([*members(2), ("00000.cls", b"1")], "a.tar:00000: members of one record lie apart"),
    "twice": ([*members(1), ("00000.TXT", b"1")], r"a.tar:00000: has two members .txt"),
    "no extension": ([("README", b"1")], "the member 'README' has no extension"),
    "several images": ([*members(1), ("00000.png", b"1")], r"a.tar:00000: has several images \(jpg, png\)"),
    "json": ([("0.jpg", b"1"), ("0.json", b"{")], r"a.tar:0.json: not valid JSON"),
    "text": ([("0.jpg", b"1"), ("0.txt", b"\xff")], r"a.tar:0.txt: not valid UTF-8 at byte 0"),
    "no caption": (
        [("0.jpg", b"1"), ("0.txt", b"a")],
        "no record up to here.* has the field .json.caption. .mapped to long_caption",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_record_is_refused(case, tmp_path):
    rows, reason = REFUSED[case]
    path = write(tmp_path / "a.tar", rows)
    with pytest.raises(DataError, match=reason):
        records(path)


def test_links_and_other_files_are_refused(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("0.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(DataError, match="the member '0.jpg' is a link or a device"):
        records(path)
    path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match="a.tar: not a readable tar file"):
        records(path)


def test_another_shard_is_another_fingerprint(tmp_path):
    path = write(tmp_path / "a.tar", members())
    before = TarShards(str(path), FIELDS).fingerprint()
    write(path, members(2))
    assert TarShards(str(path), FIELDS).fingerprint() != before
