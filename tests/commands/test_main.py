"""The console script: what `main` adds around a command."""

import subprocess
import sys

# A command whose writer fails and drops a coroutine that nobody has awaited, as Orbax and tensorstore do on a full disk.
DROPS_A_COROUTINE = """
import sys
from embed.commands import main, search
from embed.errors import StorageError

async def write():
    pass

def run(arguments):
    write()
    raise StorageError("out: the disk is full; free space")

search.run = run
sys.argv = ["embed", "search", "--corpus=corpus.jsonl", "model", "query"]
main.main()
"""


def test_a_dropped_coroutine_adds_nothing_to_the_line_of_an_error():
    done = subprocess.run([sys.executable, "-c", DROPS_A_COROUTINE], text=True, capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (74, "embed: out: the disk is full; free space\n")
