"""launch/embedding_gemma.sh, with a stand-in for `embed` that notes what it is asked for."""

import ast
import importlib
import os
import pathlib
import shlex
import subprocess

import pytest

from embed.commands import main

ROOT = pathlib.Path(__file__).resolve().parents[2]
STAND_IN = """#!/usr/bin/env bash
printf '%q ' "$@" >>calls; echo >>calls
case "$1 $*" in *"$FAIL"*) exit 75 ;; esac
[ "$1" != export ] || { mkdir -p "$3"; touch "$3/model.json"; }
[ "$1" != encode ] || for word in "$@"; do case "$word" in --output=*)
    folder="${word#*=}/query"
    mkdir -p "$folder"
    printf "\\x93NUMPY\\x01\\x00v\\x00{'descr': '<f4', 'fortran_order': False, 'shape': (70, 256), }" >"$folder/vectors.npy"
esac; done
"""
STAGES = ["causal", "adapted", "prefinetuned", "finetuned", "distilled", "int4"]


@pytest.fixture
def recipe(tmp_path):
    """Runs the script in a folder with two files of pairs, and returns the commands it gave."""
    (tmp_path / "pairs").mkdir()
    for name in "ab":
        (tmp_path / "pairs" / f"{name}.jsonl.gz").touch()
    stand_in = tmp_path / "embed"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)

    def run(*given, fail="never", **environment):
        (tmp_path / "calls").unlink(missing_ok=True)
        environment = {"EMBED": str(stand_in), "FAIL": fail, "PATH": "/usr/bin:/bin", **environment}
        script = [str(ROOT / "launch" / "embedding_gemma.sh"), *given]
        done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
        calls = tmp_path / "calls"
        return done, [shlex.split(x) for x in calls.read_text().splitlines()] if calls.exists() else []

    return run


def value(call, name):
    """Returns what follows `name` in a command."""
    return next(a.removeprefix(name) for a in call if a.startswith(name))


def test_the_commands_are_those_that_embed_knows(recipe):
    done, calls = recipe("teacher", "pairs", "out", "suite.json", "3")
    assert done.returncode == 0, done.stderr
    order = ["train"] * 3 + ["mine", "train", "encode", "train", "train", "export", "evaluate"]
    assert [c[0] for c in calls] == order
    for name, *given in calls:
        parser = main._Parser(allow_abbrev=False)
        importlib.import_module(f"embed.commands.{name}").add_arguments(parser)
        arguments = parser.parse_args([a for a in given if not a.startswith("--gin.")])
        for path in getattr(arguments, "gin_file", None) or ():
            assert pathlib.Path(path).is_file()
    trained = [c for c in calls if c[0] == "train"]
    assert all("--gin.SEED=3" in c for c in trained) and [value(c, "--run_dir=out/") for c in trained] == STAGES


def test_every_stage_starts_from_the_one_before_and_all_are_scored(recipe):
    _, calls = recipe("teacher", "pairs", "out", "suite.json")
    trained = {value(c, "--run_dir=out/"): c for c in calls if c[0] == "train"}
    starts = {name: value(call, "--gin.START=") for name, call in trained.items() if name != "causal"}
    assert starts == {
        "adapted": "'out/causal'", "prefinetuned": "'out/adapted'", "finetuned": "'out/prefinetuned'",
        "distilled": "'out/finetuned'", "int4": "'out/distilled'",
    }  # fmt: skip
    # The map leads to the size of the vectors that the teacher gave.
    assert [value(trained[name], "--gin.PROJECTION=") for name in ("distilled", "int4")] == ["(384, 256)"] * 2
    mined, encoded, scored = (next(c for c in calls if c[0] == name) for name in ("mine", "encode", "evaluate"))
    assert mined[2:5] == ["--pairs", "pairs/a.jsonl.gz", "pairs/b.jsonl.gz"] and encoded[1] == "teacher"
    assert [name for name in scored[1:] if "=" in name and not name.startswith("--")] == [
        f"{name}=out/{name}" for name in [*STAGES, "packed"]
    ]


def test_files_are_chosen_and_some_of_them_get_no_negatives(recipe):
    prompts = "{'a': ('code retrieval', 'document')}"
    done, calls = recipe("teacher", "pairs", "out", FILES="b a", PLAIN="a", PROMPTS=prompts)
    assert done.returncode == 0, done.stderr
    trained = {value(c, "--run_dir=out/"): c for c in calls if c[0] == "train"}
    pairs = {name: ast.literal_eval(value(call, "--gin.PAIRS=")) for name, call in trained.items()}
    assert pairs["causal"] == pairs["prefinetuned"] == ("pairs/b.jsonl.gz", "pairs/a.jsonl.gz")
    assert pairs["finetuned"] == pairs["int4"] == ("out/mined/*.jsonl.gz", "pairs/a.jsonl.gz")
    assert next(c for c in calls if c[0] == "mine")[2:4] == ["--pairs", "pairs/b.jsonl.gz"]
    for name in ("prefinetuned", "finetuned", "distilled", "int4"):
        assert value(trained[name], "--gin.PROMPTS=") == prompts
    done, calls = recipe("teacher", "pairs", "out", FILES="c")
    assert done.returncode == 66 and "pairs/c.jsonl.gz: no such file" in done.stderr and not calls


@pytest.mark.parametrize(
    ("files", "plain", "message"),
    [
        ("a b", "c", "PLAIN: 'c' is not among the files that are used: a b"),
        ("a", "b", "PLAIN: 'b' is not among the files that are used: a"),
        ("", "a b", "PLAIN names all files; leave one that negatives are mined for"),
    ],
)
def test_files_without_negatives_are_some_of_those_that_are_used(recipe, files, plain, message):
    done, calls = recipe("teacher", "pairs", "out", FILES=files, PLAIN=plain)
    assert done.returncode == 64 and done.stderr == f"embed: {message}\n" and not calls


def test_what_is_made_of_the_last_stage_is_kept_unless_it_has_new_steps(recipe, tmp_path):
    made = [tmp_path / "out" / "packed" / "model.json", tmp_path / "out" / "scores" / "results.json"]
    for file in made:
        file.parent.mkdir(parents=True)
        file.touch()
    checkpoints = tmp_path / "out" / "int4" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for age, again in ((-60, set()), (60, {"export", "evaluate"})):
        time = made[0].stat().st_mtime + age
        os.utime(checkpoints, (time, time))
        done, calls = recipe("teacher", "pairs", "out", "suite.json")
        assert done.returncode == 0 and {c[0] for c in calls} & {"export", "evaluate"} == again


def test_without_a_suite_nothing_is_scored_and_a_trial_has_few_steps(recipe):
    done, calls = recipe("teacher", "pairs", "out", STEPS="2")
    assert "evaluate" not in [c[0] for c in calls] and done.returncode == 0
    assert all("--gin.TRAIN_STEPS=2" in c for c in calls if c[0] == "train")


def test_a_stage_that_is_preempted_ends_the_script_and_the_next_try_goes_on(recipe):
    done, calls = recipe("teacher", "pairs", "out", fail="small_finetune")
    assert done.returncode == 75 and [c[0] for c in calls][-1] == "train"
    _, again = recipe("teacher", "pairs", "out")
    _, third = recipe("teacher", "pairs", "out")
    assert [c[0] for c in again].count("export") == 1 and "export" not in [c[0] for c in third]


def test_too_few_arguments_are_answered_with_the_usage(recipe):
    done, calls = recipe("teacher")
    assert done.returncode == 64 and "TEACHER PAIRS OUTPUT" in done.stderr and not calls
