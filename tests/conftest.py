"""Eight simulated devices for every test, set before jax loads, and a tiny prepared run that tests copy.

Tests block after each step: simulated devices on few cores deadlock when steps queue up.
"""

import os

from compiling import FAST, on_devices

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {on_devices(8)}".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import contextlib
import fcntl
import gc
import json
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence

import pytest

# Traced programs are millions of objects that live until the end; looking through them again and again takes an eighth of the time.
gc.set_threshold(50_000, 10, 10)

# Compiled, prepared and trained once for all tests of one pytest run: in this process, those beside it and those that they start.
_OWN = "EMBED_TESTS_CACHE" not in os.environ
if _OWN:
    os.environ["EMBED_TESTS_CACHE"] = tempfile.mkdtemp(prefix="embed-tests-")
os.environ["EMBED_COMPILATION_CACHE"] = os.path.join(os.environ["EMBED_TESTS_CACHE"], "xla")
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["EMBED_COMPILATION_CACHE"]
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"


_started: list[subprocess.Popen] = []
_popen_init = subprocess.Popen.__init__


def _recorded_init(self, *arguments, **options):
    _popen_init(self, *arguments, **options)
    _started.append(self)


subprocess.Popen.__init__ = _recorded_init


def _descendants(pid: int) -> list[int]:
    """Returns the processes below `pid`, of Linux alone."""
    children: dict[int, list[int]] = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    below, left = [], [pid]
    while left:
        left += (added := children.get(left.pop(), []))
        below += added
    return below


@pytest.fixture(autouse=True)
def no_process_outlives_its_test():
    """Ends every process that a test started and left running, as one does that ran out of time, with all below it."""
    _started.clear()
    yield
    for process in _started:
        if process.poll() is None:
            for pid in (process.pid, *_descendants(process.pid)):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
    _started.clear()


@pytest.fixture
def shared_data() -> pathlib.Path:
    """The folder of shared data, when it lies beside the repository; else the test is skipped."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the shared data beside the repository")
    return SHARED / "data"


RECIPE = """# A run small enough to be killed again and again.
from __gin__ import dynamic_registration

from embed.workflows import recipe
from embed.data import text_features
from embed import sources
from embed.data import tasks
from embed.data import tokenizers
from embed.models import gemma

include 'models/gemma_tiny.gin'
include 'runs/train.gin'

CACHE_DIR = 'data'
VOCAB_SIZE = 300
MATRYOSHKA_DIMS = (256, 64)
TRAIN_STEPS = 12
BATCH_SIZE = 16
LEARNING_RATE = 1e-3
WARMUP_STEPS = 2
CHECKPOINT_EVERY = 4
TEMPERATURE = 0.1
HARDNESS = 5.0

gemma.Gemma.width = 32
gemma.Gemma.num_heads = 2
gemma.Gemma.head_dim = 16
gemma.Gemma.mlp_dim = 32
gemma.Gemma.dropout = 0.1

recipe.Recipe.num_negatives = 2
recipe.Recipe.max_shapes = 1
recipe.Recipe.ema_decay = 0.9
recipe.Recipe.lengths = @text_features.Lengths()
text_features.Lengths.query = 48
text_features.Lengths.target = 56

recipe.Recipe.tokenizer = @tokenizers.SentencePiece()
tokenizers.SentencePiece.path = 'data/vocabulary.model'
tokenizers.SentencePiece.train_vocab_size = %VOCAB_SIZE

recipe.Recipe.mixture = @tasks.Mixture()
tasks.Mixture.name = 'made_up'
tasks.Mixture.tasks = [@first/tasks.Task(), @second/tasks.Task()]
tasks.Mixture.rates = {'first': 2.0, 'second': 1.0}

first/tasks.Task.name = 'first'
first/tasks.Task.source = @first/sources.JsonLines()
first/sources.JsonLines.path = 'first.jsonl'
first/sources.JsonLines.fields = {'query': 'question', 'target': 'answer', 'negatives': 'wrong'}

