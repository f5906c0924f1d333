"""Command lines run one after the other, each once. Lines of `embed` start in a second, so most here are scripts."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from embed.errors import DataError, Preempted
from embed.workflows import command_lines
from embed.workflows.command_lines import DONE, LOG

SCRIPT = """import sys
name, code = sys.argv[1:]
print(f"said {name}", flush=True)
open("ran", "a").write(name)
sys.exit(code if not code.isdigit() else int(code))
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> pathlib.Path:
    """A folder with a script that notes its name in `ran` and ends as it is told."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "do.py").write_text(SCRIPT)
    return tmp_path


def line(name: str, code: str = "0") -> list[str]:
    return ["python", "do.py", name, code]


def ran(folder) -> str:
    return (folder / "ran").read_text()


def test_lines_run_once_in_order_and_what_is_done_is_written_down(here, capsys):
    folder = here / "runs" / "a"
    command_lines.run("c", [line("1"), line("2")], folder)
    assert ran(here) == "12"
    assert capsys.readouterr().out == "c: python do.py 1 0\nc: python do.py 2 0\n"
    assert (folder / LOG).read_text() == "\n$ python do.py 1 0\nsaid 1\n\n$ python do.py 2 0\nsaid 2\n"
    done = json.loads((folder / DONE).read_text())["lines"]
    assert [row["line"] for row in done] == ["python do.py 1 0", "python do.py 2 0"]
    assert command_lines.seconds(folder) == sum(row["seconds"] for row in done)
    command_lines.run("c", [line("1"), line("2"), line("3")], folder)
    assert ran(here) == "123" and capsys.readouterr().out == "c: python do.py 3 0\n"


def test_a_line_that_fails_ends_the_run_and_is_tried_again(here):
    folder = here / "a"
    lines = [line("1"), line("2", "no such thing"), line("3")]
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            command_lines.run("c", lines, folder)
        assert str(caught.value) == (
            f"c: `python do.py 2 'no such thing'` ended with 1: no such thing (all of it: {folder}/{LOG})"
        )
    assert ran(here) == "122" and len(json.loads((folder / DONE).read_text())["lines"]) == 1


@pytest.mark.parametrize("code", [str(Preempted.exit_code), "signal"])
def test_a_line_that_was_stopped_can_go_on(here, code):
    if code == "signal":
        (here / "do.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    with pytest.raises(Preempted, match=r"^c: `python do.py 1 .*` was stopped; run the same command to go on$"):
        command_lines.run("c", [line("1", code)], here / "a")
    assert not (here / "a" / DONE).exists()


def test_a_folder_of_other_lines_is_refused(here):
    command_lines.run("c", [line("1")], here / "a")
    for lines in ([line("2")], [line("1", "3"), line("1")]):
        with pytest.raises(
            DataError, match=r"done.json: was made by `python do.py 1 0`, now it is `python do.py .*; remove "
        ):
            command_lines.run("c", lines, here / "a")
    command_lines.run("c", [], here / "a")
    assert ran(here) == "1"


def test_a_line_of_embed_runs_embed(here, capsys):
    command_lines.run("c", [["curate", "prompts", f"--output={here / 'a b'}"]], here / "a")
    assert (here / "a b" / "query.txt").is_file()
    assert capsys.readouterr().out.startswith("c: embed curate prompts '--output=")


def test_seconds_of_nothing_are_none(tmp_path):
    assert command_lines.seconds(tmp_path) == 0.0


def test_a_script_is_found_here_or_in_the_repository_or_refused(here):
    assert command_lines.script_of(line("1")).resolve() == here / "do.py"
    assert command_lines.script_of(["curate", "prompts"]) is None and command_lines.script_of(["python"]) is None
    repository = pathlib.Path(command_lines.__file__).resolve().parents[2]
    assert command_lines.script_of(["python", "setup.py"]).resolve() == repository / "setup.py"
    with pytest.raises(DataError, match=r"^none.py: no such script; correct the line `python none.py 'a b'`$"):
        command_lines.script_of(["python", "none.py", "a b"])


def test_the_output_of_a_line_that_was_stopped_is_removed_where_it_is_this_runs_own(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    for name in ("run/model", "run/kept", "run/trained", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    remove = lambda *words: command_lines._remove_output(words, folder)  # noqa: E731
    remove("average", f"--output={tmp_path}/elsewhere")  # not in the folder of the run
    remove("average", f"--output={folder}")  # nor the folder itself
    monkeypatch.chdir(folder / "kept")
    remove(
        "average", "--output=", f"--model={folder}/kept", f"{folder}/kept"
    )  # "" is not the folder that it is called in
    remove("train", f"--output={folder}/trained")  # goes on by itself
    assert all((tmp_path / name).is_dir() for name in ("run/model", "run/kept", "run/trained", "elsewhere"))
    remove("average", "one", f"--output={folder}/model")
    remove("evaluate", f"--output={folder}/nothing")
    assert sorted(p.name for p in folder.iterdir()) == ["kept", "trained"]


def test_a_stop_is_handed_on_and_nothing_goes_on_behind(tmp_path):
    script = "import sys, time, pathlib\npathlib.Path(sys.argv[1]).write_text('began')\ntime.sleep(60)\n"
    (tmp_path / "slow.py").write_text(script)
    call = (
        "from embed.workflows import command_lines; import pathlib; "
        "command_lines.run('c', [['python', 'slow.py', 'mark']], pathlib.Path('run'))"
    )
    for number in (signal.SIGTERM, signal.SIGKILL):
        (tmp_path / "mark").unlink(missing_ok=True)
        outer = subprocess.Popen([sys.executable, "-c", call], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        while not (tmp_path / "mark").exists():
            time.sleep(0.05)
        outer.send_signal(number)
        told = outer.communicate(timeout=120)[1]
        assert number == signal.SIGKILL or "was stopped; run the same command to go on" in told
        time.sleep(0.3)
        found = subprocess.run(["pgrep", "-f", "slow.py mark"], capture_output=True, text=True).stdout
        assert not [p for p in found.split() if pathlib.Path(f"/proc/{p}/cwd").resolve() == tmp_path]
    assert not (tmp_path / "run" / "done.json").exists()
