"""Output is not the run: its reader goes away, and the command ends as it would have, with a log of what it said."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from compiling import FAST

from embed import arrays, files, trees

ENVIRONMENT = {**os.environ, "XLA_FLAGS": FAST}
TRAIN = ("train", "--gin_file=tiny.gin", "--gin.TRAIN_STEPS=2", "--gin.loop.Schedule.log_every=1")


# Becomes `embed` with SIGHUP heard, which nohup ignores, and files limited to so many bytes.
BEFORE = """import os, resource, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if sys.argv[1] != "-":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
os.execv(sys.executable, [sys.executable, "-m", "embed", *sys.argv[2:]])"""


def closed_after_one_line(folder, *arguments, stream="stdout") -> tuple[int, str]:
    """Runs a command whose output is closed once it has printed a line; returns the exit code and the other stream's text."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "embed", *arguments]
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, text=True, **pipes) as running:
        watched, other = running.stdout, running.stderr
        if stream == "stderr":
            watched, other = other, watched
        watched.readline()
        watched.close()
        text = other.read()
        return running.wait(1000), text


def parameters(run: pathlib.Path, step: int) -> dict[str, bytes]:
    leaves = trees.flatten(arrays.load_numpy(run / "checkpoints" / str(step)))
    return {path: value.tobytes() for path, value in leaves.items()}


@pytest.fixture(scope="module")
def open_run(prepared, tmp_path_factory, run_embed):
    """The folder of a run whose output stayed open."""
    import shutil

    folder = tmp_path_factory.mktemp("closed") / "work"
    shutil.copytree(prepared, folder)
    done = run_embed(folder, *TRAIN, "--run_dir=open")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_training_goes_on_when_stdout_is_closed(open_run):
    code, err = closed_after_one_line(open_run, *TRAIN, "--run_dir=closed")
    assert (code, err) == (0, "")
    assert parameters(open_run / "closed", 2) == parameters(open_run / "open", 2)
    log = (open_run / "closed/output.log").read_text()
    assert "stdout cannot be written (Broken pipe); the command goes on" in log
    assert "step 2/2" in log and "done       closed at step 2" in log


@pytest.mark.long
@pytest.mark.slow
def test_a_full_disk_under_the_log_does_not_end_a_run(open_run):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "embed", *TRAIN, "--run_dir=full"]
        done = subprocess.run(command, cwd=open_run, env=ENVIRONMENT, stdout=full, stderr=full, timeout=1000)
    assert done.returncode == 0
    assert "No space left on device" in (open_run / "full/output.log").read_text()
    assert parameters(open_run / "full", 2) == parameters(open_run / "open", 2)


@pytest.mark.slow
@pytest.mark.long
def test_a_closed_terminal_does_not_end_a_run(open_run):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    command = [sys.executable, "-c", BEFORE, "-", *TRAIN, "--run_dir=hung-up"]
    with subprocess.Popen(command, cwd=open_run, env=ENVIRONMENT, text=True, **pipes) as running:
        running.stdout.readline()
        running.send_signal(signal.SIGHUP)
        rest = running.stdout.read()
        assert running.wait(240) == 0 and "done" not in rest
    assert "the terminal was closed" in (open_run / "hung-up/output.log").read_text()


@pytest.mark.slow
def test_an_error_keeps_its_exit_code_when_nobody_reads_it(open_run):
    code, _ = closed_after_one_line(open_run, *TRAIN, "--run_dir=open", "--gin.SEED=5")
    assert code == 65


@pytest.mark.long
@pytest.mark.slow
def test_on_two_hosts_the_others_do_not_wait_for_ever(open_run, port):
    """The main host's output is closed after its first line; both end, with the parameters of a run that was read."""
    arguments = (*TRAIN, "--gin.sharding.MeshShape.data=2")
    environment = {**ENVIRONMENT, "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}

    def start(run: str, number: int):
        command = [sys.executable, "-m", "embed", *arguments, f"--run_dir={run}"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        own = {**environment, "JAX_PROCESS_ID": str(number)}
        return subprocess.Popen(command, cwd=open_run, env=own, text=True, start_new_session=True, **pipes)

    def run(name: str, is_closed: bool) -> None:
        running = [start(name, number) for number in (0, 1)]
        try:
            if is_closed:
                running[0].stdout.readline()
                running[0].stdout.close()
                running[0].stderr.close()
                running[0].stdout = running[0].stderr = None
            outputs = [p.communicate(timeout=1000) for p in running]
            assert [p.returncode for p in running] == [0, 0], outputs
        finally:
            for p in running:
                p.kill()

    run("two-open", False)
    run("two-closed", True)
    assert parameters(open_run / "two-closed", 2) == parameters(open_run / "two-open", 2)


@pytest.mark.slow
def test_commands_that_only_print_end_quietly(open_run):
    code, err = closed_after_one_line(open_run, "--help")
    assert (code, err) == (0, "")


def _wait_for_handler(pid: int) -> None:
    """Returns once a process handles SIGTERM."""
    for _ in range(600):
        caught = re.search(r"SigCgt:\s*(\w+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]
        if int(caught, 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.1)
    raise AssertionError("the process never handled SIGTERM")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["start", pytest.param("caches", marks=pytest.mark.slow)])
def test_sigterm_before_the_first_step_ends_as_preempted(open_run, moment):
    run = f"stopped-{moment}"
    cache = f"--gin.CACHE_DIR=data-{run}" if moment == "caches" else "--gin.CACHE_DIR=data"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "embed", *TRAIN, f"--run_dir={run}", cache]
    running = subprocess.Popen(command, cwd=open_run, env=ENVIRONMENT, text=True, **pipes)
    if moment == "caches":
        assert "preparing its cache" in running.stdout.readline()
    else:
        _wait_for_handler(running.pid)
        time.sleep(1.0)  # while libraries are imported
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=1000)
    assert running.returncode == 75, err
    assert "SIGTERM; run the same command again" in err or "stopped and saved" in err
    assert not files.committed_steps(open_run / run / "checkpoints") or moment == "start"
    assert not (open_run / run / "config.gin").exists() or moment == "start"


@pytest.mark.long
@pytest.mark.slow
def test_a_disk_that_fills_up_is_one_line(open_run):
    """Files of more than 20 kB cannot be written: caches, checkpoints, averages and exports end with 74 and one line."""
    for compilation_cache, arguments in (
        (
            "off",
            ("prepare", "--gin_file=tiny.gin", "--gin.CACHE_DIR=data-limited", "--gin.text_features.Lengths.target=50"),
        ),
        (os.environ["EMBED_COMPILATION_CACHE"], (*TRAIN, "--run_dir=limited")),  # holds its programs since `open_run`
        ("off", ("average", "open", "--output=limited-average")),
        ("off", ("export", "open", "limited-export")),
    ):
        command = [sys.executable, "-c", BEFORE, "20000", *arguments]
        environment = {**ENVIRONMENT, "EMBED_COMPILATION_CACHE": compilation_cache}
        done = subprocess.run(command, cwd=open_run, env=environment, text=True, capture_output=True, timeout=240)
        assert done.returncode == 74, (arguments, done.stderr)
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("embed: "), (arguments, done.stderr)
    assert not list(open_run.glob("limited-*")) and not list(open_run.glob(".limited-*"))
