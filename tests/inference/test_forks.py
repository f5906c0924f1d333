"""A process that is forked after a model was loaded is refused in one line; one that loads the model itself works."""

import os
import subprocess
import sys

import pytest
from compiling import FAST

# The child must end by itself: what a fork breaks is a wait without end.
SCRIPT = """
import multiprocessing, sys, warnings
warnings.simplefilter("ignore")  # JAX itself warns of the fork
import numpy as np
import embed
from embed.inference import search

path = sys.argv[1]
context = multiprocessing.get_context("fork")

def work(queue, opened):
    for name, action in {
        "load": lambda: embed.load(path),
        "encode": lambda: (opened or embed.load(path)).encode(["bada kolo"]),
        "search": lambda: search.top_k(np.ones((1, 2)), np.ones((3, 2)), 1),
    }.items():
        if name == "load" and opened is None:  # so does encoding
            continue
        try:
            action()
            queue.put((name, "works"))
        except Exception as e:
            queue.put((name, f"{type(e).__name__}: {e}"))

def fork(opened):
    queue = context.Queue()
    process = context.Process(target=work, args=(queue, opened))
    process.start()
    for _ in range(3 if opened else 2):
        print(*queue.get(timeout=600), sep=": ")
    process.join(20)

fork(None)
opened = embed.load(path)
fork(opened)
print("parent:", "works" if opened.encode(["bada kolo"]).shape else "")
"""


@pytest.mark.slow
def test_a_fork_after_loading_is_refused_and_one_before_works(bundle):
    env = {**os.environ, "XLA_FLAGS": FAST}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(bundle)], capture_output=True, text=True, timeout=600, env=env
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines[:2] == ["encode: works", "search: works"]
    for line, name in zip(lines[2:5], ("load", "encode", "search"), strict=True):
        assert line.startswith(f"{name}: UsageError: this process was forked") and "'spawn'" in line
    assert lines[5:] == ["parent: works"]
