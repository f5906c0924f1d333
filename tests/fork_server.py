"""Runs `embed` commands in forks of a process that has imported everything: the same processes without the seconds of imports.

Requests are JSON lines on stdin: {"arguments", "folder", "environment", "stdout", "stderr"}, the last two names of files. The
answer is a line with the process id when the command has begun, and a line with its return code, as `subprocess` gives it, when
it has ended; then comes the next request. The environment variables that JAX reads when it is imported are those of this process.
"""

import atexit
import gc
import importlib
import json
import os
import pathlib
import sys
import threading
import traceback
import warnings

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "embed"
LIBRARIES = (
    "flax.linen",
    "optax",
    "orbax.checkpoint",
    "grain",
    "gin",
    "sklearn.linear_model",
    "tokenizers",
    "sentencepiece",
)


def preload() -> None:
    """Imports the commands and what they import when they run. None of it may start a thread that the forks would miss."""
    for folder in ("commands", "workflows"):
        for path in sorted((PACKAGE / folder).glob("*.py")):
            if path.stem != "__init__":
                importlib.import_module(f"embed.{folder}.{path.stem}")
    for name in LIBRARIES:
        importlib.import_module(name)


def become(request: dict) -> None:
    """Makes this process, a fork, the one that `python -m embed` would have been."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"], GLIBC_TUNABLES="")  # the command would start over to set it
    for number, name in ((0, os.devnull), (1, request["stdout"]), (2, request["stderr"])):
        handle = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(handle, number)
        os.close(handle)
    sys.path[0] = request["folder"]
    sys.path[1:1] = filter(None, request["environment"].get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = [str(PACKAGE / "__main__.py"), *request["arguments"]]


def serve() -> None:
    """Takes requests until stdin ends. In a fork it returns, to run the command."""
    for line in sys.stdin:
        request = json.loads(line)
        if request["arguments"][:1] == ["prepare"]:
            importlib.import_module("seqio")  # with tensorflow
        pid = os.fork()
        if pid == 0:
            become(request)
            return
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    sys.exit()


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="os.fork")
    preload()
    gc.collect()
    gc.freeze()  # the forks share these objects, whose pages a collection would copy
    serve()
    from embed.commands.main import main

    code = 1
    try:
        main()
    except SystemExit as e:
        code = e.code
    except BaseException:
        traceback.print_exc()
    # What Python does at the end of a process, without taking the modules apart.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
