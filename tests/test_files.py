"""Atomic writes, digest manifests, whole-or-nothing folders, folder locks and failpoints."""

import errno
import json
import os
import random
import signal
import subprocess
import sys

import pytest

from embed import documents, files
from embed.errors import DataError, StorageError, UsageError


def run_python(code: str, *arguments, **environment) -> subprocess.CompletedProcess:
    """Returns the finished child process that ran `code`."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def names(folder) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def committed(folder):
    """Returns a committed folder of three files, one of them nested."""
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a.bin").write_bytes(bytes(range(256)))
    (folder / "deep" / "er" / "b.txt").write_text("some words\n")
    (folder / "empty").write_bytes(b"")
    files.write_manifest(folder, step=3)
    return folder


# write_atomic, write_json, read_json


def test_write_atomic_writes_text_and_bytes_and_replaces(tmp_path):
    files.write_atomic(tmp_path / "x", "härte")
    assert (tmp_path / "x").read_bytes() == "härte".encode()
    files.write_atomic(tmp_path / "x", b"\x00\xff")
    assert (tmp_path / "x").read_bytes() == b"\x00\xff"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_write_atomic_keeps_the_old_file_when_the_disk_is_full(tmp_path, monkeypatch, stage):
    files.write_atomic(tmp_path / "x", "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, stage, full)
        with pytest.raises(StorageError, match="no space left") as caught:
            files.write_atomic(tmp_path / "x", "new")
    assert str(tmp_path / "x") in str(caught.value)
    assert caught.value.exit_code == 74
    assert (tmp_path / "x").read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_write_atomic_into_a_missing_folder_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot write"):
        files.write_atomic(tmp_path / "no" / "x", "new")


def test_json_survives_a_round_trip_in_its_own_order(tmp_path):
    value = {"b": [1, 2.5, None], "a": "日本語", "c": {"z": True, "y": '\\ " \n'}}
    files.write_json(tmp_path / "x.json", value)
    assert documents.read_json(tmp_path / "x.json") == value
    assert list(documents.read_json(tmp_path / "x.json")) == ["b", "a", "c"]
    assert "日本語" in (tmp_path / "x.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"{'a': 1}"])
def test_read_json_names_a_malformed_file(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match="not valid JSON") as caught:
        documents.read_json(tmp_path / "x.json")
    assert str(tmp_path / "x.json") in str(caught.value)


def test_read_json_names_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        documents.read_json(tmp_path / "x.json")


@pytest.mark.parametrize("content", ["[1, 2]", "3", "null", '"text"'])
def test_read_json_refuses_json_that_is_not_an_object(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match="x.json"):
        documents.read_json(tmp_path / "x.json")


# manifests


def test_manifest_lists_every_file_with_size_and_digest(tmp_path):
    folder = committed(tmp_path / "f")
    manifest = files.verify_manifest(folder)
    assert sorted(manifest["files"]) == ["a.bin", "deep/er/b.txt", "empty"]
    assert manifest["files"]["a.bin"] == {"size": 256, "sha256": files.sha256_file(folder / "a.bin")}
    assert manifest["step"] == 3
    assert files.MANIFEST in names(folder)


def test_a_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(DataError, match="never completed"):
        files.verify_manifest(tmp_path)


@pytest.mark.parametrize("name", ["a.bin", "deep/er/b.txt", "empty"])
def test_verify_names_a_missing_file(tmp_path, name):
    folder = committed(tmp_path / "f")
    (folder / name).unlink()
    with pytest.raises(DataError, match="missing") as caught:
        files.verify_manifest(folder)
    assert str(folder / name) in str(caught.value)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\n", lambda b: b""])
def test_verify_names_a_file_of_another_size(tmp_path, change):
    path = committed(tmp_path / "f") / "deep" / "er" / "b.txt"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match="11") as caught:
        files.verify_manifest(tmp_path / "f")
    assert str(path) in str(caught.value)


def test_verify_finds_every_flipped_bit(tmp_path):
    folder = committed(tmp_path / "f")
    draw = random.Random(0)
    for _ in range(100):
        path = folder / draw.choice(["a.bin", "deep/er/b.txt"])
        intact = path.read_bytes()
        damaged = bytearray(intact)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(damaged))
        with pytest.raises(DataError, match="damaged"):
            files.verify_manifest(folder)
        path.write_bytes(intact)
    files.verify_manifest(folder)


@pytest.fixture(scope="module")
def manifest_flips(tmp_path_factory):
    """Where flips changed the manifest without an error, and where they ended in another error than DataError."""
    folder = committed(tmp_path_factory.mktemp("flips") / "f")
    path = folder / files.MANIFEST
    intact, wanted = path.read_bytes(), documents.read_json(path)
    unnoticed, crashed = [], []
    for offset in range(len(intact)):
        damaged = bytearray(intact)
        damaged[offset] ^= 1 << (offset % 7)
        path.write_bytes(bytes(damaged))
        around = intact[max(0, offset - 12) : offset + 12]
        try:
            if files.verify_manifest(folder) != wanted:
                unnoticed.append(around)
        except DataError:
            pass
        except Exception as e:
            crashed.append((around, repr(e)))
    return unnoticed, crashed


def test_no_flip_in_the_manifest_goes_unnoticed(manifest_flips):
    unnoticed = manifest_flips[0]
    assert not unnoticed, f"{len(unnoticed)} flips changed the manifest without an error, e.g. at {unnoticed[:5]}"


def test_a_flip_in_the_manifest_is_a_data_error(manifest_flips):
    crashed = manifest_flips[1]
    assert not crashed, f"{len(crashed)} flips ended in another error than DataError, e.g. {crashed[:3]}"


def test_folder_digest_depends_on_content_and_names_only(tmp_path):
    first, second = committed(tmp_path / "f"), committed(tmp_path / "g")
    assert files.folder_digest(first) == files.folder_digest(second)
    (second / "a.bin").write_bytes(b"other")
    files.write_manifest(second, step=3)
    assert files.folder_digest(first) != files.folder_digest(second)


def test_digest_json_ignores_key_order_only():
    assert documents.digest_json({"a": 1, "b": [1, 2]}) == documents.digest_json({"b": [1, 2], "a": 1})
    assert documents.digest_json({"a": 1, "b": [1, 2]}) != documents.digest_json({"a": 1, "b": [2, 1]})


# new_folder


def test_new_folder_appears_when_the_block_ends(tmp_path):
    with files.new_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "x").read_text() == "1"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [DataError("bad"), KeyboardInterrupt(), RuntimeError("x")])
def test_new_folder_leaves_nothing_after_an_error(tmp_path, error):
    with pytest.raises(type(error)):
        with files.new_folder(tmp_path / "out") as folder:
            (folder / "x").write_text("1")
            raise error
    assert names(tmp_path) == []


def test_new_folder_tells_of_a_full_disk(tmp_path):
    with pytest.raises(StorageError, match="no space left"):
        with files.new_folder(tmp_path / "out"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


def test_new_folder_refuses_an_existing_output(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("1")
    with pytest.raises(StorageError, match="already exists") as caught:
        with files.new_folder(tmp_path / "out"):
            pytest.fail("the block must not run")
    assert str(tmp_path / "out") in str(caught.value)
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["mine"]


def test_new_folder_refuses_an_existing_file(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(StorageError, match="already exists"):
        with files.new_folder(tmp_path / "out"):
            pytest.fail("the block must not run")
    assert (tmp_path / "out").read_text() == "mine"


def test_new_folder_takes_an_empty_one(tmp_path):
    (tmp_path / "out").mkdir()
    with files.new_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("1")
    assert names(tmp_path / "out") == ["x"]


def test_new_folder_overwrites_when_told_to(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("1")
    with files.new_folder(tmp_path / "out", overwrite=True) as folder:
        (folder / "new").write_text("2")
        assert names(tmp_path / "out") == ["old"]
    assert names(tmp_path / "out") == ["new"] and names(tmp_path) == ["out"]


def test_an_error_while_overwriting_keeps_the_old_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("1")
    with pytest.raises(RuntimeError):
        with files.new_folder(tmp_path / "out", overwrite=True):
            raise RuntimeError("x")
    assert names(tmp_path / "out") == ["old"] and names(tmp_path) == ["out"]


# FolderLock

HOLD = """
import sys, time
from embed.files import FolderLock
with FolderLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A child process that holds the lock of tmp_path / 'run'."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path, holder):
    with pytest.raises(StorageError, match=rf"process {holder.pid}\b") as caught:
        with files.FolderLock(tmp_path / "run"):
            pytest.fail("two processes hold the lock")
    assert str(tmp_path / "run") in str(caught.value) and "\n" not in str(caught.value)


