"""`embed encode` as a user runs it: killed and run again, on two hosts, in every form."""

import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from compiling import FAST

from embed import files
from embed.commands.main import main
from embed.inference import bulk
from embed.workflows import encode as workflow


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    """A folder with a small trained model and files of texts."""
    folder = tmp_path_factory.mktemp("encode") / "work"
    shutil.copytree(trained, folder)
    choose = random.Random(3)
    words = ["red", "green", "river", "stone", "engine", "paper", "winter", "quick"]
    for name, count in (("few", 50), ("many", 6_000)):
        with open(folder / f"{name}.jsonl", "w") as f:
            for i in range(count):
                text = " ".join(choose.choices(words, k=choose.randint(1, 9)))
                f.write(json.dumps({"id": f"text-{i}", "text": f"{text} {i}"}) + "\n")
    return folder


def files_of(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in (bulk.SUMMARY, ".lock")}


def encode(run_embed, folder, output, *more, **environment):
    return run_embed(folder, "encode", "model", "--input=few.jsonl", f"--output={output}", *more, **environment)


@pytest.mark.slow
def test_vectors_are_those_of_the_api(folder, run_embed):
    done = encode(run_embed, folder, "out", "--shard_size=20", "--prompt=query", "--dims=64")
    assert done.returncode == 0, done.stderr
    ids, vectors = bulk.read(folder / "out")
    assert ids == [f"text-{i}" for i in range(50)]
    import embed

    texts = [json.loads(line)["text"] for line in (folder / "few.jsonl").read_text().splitlines()]
    cut = []
    model = embed.load(folder / "model", overflow=lambda n, total: cut.append(n / total))
    wanted = model.encode(texts, prompt="query", dims=64)
    assert 0 < cut[0] < 1
    assert f"50 texts in 3 shards, {cut[0]:.1%} cut at 56 tokens" in done.stdout
    np.testing.assert_allclose(vectors, wanted, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["encode.before_commit_1", "encode.after_commit_1"])
def test_killed_and_run_again_gives_the_same_files(place, folder, run_embed):
    name = place.replace(".", "-")
    whole = encode(run_embed, folder, f"whole-{name}", "--shard_size=20", "--format=npy")
    assert whole.returncode == 0, whole.stderr
    killed = encode(run_embed, folder, name, "--shard_size=20", "--format=npy", EMBED_FAIL_AT=place)
    assert killed.returncode == -signal.SIGKILL
    again = encode(run_embed, folder, name, "--shard_size=20", "--format=npy")
    assert again.returncode == 0, again.stderr
    kept = 20 if place.endswith("before_commit_1") else 40
    assert f"resuming: {kept} texts were done before" in again.stdout
    assert files_of(folder / name) == files_of(folder / f"whole-{name}")


@pytest.mark.long
@pytest.mark.slow
def test_thousands_of_texts_killed_at_any_time(folder, run_embed):
    """SIGKILL at two moments of the clock; nothing is encoded twice beyond one shard."""
    command = ("encode", "model", "--input=many.jsonl", "--shard_size=600", "--format=npy")
    whole = run_embed(folder, *command, "--output=whole")
    assert whole.returncode == 0, whole.stderr
    env = {**os.environ, "XLA_FLAGS": FAST}
    encoded = 0
    for seconds in (10, 14):
        process = subprocess.Popen(
            [sys.executable, "-m", "embed", *command, "--output=killed"],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
    before = {p.name: p.stat().st_mtime_ns for p in (folder / "killed").glob("part-?????.json")}
    again = run_embed(folder, *command, "--output=killed")
    assert again.returncode == 0, again.stderr
    after = {p.name: p.stat().st_mtime_ns for p in (folder / "killed").glob("part-?????.json")}
    assert all(after[name] == when for name, when in before.items()), "a finished shard was encoded again"
    encoded = sum(1 for name in after if name not in before)
    assert encoded == 10 - len(before)
    assert files_of(folder / "killed") == files_of(folder / "whole")


def state(folder) -> dict[str, tuple]:
    """When each file was written and what it holds; a lock says who held it last."""
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.iterdir()) if p.name != ".lock"}


