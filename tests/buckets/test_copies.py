"""The copies of a process: locked, left alone where another uses them, and kept where they cannot be copied back."""

import pathlib
import subprocess
import sys

import pytest
from bucket_places import put, step, tree, write

from embed import files
from embed.buckets import addresses, client, copies, lease
from embed.buckets.addresses import parse
from embed.errors import InUse, StorageError, UsageError
from embed.sources import ImageFiles, JsonLines


def test_a_folder_is_locked_in_the_bucket(bucket, monkeypatch):
    for name, value in {"_BEAT": 0.05, "_SILENT": 0.5, "_LOOK": 0.05}.items():
        monkeypatch.setattr(lease, name, value)
    folder = copies.local(f"{bucket}/run")
    with files.FolderLock(folder):
        other = lease.Lease(parse(f"{bucket}/run"), lambda line: None, pytest.fail)
        with pytest.raises(InUse):
            other.acquire()
        put(bucket, run__x="written meanwhile")
    with files.FolderLock(folder):
        assert (folder / "x").read_text() == "written meanwhile"


def test_a_copy_that_another_process_uses_is_left_alone(bucket, contents):
    put(bucket, a="1")
    program = (
        "from embed.buckets import copies; import sys; folder = copies.local(sys.argv[1]); print(folder, flush=True);"
        "sys.stdin.readline(); copies.finish()"
    )
    user = subprocess.Popen(
        [sys.executable, "-c", program, bucket], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    folder = pathlib.Path(user.stdout.readline().strip())
    write(folder, b="not copied yet")
    assert copies.local(bucket) == folder
    assert tree(folder) == {"a": "1", "b": "not copied yet"}
    with pytest.raises(InUse, match=f"{bucket}: in use by another process of this machine"), copies.locked(folder):
        pass
    copies.finish()
    assert contents(bucket) == {"a": b"1"}
    with pytest.raises(InUse, match="in use by another process"):
        copies.words([f"--output={bucket}"])
    copies.finish()
    user.communicate("\n")
    assert contents(bucket) == {"a": b"1", "b": b"not copied yet"}


def test_what_cannot_be_copied_back_is_kept(bucket, faults, monkeypatch):
    monkeypatch.setattr(client, "_WAITS", (0.01,))
    folder = copies.local(f"{bucket}/out")
    write(folder, a="1")
    faults.refused = "embed-test"
    with pytest.raises(StorageError, match=f"what was made is kept below {addresses.cache_folder()}"):
        copies.finish()
    assert tree(folder) == {"a": "1"}


def test_a_folder_is_kept_in_a_bucket_too(bucket, contents, tmp_path):
    run = tmp_path / "run"
    step(run, 4)
    with pytest.raises(UsageError, match="'here' is no address in a bucket"):
        copies.follow(run, "here")
    copies.follow(run, f"{bucket}/run")
    assert copies.of(run) is None, "it is no copy of what is in the bucket"
    write(run, **{"metrics.jsonl": "1"})
    copies.finish()
    assert {"checkpoints/4/MANIFEST.json", "checkpoints/4/params/d/x", "metrics.jsonl"} < set(contents(f"{bucket}/run"))
    copies.follow(run, f"{bucket}/run")
    step(run, 8)
    for path in sorted((run / "checkpoints" / "4").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (run / "checkpoints" / "4").rmdir()
    copies.finish()
    assert "checkpoints/8/MANIFEST.json" in contents(f"{bucket}/run")
    step(tmp_path / "other", 8, "other values")
    with pytest.raises(
        StorageError, match="holds a run of [12] checkpoints, none of which .*other has; name another place"
    ):
        copies.follow(tmp_path / "other", f"{bucket}/run")
    put(bucket, data__x="1")
    with pytest.raises(StorageError, match="holds other files; name another place"):
        copies.follow(run, f"{bucket}/data")
    assert copies.words(["--copy_to=" + bucket, "--copy_to", bucket]) == ["--copy_to=" + bucket, "--copy_to", bucket]


def test_one_process_may_hold_parts_of_one_another(bucket, contents):
    put(bucket, data__a="1", data__b="2")
    copies.local(f"{bucket}/data/*")
    copies.local(f"{bucket}/data/a")
    cache = copies.local(f"{bucket}/data/cache")
    whole = copies.local(f"{bucket}/data")
    assert all(copies.of(path).is_own for path in (cache, whole, whole / "a"))
    write(cache, x="3")
    copies.finish()
    assert contents(bucket) == {"data/a": b"1", "data/b": b"2", "data/cache/x": b"3"}
    copies.local(f"{bucket}/data")  # after all have been freed


def test_the_words_of_a_command_and_what_lies_beside_a_file(bucket, tmp_path):
    put(bucket, suites__s="{}", sets__x="1", pics__list="a", pics__a="2")
    words = copies.words(["--suite=" + f"{bucket}/suites/s", "--gin.A='gs://bucket/x'", f"{bucket}/none", "plain"])
    (named,) = copies.words([f"name={bucket}/sets"])
    assert named == f"name={copies.local(f'{bucket}/sets')}"
    suite, gin, none, plain = words
    path = pathlib.Path(suite.removeprefix("--suite="))
    assert path.read_text() == "{}" and gin == "--gin.A='gs://bucket/x'" and plain == "plain"
    assert addresses.restored(none) == f"{bucket}/none" and not pathlib.Path(none).exists()
    assert copies.present(path.parent / "../sets/x").read_text() == "1"
    assert tree(copies.folder_of(copies.local(f"{bucket}/pics/list"))) == {"list": "a", "a": "2"}
    assert copies.folder_of(tmp_path / "x") == tmp_path


def test_a_file_is_known_by_its_object_on_every_machine(bucket, tmp_path, monkeypatch):
    """Times of copies differ; a cache of images goes by the versions of their objects."""
    rows = '{"query": "a", "target": "b", "image": "x.png"}\n'
    put(bucket, **{"rows.jsonl": rows, "x.png": "one"})
    states, prints = [], []
    for machine in ("one", "two"):
        monkeypatch.setenv("EMBED_BUCKET_CACHE", str(tmp_path / machine))
        folder = copies.local(bucket)
        source = ImageFiles(
            JsonLines(str(folder / "rows.jsonl"), {"query": "query", "target": "target", "image": "image"})
        )
        prints.append(source.fingerprint()["images"])
        states.append(copies.version(folder / "x.png"))
        if machine == "two":
            (folder / "x.png").write_text("two")
            assert copies.version(folder / "x.png") is None
        copies.finish()
    assert states[0] == states[1] is not None and copies.version(tmp_path / "rows.jsonl") is None
    assert prints[0] == prints[1]
