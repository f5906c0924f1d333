"""The console script `embed`: finds the command, runs it, turns errors into one line and an exit code."""

import argparse
import importlib
import inspect
import os
import shutil
import sys
import textwrap
import traceback
import warnings

from embed import __version__, console, environment, files
from embed.buckets import addresses, copies
from embed.errors import EmbedError, Preempted, StorageError, UsageError, did_you_mean

# name -> one line of help; the module embed.commands.<name> is imported only when the command is run.
COMMANDS = {
    "prepare": "train the vocabulary and write the token caches of a recipe",
    "convert": "read a Hugging Face or sentence-transformers checkpoint into a bundle",
    "train": "train a model from a gin recipe; the same command resumes it",
    "compile": "compile a recipe for a TPU slice that need not be there, and say what it needs",
    "average": "average checkpoints into one model (a soup)",
    "evaluate": "score models on a suite of local files, at every Matryoshka size",
    "export": "write a model for sentence-transformers and servers, as StableHLO or ONNX",
    "verify": "prove that an export gives the trained model's vectors",
    "encode": "turn the texts of a file into vectors; resumable, over several hosts",
    "index": "make an index of a corpus on disk, for search",
    "search": "find the documents of an index or a corpus nearest to a query",
    "serve": "serve a model over HTTP, in the form of OpenAI's embeddings",
    "curate": "have a language model write and judge training data",
    "reproduce": "run a paper's claim at small scale and say whether it holds",
    "tune": "find the rates of a mixture",
    "mine": "find hard negatives for pairs, as files that training reads",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(f"{message}; see {self.prog} --help")


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            f"embed {__version__}: train, average, evaluate and export embedding models.",
            "",
            "usage: embed COMMAND ...        embed COMMAND --help tells more",
            "",
            *lines,
            "",
            "MODEL is a run folder, a checkpoint step folder or a bundle.",
            "exit codes: 0 done, 64 usage, 65 bad data, 69 no endpoint, 70 numeric failure, 74 storage, "
            "75 preempted (run again), 78 bad config",
        ]
    )


def _filled(text: str) -> str:
    """Returns paragraphs in lines of the terminal's width; those that are indented are tables and stay as they are."""
    width = min(shutil.get_terminal_size().columns, 120) - 2
    paragraphs = text.split("\n\n") if text else []
    return "\n\n".join(p if p.startswith(" ") else textwrap.fill(p, width, break_long_words=False) for p in paragraphs)


def _run(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return
    if argv[0] == "--version":
        print(f"embed {__version__}")
        return
    if argv[0] not in COMMANDS:
        raise UsageError(f"no command {argv[0]!r}{did_you_mean(argv[0], COMMANDS)}")
    for word in argv:
        try:
            word.encode("utf-8")
        except UnicodeEncodeError as e:
            raise UsageError(f"{word!a} is not valid UTF-8; rename the file, or correct the argument") from e
    if environment.meets_other_hosts("--distributed" in argv):
        copies.wait_for_hosts()
    argv = [argv[0], *copies.words(argv[1:])]
    command = importlib.import_module(f"embed.commands.{argv[0]}")
    parser = _Parser(
        prog=f"embed {argv[0]}",
        description=_filled(command.SUMMARY),
        epilog=_filled(inspect.cleandoc(command.__doc__).partition("\n\n")[2]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    command.add_arguments(parser)
    bindings = [a for a in argv[1:] if a.startswith("--gin.")]
    arguments = parser.parse_args([a for a in argv[1:] if not a.startswith("--gin.")])
    if bindings and not hasattr(arguments, "gin_bindings"):
        raise UsageError(f"{argv[0]} takes no gin bindings, {bindings[0]!r} was given")
    if bindings:
        arguments.gin_bindings = [b.removeprefix("--gin.") for b in bindings]
    if hasattr(command, "log_path"):
        console.log_to(command.log_path(arguments))
    command.run(arguments)


def _run_with_buckets(argv: list[str]) -> None:
    """Runs a command; places in buckets that it names have copies here, and what it changed of them goes back in any case."""
    try:
        _run(argv)
    except BaseException:
        try:
            copies.finish()
        except StorageError as e:  # beside what has ended the command
            print(f"embed: {e}", file=sys.stderr, flush=True)
        raise
    copies.finish()


def _tune_memory(argv: list[str]) -> None:
    """Starts this process over with glibc's memory tuned to the command, which can be asked for at the start only.

    XLA's buffers are large and short-lived: without huge pages a fifth of the training time on CPU goes to page faults. An
    average is made block by block, by threads that would each keep memory of their own. Whoever sets GLIBC_TUNABLES is left
    alone.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        streams = argv[0] == "average" and not any(word.startswith("--suite") for word in argv)
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.arena_max=2" if streams else "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def main(argv: list[str] | None = None) -> None:
    """Runs `embed` with `argv` (default: the process's own) and exits with a code of sysexits.h."""
    if argv is None:
        argv = sys.argv[1:]
        if argv and argv[0] in COMMANDS:
            _tune_memory(argv)
        console.keep(addresses.restored)
        console.stop_on_sigterm()
    # When a write fails, Orbax and tensorstore drop the coroutines that wait for it; Python would warn of each after our line.
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)
    try:
        _run_with_buckets(argv)
        code = 0
    except EmbedError as e:
        if "--debug" in argv:
            traceback.print_exc()
        print(f"embed: {' '.join(str(e).split())}", file=sys.stderr, flush=True)
        code = e.exit_code
    except OSError as e:
        if "--debug" in argv or e.filename is None and e.errno not in files.FULL:
            raise
        what = e.filename or "the disk"
        line = f"{what}: {e.strerror}; check the path and its permissions"
        print(f"embed: {files.storage_error(what, e) if e.errno in files.FULL else line}", file=sys.stderr)
        code = StorageError.exit_code
    except console.Terminated:
        print("embed: stopped by SIGTERM; run the same command again to go on", file=sys.stderr, flush=True)
        code = Preempted.exit_code
    except KeyboardInterrupt:
        print("embed: interrupted; run the same command to go on", file=sys.stderr)
        code = 130
    except Exception as e:
        if "embed.hosts" in sys.modules:
            sys.modules["embed.hosts"].explain(e)
        raise
    console.finish()
    if "embed.hosts" in sys.modules:  # only what computes imports it
        sys.modules["embed.hosts"].leave(code)
    sys.exit(code)
