"""Every command with its output closed after the first line: the same results and exit code as with it open."""

import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from compiling import FAST
from language_model import Server

from embed import arrays, trees

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
CLOSED, OPEN = "closed-output", "open-output"
# The command lines; OUT is the output, and what a command without one prints is no result.
ALONE = {
    "prepare": ("prepare", "--gin_file=tiny.gin", "--gin.CACHE_DIR=OUT"),
    "encode": ("encode", "model", "--input=texts.jsonl", "--format=npy", "--output=OUT"),
    "mine": ("mine", "model", "--pairs", "pairs.jsonl", "--ranks=1:5", "--ceiling=off", "--output=OUT"),
    "evaluate": ("evaluate", "model", "--suite=suite.json", "--baselines=bm25", "--vectors=off", "--output=OUT"),
    "export stablehlo": ("export", "model", "OUT", "--format=stablehlo"),
    "verify": ("verify", "program"),
    "search": ("search", "model", "red river", "--corpus=texts.jsonl"),
    "curate prompts": ("curate", "prompts", "--output=OUT"),
    "curate queries": ("curate", "queries", "--input=texts.jsonl", "--endpoint=URL", "--model=tiny", "--output=OUT"),
    "refused": ("encode", "model", "--input=nowhere.jsonl", "--output=OUT"),
}
TAKE_LONG = ("prepare", "evaluate", "export stablehlo", "search")
ON_TWO_HOSTS = ("encode", "evaluate")


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory, run_embed, write_suite):
    folder = tmp_path_factory.mktemp("closed") / "work"
    shutil.copytree(trained, folder)
    rows = [{"query": f"red river {i}", "positive": f"deep stone {i}"} for i in range(20)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": row["query"]}) + "\n" for row in rows))
    write_suite(folder, [{"question": row["query"], "answer": row["positive"]} for row in rows])
    for command in (("export", "model", "program", "--format=stablehlo"),):
        done = run_embed(folder, *command)
        assert done.returncode == 0, done.stderr
    return folder


def start(folder: pathlib.Path, command, output: str, environment: dict[str, str]) -> subprocess.Popen:
    words = [word.replace("OUT", output) for word in command]
    env = {**os.environ, "XLA_FLAGS": FAST, "EMBED_API_KEY": "secret", **environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-m", "embed", *words], cwd=folder, env=env, text=True, **pipes)


def exit_codes(folder: pathlib.Path, command, output: str, port: int | None = None) -> list[int]:
    """Runs a command, on two hosts if there is a port for them; `CLOSED` closes the main host's output after one line."""
    hosts = [{}]
    if port is not None:
        meeting = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
        hosts = [{**meeting, "JAX_PROCESS_ID": str(number)} for number in (0, 1)]
    running = [start(folder, command, output, environment) for environment in hosts]
    try:
        if output == CLOSED:
            main = running[0]
            main.stdout.readline()
            main.stdout.close()
            main.stderr.close()
            main.stdout = main.stderr = None
        for process in running:
            process.communicate(timeout=1000)
        return [process.returncode for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()


# What differs from run to run: times, the versions of packages, random bytes of the protocol with a language model.
VARIABLE = (
    "output.log",
    "log.txt",
    "done.json",
    "environment.json",
    "MANIFEST.json",
    "report.html",
    "metrics.jsonl",
    "salt",
    "replies.jsonl",
)
FIELDS = {
    "results.json": lambda value: [value["suite_digest"], value["tasks"], [m["results"] for m in value["models"].values()]],
    "summary.json": lambda value: {name: value[name] for name in value if name not in ("seconds", "digest")},
}  # fmt: skip


def results(output: pathlib.Path) -> dict[str, object]:
    """Returns {path: content} of an output, without what differs from run to run, and of a bundle the arrays."""
    contents: dict[str, object] = {}
    for path in sorted(p for p in output.rglob("*") if p.is_file()):
        name = path.relative_to(output).as_posix()
        if path.name in VARIABLE or {"tensorboard", "params", "run"} & set(path.relative_to(output).parts):
            continue
        if path.name in FIELDS and path.parent == output:
            contents[name] = FIELDS[path.name](json.loads(path.read_bytes()))
        else:
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            contents[name] = data.replace(output.name.encode(), b"OUT")
    if (output / "params").is_dir():
        leaves = trees.flatten(arrays.load_numpy(output))
        contents["params"] = {name: value.tobytes() for name, value in leaves.items()}
    return contents


def check(folder: pathlib.Path, command, port: int | None = None, expected: int = 0) -> None:
    for output in (OPEN, CLOSED):
        shutil.rmtree(folder / output, ignore_errors=True)
    codes = {output: exit_codes(folder, command, output, port) for output in (OPEN, CLOSED)}
    assert codes[CLOSED] == codes[OPEN] and set(codes[OPEN]) == {expected}, codes
    if expected == 0 and any("OUT" in word for word in command):
        assert results(folder / OPEN)
        assert results(folder / CLOSED) == results(folder / OPEN)
    else:
        assert not (folder / OPEN).exists() and not (folder / CLOSED).exists()


@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=pytest.mark.long) if name in TAKE_LONG else name for name in ALONE]
)
def test_alone(folder, command):
    server = Server()
    try:
        words = [word.replace("URL", server.url) for word in ALONE[command]]
        check(folder, words, expected=65 if command == "refused" else 0)
    finally:
        server.close()


@pytest.mark.long
@pytest.mark.parametrize("command", ON_TWO_HOSTS)
def test_on_two_hosts(folder, command, port):
    check(folder, (*ALONE[command], "--distributed"), port)
