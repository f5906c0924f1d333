"""launch/two_stages.sh, with a stand-in for `embed` that notes what it is asked for."""

import importlib
import pathlib
import shlex
import subprocess

import pytest

from embed.commands import main

ROOT = pathlib.Path(__file__).resolve().parents[2]
STAND_IN = """#!/usr/bin/env bash
printf '%q ' "$@" >>calls; echo >>calls
case "$1 $*" in *"$FAIL"*) exit 75 ;; esac
for word in "$@"; do case "$word" in --output=*) output="${word#--output=}" ;; esac; done
[ "$1" = convert ] && output="$3"
[ "$1" = train ] || { mkdir -p "$output"; touch "$output/model.json"; }
"""


@pytest.fixture
def two_stages(tmp_path):
    """Runs the script in a folder with a file of pairs for every name it mines, and returns the commands it gave."""
    stand_in = tmp_path / "embed"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)

    def run(*given, fail="never", **environment):
        (tmp_path / "calls").unlink(missing_ok=True)
        script = [str(ROOT / "launch" / "two_stages.sh"), *given]
        environment = {"EMBED": str(stand_in), "FAIL": fail, "PATH": "/usr/bin:/bin", **environment}
        done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
        calls = tmp_path / "calls"
        return done, [shlex.split(x) for x in calls.read_text().splitlines()] if calls.exists() else []

    return run


def test_the_commands_are_those_that_embed_knows(two_stages):
    done, calls = two_stages("model", "pairs", "out", "3")
    assert done.returncode == 0, done.stderr
    assert [c[0] for c in calls] == [
        "convert",
        "train",
        "average",
        "mine",
        "train",
        "train",
        "train",
        "average",
        "average",
    ]
    for name, *given in calls:
        parser = main._Parser(allow_abbrev=False)
        importlib.import_module(f"embed.commands.{name}").add_arguments(parser)
        arguments = parser.parse_args([a for a in given if not a.startswith("--gin.")])
        for path in getattr(arguments, "gin_file", None) or ():
            assert pathlib.Path(path).is_file()
    assert all("--gin.SEED=3" in c for c in calls if c[0] == "train")
    weighted = ["--method=weighted", "--weights=0.6,0.2,0.2"]
    assert calls[-2] == ["average", "out/tasks", "out/languages", "out/code", *weighted, "--output=out/soup"]
    kept = ["--method=interpolate", "--alpha=0.75", "--output=out/final"]
    assert calls[-1] == ["average", "out/base", "out/soup", *kept]


def test_a_run_that_was_stopped_goes_on_and_keeps_what_is_there(two_stages):
    done, first = two_stages("model", "pairs", "out", fail="small_languages")
    assert done.returncode == 75 and "small_languages" in " ".join(first[-1])
    done, then = two_stages("model", "pairs", "out")
    assert done.returncode == 0, done.stderr
    # Runs and mining know themselves what is done; models that are there are not made again.
    assert [c[0] for c in then] == ["train", "mine", "train", "train", "train", "average", "average"]


def test_too_few_words_show_how_it_is_called(two_stages):
    done, calls = two_stages("model")
    assert done.returncode == 64 and not calls
    assert "launch/two_stages.sh SOURCE PAIRS OUTPUT [SEED]" in done.stderr
