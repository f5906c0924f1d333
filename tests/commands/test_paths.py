"""Every command with paths that hold '..', spaces, quotes, a line feed, the marks of patterns, letters of other scripts, and a
slash at the end. Libraries below take some of these for patterns, URLs or the end of a line."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from compiling import FAST

from embed.inference import bulk

NAME = "ü 語 {a,b} *? 'q' \"d\" #5%20 @2\n$HOME ~;&"
# All commands in one process, which imports everything once. A command ends with SystemExit.
SCRIPT = """
import json, sys
from embed.commands.main import main
for line in json.loads(sys.argv[1]):
    try:
        main(line)
    except SystemExit as e:
        code = e.code
    print("\\nEXIT", code, line[0], flush=True)
    print("\\nEXIT", code, line[0], file=sys.stderr, flush=True)
"""


def run_all(folder, lines: list[list[str]]) -> None:
    """Runs the command lines in `folder` and checks that each ends with 0."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(lines)]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "XLA_FLAGS": FAST}, capture_output=True, text=True, timeout=1000
    )
    ended = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("EXIT")]
    assert ended == [["0", line[0]] for line in lines], done.stdout[-2000:] + done.stderr[-3000:]
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


@pytest.fixture(scope="module")
def strange(trained, write_suite, tmp_path_factory):
    """(folder, path): a working folder inside one of a strange name, and path(name), which leads out of it and in again."""
    parent = tmp_path_factory.mktemp("paths") / NAME
    (parent / "in [1]").mkdir(parents=True)
    for item in trained.iterdir():
        (shutil.copytree if item.is_dir() else shutil.copy)(item, parent / item.name)
    rows = [json.loads(line) for line in (parent / "first.jsonl").read_text().splitlines()]
    write_suite(parent / "tests", rows[:12])
    path = lambda name: f"../in [1]/.././../{NAME}/{name}"  # noqa: E731
    return parent / "in [1]", path


def recipe(folder, path) -> None:
    """Writes the recipe with all paths of its data strange too."""
    text = (folder.parent / "tiny.gin").read_text()
    for name in ("'data'", "'data/vocabulary.model'", "'first.jsonl'", "'second.jsonl'"):
        inside = name.strip("'").replace("data", "other data", 1) if "data" in name else name.strip("'")
        text = text.replace(f"= {name}", f"= {path(inside)!r}")
    (folder.parent / "strange.gin").write_text(text)


@pytest.mark.slow
def test_data_is_prepared_and_a_model_trained(strange):
    folder, path = strange
    recipe(folder, path)
    gin = f"--gin_file={path('strange.gin')}"
    run_all(
        folder,
        [
            ["prepare", gin],
            ["train", gin, f"--run_dir={path('run 2/')}", "--gin.TRAIN_STEPS=2"],
            ["average", path("run 2/"), f"--output={path('soup/')}"],
            ["average", path("soup"), path("soup/"), f"--output={path('soup 2')}"],
            ["compile", gin, "--steps=encode", "--topology=here", f"--output={path('needs.md')}"],
        ],
    )
    assert (folder.parent / "soup" / "model.json").is_file() and (folder.parent / "needs.json").is_file()
    assert (folder.parent / "other data" / "vocabulary.model").is_file()
    assert list((folder.parent / "run 2" / "tensorboard").iterdir())


@pytest.mark.slow
def test_a_model_is_exported_verified_and_converted(strange):
    folder, path = strange
    run_all(
        folder,
        [
            ["export", path("model/"), "st/"],
            ["export", path("model"), path("program"), "--format=stablehlo"],
            ["verify", path("program/")],
            ["convert", path("in [1]/st/"), "again/"],
        ],
    )
    assert (folder / "again" / "model.json").is_file()


@pytest.mark.slow
def test_texts_are_encoded_mined_searched_and_scored(strange):
    folder, path = strange
    rows = [json.loads(line) for line in (folder.parent / "first.jsonl").read_text().splitlines()]
    texts = [{"id": row["question"], "text": row["answer"]} for row in rows]
    (folder.parent / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    fields = ["--query_field=question", "--target_field=answer", "--negatives_field=wrong"]
    mine = ["mine", path("model"), f"--pairs={path('first.jsonl')}", *fields, "--ranks=1:9", "--ceiling=off"]
    encode = ["encode", path("model/"), f"--input={path('texts.jsonl')}"]
    score = ["evaluate", path("model"), "--suite", path("tests/suite.json")]
    run_all(
        folder,
        [
            *([*encode, f"--format={f}", f"--output={path(f'as {f}/')}"] for f in ("npy", "jsonl", "parquet")),
            [*encode, "--format=npy", f"--output={path('as npy/')}"],
            [*mine, "--output=mined/", "--corpus", path("texts.jsonl")],
            ["search", path("model"), f"--corpus={path('texts.jsonl')}", "red river"],
            [*score, f"--output={path('scores/')}", f"--vectors={path('kept/')}"],
            [
                "evaluate",
                "--compare",
                path("scores/results.json"),
                path("scores/results.json"),
                f"--output={path('both/')}",
            ],
            ["curate", "prompts", f"--output={path('prompts/')}"],
        ],
    )
    for form in ("npy", "jsonl", "parquet"):
        assert bulk.read(folder.parent / f"as {form}")[0] == [row["id"] for row in texts]
    assert (folder / "mined" / "first.jsonl.gz").is_file()