def test_a_refused_process_does_not_wipe_the_holders_name(tmp_path, holder):
    for _ in range(3):
        with pytest.raises(StorageError, match=rf"process {holder.pid}\b"):
            files.FolderLock(tmp_path / "run").__enter__()


def test_the_lock_is_freed_when_its_holder_is_killed(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with files.FolderLock(tmp_path / "run"):
        text = (tmp_path / "run" / ".lock").read_text()
        assert f"process {os.getpid()} " in text and str(holder.pid) not in text.replace(str(os.getpid()), "")


def test_the_lock_is_freed_after_an_error_in_the_block(tmp_path):
    with pytest.raises(RuntimeError):
        with files.FolderLock(tmp_path):
            raise RuntimeError("x")
    with files.FolderLock(tmp_path):
        pass


def test_a_lock_where_no_folder_can_be_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        with files.FolderLock(tmp_path / "file" / "run"):
            pytest.fail("no such folder can be made")


# failpoints

FAIL = "from embed.files import failpoint; failpoint('here'); print('alive')"


@pytest.mark.parametrize("path", [".", "..", "a/.."])
def test_an_output_without_a_name_is_refused(path):
    with pytest.raises(UsageError, match="names no output of its own; name a file or a folder in it"):
        files.check_new(path)


def test_a_failpoint_stops_a_process_where_that_is_asked_for():
    command = [sys.executable, "-c", FAIL]
    process = subprocess.Popen(command, env={**os.environ, "EMBED_FAIL_AT": "here:STOP"}, stdout=subprocess.PIPE)
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGSTOP
    finally:
        process.kill()
        process.communicate()


def test_a_failpoint_kills_only_when_named():
    assert run_python(FAIL, EMBED_FAIL_AT="here").returncode == -signal.SIGKILL
    for other in ("there", "her", ""):
        done = run_python(FAIL, EMBED_FAIL_AT=other)
        assert (done.returncode, done.stdout) == (0, "alive\n")


def test_importing_files_loads_no_jax():
    done = run_python(
        "import sys, json, embed.files; print(json.dumps([m for m in ('jax', 'tensorflow') if m in sys.modules]))"
    )
    assert json.loads(done.stdout) == []


def test_a_job_goes_on_in_its_own_folder_only(tmp_path):
    path = tmp_path / "job.json"
    files.begin_job(path, {"seed": 1, "prompts": ["a" * 80]})
    files.begin_job(path, {"seed": 1, "prompts": ["a" * 80]})
    with pytest.raises(
        DataError, match=r"was begun with another seed \(1, now 2\); give the same, or another --output"
    ):
        files.begin_job(path, {"seed": 2, "prompts": ["a" * 80]})
    with pytest.raises(DataError, match="was begun with another prompts; give"):  # too long to be shown
        files.begin_job(path, {"seed": 1, "prompts": ["b" * 80]})
    assert json.loads(path.read_text()) == {"seed": 1, "prompts": ["a" * 80]}
