"""Objects in emulated buckets: whole or not there, whatever fails on the way, and errors of one line."""

import pathlib

import pytest

from embed.buckets import client, copies
from embed.buckets.addresses import parse
from embed.errors import StorageError

NAMES = ["a", "b/c.txt", "b/d/é + #%41.bin", "empty"]


def at(bucket: str, name: str):
    return parse(f"{bucket}/{name}")


def written(bucket, tmp_path) -> dict[str, bytes]:
    made = {name: bytes(range(256)) * (i * 7) for i, name in enumerate(reversed(NAMES))}
    for number, (name, content) in enumerate(made.items()):
        (tmp_path / str(number)).write_bytes(content)
        assert client.upload(tmp_path / str(number), at(bucket, name)).size == len(content)
    return made


def test_what_is_written_is_found_and_read(bucket, tmp_path):
    made = written(bucket, tmp_path)
    found = client.find(parse(bucket))
    assert {name: entry.size for name, entry in found.items()} == {name: len(made[name]) for name in NAMES}
    for name in NAMES:
        assert client.info(at(bucket, name)) == found[name]
        assert client.read(at(bucket, name)) == made[name]
        client.download(at(bucket, name), tmp_path / "back", found[name])
        assert (tmp_path / "back").read_bytes() == made[name]
    assert client.info(at(bucket, "b")) is None and client.info(at(bucket, "none")) is None
    assert client.read(at(bucket, "none")) is None and client.find(at(bucket, "none")) == {}
    assert set(client.find(at(bucket, "b"))) == {"c.txt", "d/é + #%41.bin"}
    client.remove(at(bucket, "a"))
    client.remove(at(bucket, "a"))
    assert "a" not in client.find(parse(bucket))


def test_a_version_changes_with_the_content(bucket):
    client.write(at(bucket, "a"), b"1")
    first = client.info(at(bucket, "a"))
    client.write(at(bucket, "a"), b"2")
    assert client.info(at(bucket, "a")) != first


def test_only_one_creates(bucket):
    assert client.create(at(bucket, "a"), b"1")
    assert not client.create(at(bucket, "a"), b"2")
    assert client.read(at(bucket, "a")) == b"1"


@pytest.mark.filterwarnings("ignore:Sending a large body")  # of aiohttp
def test_requests_that_fail_are_tried_again(bucket, faults, tmp_path):
    faults.set(0.4, seed=1)
    made = written(bucket, tmp_path)
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * (40 << 10))  # 10 MB, in parts
    client.upload(large, at(bucket, "large"))
    found = client.find(parse(bucket))
    for name, content in {**made, "large": large.read_bytes()}.items():
        client.download(at(bucket, name), tmp_path / "back", found[name])
        assert (tmp_path / "back").read_bytes() == content
    assert sum(faults.counts.values()) > 5 and len(faults.counts) == 5
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(client.PART)]


def test_a_service_that_stays_away_is_an_error_of_one_line(bucket, faults, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "_WAITS", (0.01,))
    client.write(at(bucket, "a"), b"1")
    entry = client.info(at(bucket, "a"))
    (tmp_path / "file").write_bytes(b"2")
    faults.refused = "embed-test"  # permission denied, which is not tried again
    for what, operation in {
        "read": lambda: client.read(at(bucket, "a")),
        "written": lambda: client.upload(tmp_path / "file", at(bucket, "a")),
        "removed": lambda: client.remove(at(bucket, "a")),
    }.items():
        with pytest.raises(StorageError, match=f"/a: cannot be {what} .*credentials") as refused:
            operation()
        assert "\n" not in str(refused.value)
    with pytest.raises(StorageError):
        client.download(at(bucket, "a"), tmp_path / "back", entry)
    assert not (tmp_path / "back").exists()
    faults.refused = None
    assert client.read(at(bucket, "a")) == b"1"


def test_a_bucket_that_is_not_there(bucket):
    with pytest.raises(
        StorageError, match="no-such-bucket: no such bucket; create it|no-such-bucket.*cannot be listed"
    ):
        client.find(parse(f"{bucket[:2]}://no-such-bucket/x"))