second/tasks.Task.name = 'second'
second/tasks.Task.query_prompt = 'classification'
second/tasks.Task.source = @second/sources.JsonLines()
second/sources.JsonLines.path = 'second.jsonl'
second/sources.JsonLines.fields = {'query': 'question', 'target': 'answer'}
"""
WORDS = ["red", "green", "blue", "river", "stone", "cloud", "engine", "paper", "winter", "quick", "slow", "small"]


def sentence(choose: random.Random, words: int) -> str:
    return " ".join(choose.choice(WORDS) for _ in range(words))


def write_data(folder: pathlib.Path) -> None:
    """Answers say what questions say in words of their own, so that there is something to learn."""
    choose = random.Random(7)
    for name, rows in (("first", 50), ("second", 40)):
        with open(folder / f"{name}.jsonl", "w") as f:
            for i in range(rows):
                question = sentence(choose, 6)
                row = {
                    "question": f"{question} {i}",
                    "answer": " ".join(w[::-1] for w in question.split()) + f" {i % 30}",
                }
                if name == "first":
                    row["wrong"] = [sentence(choose, 6)[::-1] for _ in range(i % 3)]
                f.write(json.dumps(row) + "\n")


class ForkServer:
    """The process whose forks run commands (`fork_server`), started with the first of them."""

    def __init__(self):
        self._process: subprocess.Popen | None = None

    def run(self, folder: pathlib.Path, arguments: Sequence[str], env: dict[str, str]) -> subprocess.CompletedProcess:
        """Runs a command to its end."""
        if self._process is None:
            program = [sys.executable, str(pathlib.Path(__file__).parent / "fork_server.py")]
            self._process = subprocess.Popen(
                program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
            )
            _started.remove(self._process)  # it outlives the test
        with tempfile.TemporaryDirectory() as outputs:
            stdout, stderr = (pathlib.Path(outputs) / name for name in ("stdout", "stderr"))
            request = {"arguments": list(map(str, arguments)), "folder": str(folder), "environment": env}
            self._process.stdin.write(json.dumps({**request, "stdout": str(stdout), "stderr": str(stderr)}) + "\n")
            self._process.stdin.flush()
            pid = int(self._process.stdout.readline())
            watch = threading.Timer(1000, os.kill, (pid, signal.SIGKILL))
            watch.start()
            code = int(self._process.stdout.readline())
            watch.cancel()
            return subprocess.CompletedProcess(["embed", *arguments], code, stdout.read_text(), stderr.read_text())

    def end(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.communicate(timeout=60)


_SERVER = ForkServer()


def embed(folder: pathlib.Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs `python -m embed` in `folder` on one device, as a user would: in a fork, or in a process of its own.

    A fork has the imports that `python -m embed` would make, so what a variable of JAX sets needs a process.
    """
    env = {**os.environ, **environment}
    env["XLA_FLAGS"] = f"{FAST} {environment.get('XLA_FLAGS', '')}".strip()
    decided_at_import = arguments[:1] == ("compile",) or any(name.startswith(("JAX", "GLIBC")) for name in environment)
    if sys.platform == "linux" and not decided_at_import:
        return _SERVER.run(folder, arguments, env)
    command = [sys.executable, "-m", "embed", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=1000)


def pytest_collection_modifyitems(items):
    """Puts the longest tests first, so that processes side by side end at about the same time.

    The first file makes the folders that are made once; those beside it that need none of them come next, and then those that do.
    """

    def rank(item) -> int:
        if item.path.name == "test_errors.py" and item.path.parent.name == "commands":
            return 0
        return {"models": 1, "losses": 1, "training": 2, "commands": 2}.get(item.path.parent.name, 3)

    for item in items:
        if item.get_closest_marker("long") and not item.get_closest_marker("slow"):
            raise pytest.UsageError(f"{item.nodeid}: is long and not slow; mark it as both")
    items.sort(key=rank)


def pytest_sessionfinish():
    """Ends the fork server, and removes the compiled programs."""
    _SERVER.end()
    if _OWN:
        shutil.rmtree(os.environ["EMBED_TESTS_CACHE"], ignore_errors=True)


