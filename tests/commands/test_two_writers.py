"""Two commands with one output at the same time: one of them writes it whole, the other says so and loses nothing."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from compiling import FAST

from embed import files
from embed.errors import StorageError

PAIRS = int(os.environ.get("EMBED_WRITER_PAIRS", "2"))
TRAIN = ("train", "--gin_file=tiny.gin", "--gin.TRAIN_STEPS=2", "--run_dir=OUT")
# command -> two command lines with the same output, which is OUT; what one of them leaves differs from what the other does
COMMANDS = {
    "average": (("average", "model", "run", "--weights=1,0", "--method=weighted", "--output=OUT"),
                ("average", "model", "run", "--weights=0,1", "--method=weighted", "--output=OUT")),
    "export": (("export", "model", "OUT"), ("export", "model", "OUT", "--dtype=bfloat16")),
    "convert": (("convert", "exported", "OUT"), ("convert", "exported", "OUT", "--max_length=9")),
    "evaluate": (("evaluate", "a=model", "--suite=suite.json", "--vectors=off", "--output=OUT"),
                 ("evaluate", "b=model", "--suite=suite.json", "--vectors=off", "--output=OUT")),
    "encode": (("encode", "model", "--input=texts.jsonl", "--format=npy", "--output=OUT"),
               ("encode", "model", "--input=texts.jsonl", "--format=jsonl", "--output=OUT")),
    "mine": (("mine", "model", "--pairs", "pairs.jsonl", "--ranks=1:5", "--ceiling=off", "--output=OUT"),
             ("mine", "model", "--pairs", "pairs.jsonl", "--ranks=2:5", "--ceiling=off", "--output=OUT")),
    "prompts": (("curate", "prompts", "--output=OUT"), ("curate", "prompts", "--output=OUT")),
    "train": (TRAIN, (*TRAIN, "--gin.SEED=1")),
}  # fmt: skip
TAKE_LONG = ("convert", "evaluate", "export", "mine")


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory, run_embed, write_suite):
    folder = tmp_path_factory.mktemp("writers") / "work"
    shutil.copytree(trained, folder)
    rows = [{"query": f"red river {i}", "positive": f"deep stone {i}"} for i in range(20)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": row["query"]}) + "\n" for row in rows))
    write_suite(folder, [{"question": row["query"], "answer": row["positive"]} for row in rows])
    done = run_embed(folder, "export", "model", "exported")
    assert done.returncode == 0, done.stderr
    return folder


def ends_together(folder: pathlib.Path, commands, output: str) -> list[tuple[int, str, str]]:
    """Starts the commands at once; returns each one's exit code and what it printed."""
    env = {**os.environ, "XLA_FLAGS": FAST}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = []
    try:
        for line in commands:
            words = [word.replace("OUT", output) for word in line]
            running.append(
                subprocess.Popen([sys.executable, "-m", "embed", *words], cwd=folder, env=env, text=True, **pipes)
            )
        outputs = [p.communicate(timeout=1000) for p in running]
        return [(p.returncode, *output) for p, output in zip(running, outputs)]
    finally:
        for p in running:
            p.kill()
            p.wait()


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=pytest.mark.long) if name in TAKE_LONG else name for name in COMMANDS]
)
def test_one_writer_wins_and_the_other_is_refused(folder, command):
    for number in range(PAIRS):
        output = f"{command}-{number}"
        ends = ends_together(folder, COMMANDS[command], output)
        codes = sorted(code for code, _, _ in ends)
        assert codes in ([0, 65], [0, 74]), ends
        refused = next(err for code, _, err in ends if code)
        assert refused.count("\n") == 1 and refused.startswith("embed: ") and output in refused, refused
        whole = folder / output
        if (whole / files.MANIFEST).is_file():
            files.verify_manifest(whole)
        if command == "train":
            assert files.committed_steps(whole / "checkpoints") == [2]
        left = [p.name for p in folder.iterdir() if output in p.name and p.name != output]
        assert all(".new-" in name for name in left), left
        for kept in left:  # a result that came second is kept whole
            if (folder / kept / files.MANIFEST).is_file():
                files.verify_manifest(folder / kept)


def test_a_second_writer_is_refused_while_the_first_works(tmp_path):
    with files.new_folder(tmp_path / "out") as temporary:
        (temporary / "a").write_text("first")
        with pytest.raises(StorageError, match=r"out: in use by process \d+ on .*; wait for it to end"):
            with files.new_folder(tmp_path / "out"):
                pass
    assert (tmp_path / "out/a").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_appears_meanwhile_is_left_and_the_result_is_kept(tmp_path):
    with pytest.raises(StorageError, match=r"out: appeared while the command worked .*kept as .*out\.new-\d+"):
        with files.new_folder(tmp_path / "out") as temporary:
            (temporary / "a").write_text("ours")
            (tmp_path / "out").mkdir()
            (tmp_path / "out/b").write_text("theirs")
    assert (tmp_path / "out/b").read_text() == "theirs"
    (kept,) = tmp_path.glob("out.new-*")
    assert (kept / "a").read_text() == "ours"
    with pytest.raises(StorageError, match="file: appeared while the command worked"):
        with files.new_file(tmp_path / "file") as temporary:
            temporary.write_text("ours")
            (tmp_path / "file").write_text("theirs")
    assert (tmp_path / "file").read_text() == "theirs"
    assert next(tmp_path.glob("file.new-*")).read_text() == "ours"


def test_a_lock_leaves_nothing_and_frees_what_it_made(tmp_path):
    with files.FolderLock(tmp_path / "a/b"):
        assert (tmp_path / "a/b/.lock").is_file()
        with pytest.raises(StorageError, match="in use by process"):
            files.FolderLock(tmp_path / "a/b").__enter__()
    assert not (tmp_path / "a").exists()
    (tmp_path / "c").mkdir()
    with files.FolderLock(tmp_path / "c"):
        (tmp_path / "c/kept").write_text("")
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["kept"]
