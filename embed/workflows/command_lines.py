"""Command lines run one after the other, each once: what is done is written down, and a run that was stopped goes on."""

import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from embed import documents, files, gin_statements
from embed.buckets import addresses
from embed.errors import DataError, Preempted

DONE, LOG = "done.json", "log.txt"
# Asks the kernel to end this process when its parent is gone, so that nothing is written behind a run that goes on; then
# becomes the command.
_BOUND = "import ctypes, os, sys; getattr(ctypes.CDLL(None), 'prctl', int)(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
Line = Sequence[str]  # the words of a line of `embed`, or of `python SCRIPT ...`


class LineFailed(DataError):
    """A line that ended with an error: its exit code, the last thing it printed, and the log that has all of it."""

    def __init__(self, message: str, code: int, last: str, log: pathlib.Path):
        super().__init__(message)
        self.code, self.last, self.log = code, last, log


def run(what: str, lines: Sequence[Line], folder: pathlib.Path) -> None:
    """Runs the lines that were not run to their end before; one that ends with an error raises LineFailed.

    `folder` keeps what is done and what they print. An `--output` in it of a line that was stopped is removed first.
    SIGTERM is handed on to the line that runs, and a line that was preempted raises Preempted: run the same again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DONE
    done = documents.read_json(path)["lines"] if path.is_file() else []
    for before, line in zip(done, lines):
        if before["line"] != _stored(line):
            raise DataError(f"{path}: was made by `{before['line']}`, now it is `{_stored(line)}`; remove {folder}")
    for line in lines[len(done) :]:
        shown = shown_as(line)
        print(f"{what}: {shown}", flush=True)
        _remove_output(line, folder)
        began = time.time()
        code = _call(line, shown, folder / LOG)
        if code == Preempted.exit_code or code == -signal.SIGTERM:
            raise Preempted(f"{what}: `{shown}` was stopped; run the same command to go on")
        if code:
            last = (folder / LOG).read_text(encoding="utf-8").strip().splitlines()[-1]
            message = f"{what}: `{shown}` ended with {code}: {last} (all of it: {folder}/{LOG})"
            raise LineFailed(message, code, last, folder / LOG)
        done.append({"line": _stored(line), "seconds": round(time.time() - began, 1)})
        files.write_json(path, {"lines": done})


def _stored(line: Line) -> str:
    """Returns a line as it is written down, with addresses in the place of copies' paths, which differ by machine."""
    return addresses.restored(shlex.join(line))


def start(line: Line, log_path: pathlib.Path) -> subprocess.Popen:
    """Returns a line that runs, and prints into a log; it ends when this process does."""
    with open(log_path, "a", encoding="utf-8") as log:
        log.write(f"\n$ {shown_as(line)}\n")
        log.flush()
        return subprocess.Popen([sys.executable, "-c", _BOUND, *_command(line)], stdout=log, stderr=subprocess.STDOUT)


def shown_as(line: Line) -> str:
    """Returns a line as it is typed."""
    return shlex.join(line) if script_of(line) else f"embed {shlex.join(line)}"


def _call(line: Line, shown: str, log_path: pathlib.Path) -> int:
    """Returns the exit code of a line; it ends when this process does."""
    child = start(line, log_path)
    before = signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
    try:
        return child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _remove_output(line: Line, folder: pathlib.Path) -> None:
    for word in line:
        name, _, value = word.partition("=")
        output = pathlib.Path(value)
        if (
            name == "--output"
            and value
            and folder.resolve() in output.resolve().parents
            and line[0] in ("average", "evaluate")
        ):
            shutil.rmtree(output, ignore_errors=True)


def seconds(folder: pathlib.Path) -> float:
    """Returns how long the lines that were run in `folder` took."""
    path = folder / DONE
    return sum(line["seconds"] for line in documents.read_json(path)["lines"]) if path.is_file() else 0.0


def script_of(line: Line) -> pathlib.Path | None:
    """Returns the script of a line `python SCRIPT ...`, here or in the repository; None for a line of `embed`."""
    if len(line) < 2 or line[0] != "python":
        return None
    for folder in gin_statements.search_paths():
        if (folder / line[1]).is_file():
            return folder / line[1]
    raise DataError(f"{line[1]}: no such script; correct the line `{shlex.join(line)}`")


def _command(line: Line) -> list[str]:
    script = script_of(line)
    return [sys.executable, *(["-m", "embed", *line] if script is None else [str(script), *line[2:]])]
