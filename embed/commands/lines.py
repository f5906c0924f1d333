"""Command lines run one after the other, each once: what is done is written down, and a run that was stopped goes on."""

import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from embed import config, files
from embed.errors import DataError

DONE, LOG = "done.json", "log.txt"


def run(what: str, lines: Sequence[str], folder: pathlib.Path) -> None:
    """Runs the lines that were not run to their end before, of `embed` or `python SCRIPT ...`; each must end without an error.

    `folder` keeps what is done and what they print.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DONE
    done = files.read_json(path)["lines"] if path.is_file() else []
    for line in lines[len(done) :]:
        shown = line if script_of(line) else f"embed {line}"
        print(f"{what}: {shown}", flush=True)
        began = time.time()
        with open(folder / LOG, "a", encoding="utf-8") as log:
            log.write(f"\n$ {shown}\n")
            log.flush()
            code = subprocess.run(_command(line), stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        if code:
            last = (folder / LOG).read_text(encoding="utf-8").strip().splitlines()[-1]
            raise DataError(f"{what}: `{shown}` ended with {code}: {last} (all of it: {folder}/{LOG})")
        done.append({"line": line, "seconds": round(time.time() - began, 1)})
        files.write_json(path, {"lines": done})


def seconds(folder: pathlib.Path) -> float:
    """Returns how long the lines that were run in `folder` took."""
    path = folder / DONE
    return sum(line["seconds"] for line in files.read_json(path)["lines"]) if path.is_file() else 0.0


def script_of(line: str) -> pathlib.Path | None:
    """Returns the script of a line `python SCRIPT ...`, here or in the repository; None for a line of `embed`."""
    words = shlex.split(line)
    if len(words) < 2 or words[0] != "python":
        return None
    for folder in config.search_paths():
        if (folder / words[1]).is_file():
            return folder / words[1]
    raise DataError(f"{words[1]}: no such script; correct the line `{line}`")


def _command(line: str) -> list[str]:
    words, script = shlex.split(line), script_of(line)
    return [sys.executable, *(["-m", "embed", *words] if script is None else [str(script), *words[2:]])]