def made_once(name: str, make: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """Returns a folder that `make` has filled, in this process or in one beside it."""
    folder = pathlib.Path(os.environ["EMBED_TESTS_CACHE"]) / "folders" / name
    folder.parent.mkdir(exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = pathlib.Path(tempfile.mkdtemp(dir=folder.parent)) / name
            make(unfinished)
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session")
def prepared() -> pathlib.Path:
    """The folder with the data, the gin file and the caches; tests copy it."""

    def make(folder: pathlib.Path) -> None:
        folder.mkdir()
        write_data(folder)
        (folder / "tiny.gin").write_text(RECIPE)
        done = embed(folder, "prepare", "--gin_file=tiny.gin")
        assert done.returncode == 0, done.stderr

    return made_once("prepared", make)


@pytest.fixture(scope="session")
def trained(prepared) -> pathlib.Path:
    """The prepared folder with a run of two steps and `model`, its bundle; tests copy it."""

    def make(folder: pathlib.Path) -> None:
        shutil.copytree(prepared, folder)
        for command in (
            ("train", "--gin_file=tiny.gin", "--run_dir=run", "--gin.TRAIN_STEPS=2"),
            ("average", "run", "--output=model"),
        ):
            done = embed(folder, *command)
            assert done.returncode == 0, done.stderr

    return made_once("trained", make)


@pytest.fixture
def work(prepared, tmp_path) -> pathlib.Path:
    """A copy of the prepared folder for one test."""
    target = tmp_path / "work"
    shutil.copytree(prepared, target)
    return target


@pytest.fixture(scope="session")
def write_retrieval():
    """write(folder, rows) writes questions and answers as a retrieval task in BEIR's layout, each answer right for its question."""

    def write(folder: pathlib.Path, rows: list[dict]) -> None:
        folder.mkdir(parents=True)
        for name, field in (("queries", "question"), ("corpus", "answer")):
            lines = [json.dumps({"id": str(i), "text": row[field]}) + "\n" for i, row in enumerate(rows)]
            (folder / f"{name}.jsonl").write_text("".join(lines))
        qrels = "".join(f"{i}\t{i}\t1\n" for i in range(len(rows)))
        (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels}")

    return write


@pytest.fixture(scope="session")
def write_suite(write_retrieval):
    """write(folder, rows) writes suite.json: questions and answers as a retrieval task, and a small STS task."""

    def write(folder: pathlib.Path, rows: list[dict]) -> None:
        write_retrieval(folder / "dev", rows)
        (folder / "sts.tsv").write_text(
            "sentence1\tsentence2\tscore\nred river\tred river\t5\ngreen stone\tslow north\t1\nblue\tblue cloud\t3\n"
        )
        tasks = [
            {"name": "pairs", "type": "retrieval", "path": "dev"},
            {"name": "similar", "type": "sts", "path": "sts.tsv"},
        ]
        (folder / "suite.json").write_text(json.dumps({"name": "small", "tasks": tasks}))

    return write


@pytest.fixture(scope="session")
def run_embed():
    """The function that runs the command line in a folder."""
    return embed


# What Gloo prints, from several threads, so that its pieces may come in any order.
GLOO = r"\[Gloo\] Rank |is connected to|peer ranks\.|Expected number of connected|peer ranks is :|[\d\s]"


def free_port() -> int:
    """Returns a port that was free a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    return free_port()


def _own(folder: pathlib.Path, host: int) -> dict[str, str]:
    """Returns the variables of one host, which has a disk of its own for copies of what lies in buckets."""
    return {"JAX_PROCESS_ID": str(host), "EMBED_BUCKET_CACHE": str(folder / f"host-{host}")}


def embed_on_hosts(folder: pathlib.Path, hosts: int, *arguments: str, devices: int = 1, **environment: str) -> str:
    """Runs `python -m embed` as several processes that meet over gloo; returns what the main one printed."""
    env = {
        **os.environ,
        "XLA_FLAGS": on_devices(devices),
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
        "JAX_NUM_PROCESSES": str(hosts),
        **environment,
    }
    command, pipes = [sys.executable, "-m", "embed", *arguments], {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [
        subprocess.Popen(command, cwd=folder, env={**env, **_own(folder, i)}, text=True, **pipes) for i in range(hosts)
    ]
    try:
        outputs = [p.communicate(timeout=1000) for p in running]
    finally:
        for p in running:
            p.kill()
    codes = [p.returncode for p in running]
    assert codes == [0] * hosts, f"exit codes {codes}: {outputs}"
    for printed, _ in outputs[1:]:
        assert re.sub(GLOO, "", printed) == "", "only the main host prints"
    return outputs[0][0]


@pytest.fixture(scope="session")
def run_on_hosts():
    """The function that runs the command line on several hosts."""
    return embed_on_hosts
