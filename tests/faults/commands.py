"""Commands that rows run: in forks that can be killed, and in this process."""

import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from compiling import FAST

from embed.commands.main import main

TESTS = pathlib.Path(__file__).resolve().parent.parent
CODES = (64, 65, 69, 70, 74, 75, 78)


class Forks:
    """Commands as forks of a process that has imported everything, killed after some seconds where that is asked for."""

    def __init__(self):
        program = [sys.executable, str(TESTS / "fork_server.py")]
        self._server = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TESTS.parent
        )
        self._cache = tempfile.TemporaryDirectory()
        self.pid: int | None = None  # of the command that runs

    def run(self, folder, *words: str, kill: tuple[float, int] | None = None, **environment: str):
        """Returns (exit code, stdout, stderr) of a command; `kill` are seconds and the signal that it gets then."""
        cache = {"EMBED_COMPILATION_CACHE": self._cache.name, "XLA_FLAGS": FAST, "PYTHONPATH": str(TESTS.parent)}
        with tempfile.TemporaryDirectory() as outputs:
            paths = {name: str(pathlib.Path(outputs) / name) for name in ("stdout", "stderr")}
            request = {
                "arguments": list(words),
                "folder": str(folder),
                "environment": {**os.environ, **cache, **environment},
            }
            self._server.stdin.write(json.dumps({**request, **paths}) + "\n")
            self._server.stdin.flush()
            pid = self.pid = int(self._server.stdout.readline())
            if kill is not None:
                time.sleep(kill[0])
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, kill[1])
            code = int(self._server.stdout.readline())
            self.pid = None
            return code, *(pathlib.Path(p).read_text() if pathlib.Path(p).exists() else "" for p in paths.values())

    def end(self) -> None:
        """Ends the server."""
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()
        self._cache.cleanup()


def here(words) -> tuple[int, str, str]:
    """Returns (exit code, stdout, stderr) of a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(map(str, words)))
        except SystemExit as e:
            return int(e.code or 0), out.getvalue(), err.getvalue()
    return -1, out.getvalue(), err.getvalue()


def is_one_line(code: int, error: str) -> bool:
    """Returns whether a command that was refused said so in one line and with a code of ours."""
    lines = [line for line in error.splitlines() if line.startswith("embed: ")]
    return code in CODES and len(lines) == 1 and "Traceback" not in error