@pytest.mark.slow
def test_a_finished_command_writes_nothing_and_a_damaged_shard_is_encoded_again(folder, run_embed):
    given = ("--shard_size=20", "--format=jsonl")
    assert encode(run_embed, folder, "finished", *given).returncode == 0
    whole = state(folder / "finished")
    shutil.copy(folder / "few.jsonl", folder / "renamed.jsonl")  # the same content under another name is the same input
    done = encode(run_embed, folder, "finished", *given, "--input=renamed.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "finished: was finished before, and every file in it is whole; nothing was written\n"
    assert state(folder / "finished") == whole
    path = folder / "finished" / "part-00001.jsonl"
    path.write_bytes(path.read_bytes().replace(b"0.0", b"0.1", 1))
    done = encode(run_embed, folder, "finished", *given)
    assert done.returncode == 0, done.stderr
    assert "part-00001.jsonl is damaged: its sha256 differs; its texts are encoded again" in done.stderr
    assert {name: content for name, (_, content) in state(folder / "finished").items()} == {
        name: content for name, (_, content) in whole.items()
    }


@pytest.mark.slow
def test_one_command_at_a_time_writes_to_a_folder(folder, run_embed):
    with files.FolderLock(folder / "held"):
        done = encode(run_embed, folder, "held")
    assert done.returncode == 74 and "in use by" in done.stderr
    assert not list((folder / "held").glob("part*"))


def test_a_large_input_is_told_of_while_it_is_checked(monkeypatch, capsys):
    monkeypatch.setattr(workflow, "_CHECKED_EVERY", 0.0)
    progress = workflow._Checked(pathlib.Path("few.jsonl"))
    progress(8192)
    progress(10)
    assert capsys.readouterr().out == "few.jsonl: 8,192 texts checked\nfew.jsonl: 8,202 texts checked\n"


@pytest.mark.slow
def test_another_file_of_the_same_name_is_refused(folder, run_embed):
    (folder / "one").mkdir()
    (folder / "two").mkdir()
    rows = [json.dumps({"text": f"red river {i}"}) + "\n" for i in range(9)]
    (folder / "one" / "texts.jsonl").write_text("".join(rows))
    (folder / "two" / "texts.jsonl").write_text("".join([*rows[:4], rows[4].replace("red", "blue"), *rows[5:]]))
    assert encode(run_embed, folder, "named", "--input=one/texts.jsonl").returncode == 0
    before = state(folder / "named")
    done = encode(run_embed, folder, "named", "--input=two/texts.jsonl")
    assert done.returncode == 65 and "named: was begun with another input; give the same" in done.stderr
    assert state(folder / "named") == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"text": "a"}, {"text": "b", "id": "x\ud800"}], "bad.jsonl:101: field 'id' holds a lone surrogate"),
        ([{"text": "a", "id": "text-7"}, {"text": "b"}], "bad.jsonl:100: the id 'text-7' is that of bad.jsonl:8 too"),
        ([{"text": "a", "id": "99"}, {"text": " ", "id": "y"}], "bad.jsonl:101: field 'text' is empty"),
    ],
)
def test_a_bad_record_at_the_end_leaves_no_folder(folder, run_embed, rows, message):
    good = [{"id": f"text-{i}", "text": f"red river {i}"} for i in range(99)]
    (folder / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*good, *rows]))
    done = encode(run_embed, folder, "never", "--input=bad.jsonl", "--shard_size=10")
    assert done.returncode == 65 and message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (folder / "never").exists()