def test_a_file_that_grows_goes_as_it_is(bucket, tmp_path, monkeypatch):
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    read = pathlib.Path.read_bytes

    def growing(self):
        content = read(self)
        if self == path:
            path.write_bytes(content + b"two\n")
        return content

    monkeypatch.setattr(pathlib.Path, "read_bytes", growing)
    assert client.upload(path, at(bucket, "log")).size == 4
    assert client.read(at(bucket, "log")) == b"one\n"


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *arguments, **named):
        if name.startswith("gcsfs"):
            raise ImportError("No module named 'gcsfs'", name="gcsfs")
        return real(name, *arguments, **named)

    client._filesystem.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        Exception, match=r"gs:// needs a package that is not installed \(gcsfs\); pip install 'embed\[gcs\]'"
    ):
        client.find(parse("gs://bucket/x"))
    client._filesystem.cache_clear()


def test_what_does_not_pass_is_not_tried_again_and_long_waits_are_said(monkeypatch, capsys):
    NoCredentialsError = type("NoCredentialsError", (Exception,), {})
    tries = []

    def fail(error):
        tries.append(error)
        raise error

    monkeypatch.setattr(client, "_WAITS", (0, 4))
    monkeypatch.setattr(client.time, "sleep", lambda seconds: None)
    with pytest.raises(StorageError, match="gs://bucket/x: cannot be read .Unable to locate credentials."):
        client._tried(parse("gs://bucket/x"), "read", lambda: fail(NoCredentialsError("Unable to locate credentials")))
    assert len(tries) == 1 and capsys.readouterr().out == ""
    with pytest.raises(StorageError):
        client._tried(parse("gs://bucket/x"), "read", lambda: fail(ConnectionError("lost")))
    assert len(tries) == 4
    assert capsys.readouterr().out == "note       gs://bucket/x: cannot be read (lost); tried again in 4 s\n"


def test_objects_whose_names_are_no_paths_are_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("EMBED_BUCKET_CACHE", str(tmp_path / "cache"))
    there = {name: client.Object(0, "1") for name in ("a", "../outside", "/root", "b//c")}
    monkeypatch.setattr(client, "info", lambda address: None)
    monkeypatch.setattr(client, "find", lambda address: there)
    folder = copies.local("gs://bucket/x")
    assert [p.name for p in folder.iterdir()] == ["a"] and not (tmp_path / "cache/gs/bucket/outside").exists()
    assert "3 objects have names that are no paths, such as '../outside'; they are left out" in capsys.readouterr().out
    copies.finish()


@pytest.mark.parametrize("wrong", [1, 9])
def test_an_object_or_a_file_of_another_size_is_copied_again(monkeypatch, tmp_path, wrong):
    """A service that loses the end of what it is given, once or always."""

    class Losing:
        def __init__(self):
            self.calls = 0

        def _cut(self, content: bytes) -> bytes:
            self.calls += 1
            return content[:-1] if self.calls <= wrong else content

        def pipe_file(self, name, content):
            self.content = self._cut(content)

        def info(self, name):
            return {"type": "file", "size": len(self.content), "etag": "1"}

        def get_file(self, name, path):
            pathlib.Path(path).write_bytes(self._cut(b"abc"))

    monkeypatch.setattr(client, "_WAITS", (0, 0))
    (tmp_path / "file").write_bytes(b"abc")
    for operation in (
        lambda: client.upload(tmp_path / "file", parse("gs://bucket/x")),
        lambda: client.download(parse("gs://bucket/x"), tmp_path / "back", client.Object(3, "1")),
    ):
        losing = Losing()
        monkeypatch.setattr(client, "_filesystem", lambda scheme, losing=losing: losing)
        if wrong == 1:
            operation()
            assert losing.calls == 2
        else:
            with pytest.raises(StorageError, match="gs://bucket/x: cannot be .* .2 of 3 bytes"):
                operation()
    assert (tmp_path / "back").exists() == (wrong == 1)
