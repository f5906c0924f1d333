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
from embed.inference import model as inference, search

path, order = sys.argv[1:]
opened = embed.load(path) if order == "before" else None

def work(queue):
    for name, action in {
        "encode": lambda: opened.encode(["bada kolo"]) if opened else embed.load(path).encode(["bada kolo"]),
        "load": lambda: embed.load(path),
        "search": lambda: search.top_k(np.ones((1, 2)), np.ones((3, 2)), 1),
    }.items():
        try:
            action()
            queue.put((name, "works"))
        except Exception as e:
            queue.put((name, f"{type(e).__name__}: {e}"))

context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=work, args=(queue,))
process.start()
for _ in range(3):
    print(*queue.get(timeout=600), sep=": ")
process.join(20)
print("parent:", "works" if opened is None or opened.encode(["bada kolo"]).shape else "")
"""


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_fork_after_loading_is_refused_and_one_before_works(bundle, order):
    env = {**os.environ, "XLA_FLAGS": FAST}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(bundle), order], capture_output=True, text=True, timeout=600, env=env
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 4 and lines[3] == "parent: works"
    for line, name in zip(lines, ("encode", "load", "search")):
        if order == "before":
            assert line.startswith(f"{name}: UsageError: this process was forked") and "'spawn'" in line
        else:
            assert line == f"{name}: works"
