"""Copies of places in emulated buckets: equal to the bucket, copied back whole, and never in part for who reads there."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from bucket_places import put, step, tree, write

from embed import files
from embed.arrays import open_arrays
from embed.buckets import addresses, client, copies, copy
from embed.buckets.addresses import parse
from embed.errors import DataError


def test_a_folder_a_file_and_a_pattern_are_copied(bucket):
    put(bucket, a="1", b__c="2", b__d="3")
    assert tree(copies.local(bucket)) == {"a": "1", "b/c": "2", "b/d": "3"}
    copies.finish()
    assert copies.local(f"{bucket}/a").read_text() == "1"
    copies.finish()
    path = copies.local(f"{bucket}/b/*")
    assert str(path).endswith("/b/*") and tree(path.parent) == {"c": "2", "d": "3"}
    assert copies.local("plain/path") == pathlib.Path("plain/path")


def test_what_has_changed_there_changes_here(bucket):
    put(bucket, a="1", b="2", c="3")
    copies.local(bucket)
    copies.finish()
    put(bucket, a="new", d="4")
    client.remove(parse(f"{bucket}/b"))
    folder = copies.local(bucket)
    assert tree(folder) == {"a": "new", "c": "3", "d": "4"}
    copies.finish()
    (folder / "c").write_text("damaged")
    (folder / "left").write_text("by a process that was killed")
    client.remove(parse(f"{bucket}/d"))
    assert tree(copies.local(bucket)) == {"a": "new", "c": "3", "left": "by a process that was killed"}


def test_reading_removes_nothing(bucket, contents):
    """Hidden objects, an upload that another machine has not finished, and a step that it is writing."""
    put(bucket, **{".gitattributes": "x", "output.log": "x", ".cache__x": "x", "a": "1"})
    put(bucket, out__x="1", **{"out__.uploading": ""})
    put(bucket, run__checkpoints__4__params__x="1", **{"run__checkpoints__4__model.json": "{}"})
    put(bucket, run__checkpoints__8__params__x="a host's blocks of a step whose other files are to come")
    there = contents(bucket)
    for address in (bucket, f"{bucket}/out", f"{bucket}/run"):
        shutil.rmtree(addresses.cache_folder(), ignore_errors=True)  # on a machine each
        copies.local(address)
        copies.push()
        copies.finish()
    assert contents(bucket) == there
    assert not (copies.local(bucket) / ".gitattributes").exists()


def test_what_was_made_stays_when_the_bucket_is_looked_at_again(bucket):
    put(bucket, a="1", b="2")
    folder = copies.local(bucket)
    write(folder, a="changed", new="3")
    client.remove(parse(f"{bucket}/b"))
    copies.of(folder).pull()
    assert tree(folder) == {"a": "changed", "new": "3"}


def test_what_has_not_changed_is_not_copied_again(bucket, monkeypatch):
    put(bucket, a="1", b="2")
    copies.local(bucket)
    copies.finish()
    monkeypatch.setattr(client, "download", pytest.fail)
    monkeypatch.setattr(client, "upload", pytest.fail)
    assert tree(copies.local(bucket)) == {"a": "1", "b": "2"}
    copies.finish()


def test_changes_go_back(bucket, contents):
    put(bucket, a="1", b="2")
    folder = copies.local(bucket)
    write(folder, a="changed", c__d="new", **{".hidden": "no", "output.log": "no"})
    (folder / "b").unlink()
    copies.finish()
    assert contents(bucket) == {"a": b"changed", "c/d": b"new"}


def test_a_command_that_ended_before_its_hosts_met_does_not_keep_the_next_one_from_writing(bucket, contents):
    copies.wait_for_hosts()
    write(copies.local(bucket), a="1")
    copies.push()
    assert contents(bucket) == {}
    copies.finish()
    write(copies.local(bucket), b="2")
    copies.push()
    assert "b" in contents(bucket)


def test_an_output_appears_whole(bucket, contents, monkeypatch):
    folder = copies.local(f"{bucket}/model")
    assert not folder.exists()
    write(folder, a="1", params__x="2")
    files.write_manifest(folder)
    order, upload = [], client.upload
    monkeypatch.setattr(client, "upload", lambda path, to: (order.append(path.name), upload(path, to))[1])
    copies.finish()
    assert set(contents(f"{bucket}/model")) == {"a", "params/x", "MANIFEST.json"}
    assert order[-1] == "MANIFEST.json"
    copies.local(f"{bucket}/model")
    files.verify_manifest(folder)


def test_an_index_is_replaced_when_its_files_are_there_and_before_the_old_ones_go(bucket, contents, monkeypatch):
    put(bucket, **{"index.json": "of 0", "segment-00000__x": "0"})
    folder = copies.local(bucket)
    write(folder, **{"index.json": "of 1", "segment-00001__a": "1", "segment-00001__b": "2"})
    (folder / "segment-00000" / "x").unlink()
    seen, upload = [], client.upload

    def watched(path, to):
        seen.append((path.name, set(contents(bucket))))
        return upload(path, to)

    monkeypatch.setattr(client, "upload", watched)
    copies.finish()
    assert seen[-1] == ("index.json", {"segment-00000/x", "segment-00001/a", "segment-00001/b", "index.json"})
    assert contents(bucket) == {"index.json": b"of 1", "segment-00001/a": b"1", "segment-00001/b": b"2"}


def test_an_output_whose_upload_was_killed_is_ignored_and_replaced(bucket, contents, capsys):
    program = (
        "from embed.buckets import copies; import pathlib, sys; folder = copies.local(sys.argv[1]); folder.mkdir(parents=True);"
        "[(folder / str(i)).write_text(str(i)) for i in range(5)]; copies.finish()"
    )
    environment = {**os.environ, "EMBED_FAIL_AT": "buckets.after_upload_2"}
    killed = subprocess.run([sys.executable, "-c", program, f"{bucket}/out"], env=environment)
    assert killed.returncode == -9
    assert copy.UPLOADING in contents(f"{bucket}/out")
    shutil.rmtree(addresses.cache_folder())  # another machine
    folder = copies.local(f"{bucket}/out")
    assert not folder.exists() and "an upload that was not finished" in capsys.readouterr().out
    write(folder, x="1")
    copies.finish()
    assert contents(f"{bucket}/out") == {"x": b"1"}


def test_arrays_of_checkpoints_come_when_they_are_verified(bucket):
    folder = copies.local(f"{bucket}/run")
    for number in (4, 8):
        step(folder, number)
    copies.finish()
    for path in folder.rglob("x"):
        path.unlink()  # another machine
    folder = copies.local(f"{bucket}/run")
    arrays = lambda: sorted(p.relative_to(folder).parts[1] for p in folder.rglob("x"))  # noqa: E731
    assert files.committed_steps(folder / "checkpoints") == [4, 8] and arrays() == []
    with contextlib.suppress(DataError):  # they are none
        open_arrays(folder / "checkpoints" / "4")
    assert arrays() == ["4"]
    files.verify_manifest(folder / "checkpoints" / "8", "params")
    assert arrays() == ["4", "8"]
    copies.finish()
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"4", "8"}


def test_a_run_goes_out_step_by_step(bucket, contents, monkeypatch):
    folder = copies.local(f"{bucket}/run")
    with copies.locked(folder):
        step(folder, 4)
        write(
            folder,
            **{
                "metrics.jsonl": "1\n",
                "checkpoints__8__params__x": "half",
                "checkpoints__9.orbax-checkpoint-tmp__x": "no",
            },
        )
        copies.push()
        there = contents(f"{bucket}/run")
        assert {name.partition("/params")[0] for name in there} == {
            "checkpoints/4",
            "checkpoints/4/MANIFEST.json",
            "checkpoints/4/model.json",
            "metrics.jsonl",
        }
        step(folder, 8)
        order, remove, upload = [], client.remove, client.upload
        monkeypatch.setattr(client, "remove", lambda at: (order.append(f"-{at.path}"), remove(at))[1])
        monkeypatch.setattr(client, "upload", lambda path, to: (order.append(f"+{to.path}"), upload(path, to))[1])
        for path in sorted((folder / "checkpoints" / "4").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (folder / "checkpoints" / "4").rmdir()
        copies.push()
    new = order.index(next(o for o in order if o.endswith("8/MANIFEST.json")))
    old = order.index(next(o for o in order if o.endswith("4/MANIFEST.json")))
    assert all(o.startswith("+") for o in order[: new + 1]) and new < old
    assert old < order.index(next(o for o in order if o.endswith("4/params/d/x")))
    assert not [name for name in contents(f"{bucket}/run") if name.startswith("checkpoints/4/")]


def test_hosts_put_their_files_together(bucket, contents, monkeypatch, tmp_path):
    """Two hosts, which have a disk each, write parts of a step."""
    first = copies.local(f"{bucket}/run")
    monkeypatch.setenv("EMBED_BUCKET_CACHE", str(tmp_path / "another"))
    other = copy.Copy(parse(f"{bucket}/run"))
    write(first / "checkpoints" / "4", params__a="1", both="same")
    write(other.path / "checkpoints" / "4", params__b="2", both="same")
    other.publish(other.path / "checkpoints" / "4", 1, files.entries_of(other.path / "checkpoints" / "4"))
    one = copies.of(first)
    entries = one.collect(first / "checkpoints" / "4", [1])
    files.write_manifest(first / "checkpoints" / "4", entries, trees={"params": {}})
    one.push()
    other.await_manifest(other.path / "checkpoints" / "4")
    assert set(contents(f"{bucket}/run")) == {
        f"checkpoints/4/{n}" for n in ("params/a", "params/b", "both", "MANIFEST.json")
    }
    for each in (one, other):
        step_folder = each.path / "checkpoints" / "4"
        manifest = json.loads((step_folder / "MANIFEST.json").read_text())
        each.complete([f"checkpoints/4/{name}" for name in manifest["files"]])
        assert tree(step_folder)["params/a"] == "1" and tree(step_folder)["params/b"] == "2"
    for path in (first / "checkpoints" / "4").rglob("*"):
        if path.is_file():
            path.unlink()
    (first / "checkpoints" / "4" / "params").rmdir()
    (first / "checkpoints" / "4").rmdir()
    one.push()
    assert contents(f"{bucket}/run") == {}
    other.is_own = False
    other.close()


def test_parts_of_a_preparation_are_sent_before_what_says_that_they_are_whole(bucket, contents, monkeypatch, tmp_path):
    put(bucket, vocabulary="v")
    main = copies.local(bucket)
    monkeypatch.setenv("EMBED_BUCKET_CACHE", str(tmp_path / "another"))
    other = copy.Copy(parse(bucket))
    other.pull()
    parts = {".t.parts__part-000001.json": "{}", ".t.parts__part-000001.records": "x", ".t.parts__done-1-of-2": ""}
    write(other.path, more="not sent", **parts)
    order, upload = [], client.upload
    monkeypatch.setattr(client, "upload", lambda path, to: (order.append(path.name), upload(path, to))[1])
    other.send()
    assert order == ["part-000001.records", "part-000001.json", "done-1-of-2"]
    assert "more" not in contents(bucket)
    copies.pull(main / ".t.parts")
    assert (main / ".t.parts" / "part-000001.records").read_text() == "x"
    for path in (main / ".t.parts").iterdir():
        path.unlink()
    (main / ".t.parts").rmdir()
    copies.push()
    assert set(contents(bucket)) == {"vocabulary"}
    other.is_own = False
    other.close()