@pytest.mark.slow
def test_two_hosts_share_a_file(folder, run_embed):
    done = encode(run_embed, folder, "one-host", "--shard_size=15", "--format=jsonl")
    assert done.returncode == 0, done.stderr
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    processes = []
    for number in range(2):
        env = {
            **os.environ,
            "XLA_FLAGS": FAST,
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(number),
        }
        command = ["encode", "model", "--input=few.jsonl", "--output=two-hosts", "--shard_size=15", "--format=jsonl"]
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "embed", *command],
                cwd=folder,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [p.communicate(timeout=1000)[0] for p in processes]
    assert all(p.returncode == 0 for p in processes), outputs
    assert files_of(folder / "two-hosts") == files_of(folder / "one-host")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["--input=none.jsonl"], 65, "none.jsonl: no such file"),
        ([f"--input={'x' * 300}"], 65, "cannot be read .File name too long"),
        ([f"--output={'x' * 300}"], 74, "cannot write .File name too long"),
        (["--output=few.jsonl/out"], 74, "cannot write .Not a directory"),
        (["--output=few.jsonl"], 74, "few.jsonl: is not a folder"),
        (["--output=model"], 74, "model: is not empty and holds no encoding job"),
        (["--input=model"], 65, "model: not a file, and it is read twice"),
        (["--text_field=txt"], 65, "few.jsonl:1: no field 'txt'; did you mean 'text'"),
        (["--format=csv"], 64, "--format=csv; known: jsonl, npy, parquet"),
        (["--quantize=int4"], 64, "--quantize=int4; did you mean 'int8'"),
        (["--dims=9999"], 65, "this model gives 1 to 256"),
        (["--prompt=qery"], 78, "no prompt is called 'qery'"),
        (["--shard_size=0"], 64, "expected an integer >= 1"),
        (["--dtype=float16"], 78, "float16.*overflows"),
    ],
)
def test_bad_arguments_are_one_line_and_leave_nothing(arguments, code, message, folder, run_embed):
    import re

    done = encode(run_embed, folder, "bad", *arguments)
    assert done.returncode == code, done.stderr
    assert re.search(message, done.stderr) and len(done.stderr.strip().splitlines()) == 1
    assert not (folder / "bad").exists()


SERVED = ["--endpoint=http://127.0.0.1:9/v1", "--model=m"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["model"], "give --input, a file of texts, or --gin_file"),
        (["model", "--input=a.jsonl", "--gin_file=a.gin"], "give --input, a file of texts, or --gin_file"),
        (["--input=a.jsonl"], "give a MODEL, or --endpoint and --model where one is served"),
        (["model", "--input=a.jsonl", *SERVED], "give a MODEL, or --endpoint and --model where one is served"),
        (["--input=a.jsonl", SERVED[0]], "--endpoint needs --model, the model's name there"),
        (["--input=a.jsonl", "--model=m"], "give a MODEL, or --endpoint and --model"),
        (["model", "--input=a.jsonl", "--model=m"], "--model has no effect with a MODEL; leave it out"),
        (["model", "--input=a.jsonl", "--max_requests=5"], "--max_requests has no effect with a MODEL; leave it out"),
        (["model", "--gin_file=a.gin", "--batch_size=5"], "--batch_size has no effect with a MODEL; leave it out"),
        (["--input=a.jsonl", *SERVED, "--dtype=float32"], "--dtype has no effect with --endpoint; leave it out"),
        (["--input=a.jsonl", *SERVED, "--max_length=9"], "--max_length has no effect with --endpoint; leave it out"),
        (["--input=a.jsonl", *SERVED, "--distributed"], "--distributed has no effect with --endpoint; leave it out"),
        (
            ["model", "--input=a.jsonl", "--query_prompt=query"],
            "--query_prompt has no effect with --input; leave it out",
        ),
        (["model", "--gin_file=a.gin", "--prompt=query"], "--prompt has no effect with --gin_file; leave it out"),
        (["model", "--input=a.jsonl", "--gin.A=1"], "--gin.NAME=VALUE has no effect with --input; leave it out"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["encode", *arguments, f"--output={tmp_path / 'out'}"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 64 and len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "out").exists()
