"""What commands that compute do first: quiet logs, the compilation cache, and joining the other hosts."""

import contextlib
import os
import pathlib
import sys
import time

from embed import console
from embed.commands import options


def log_beside_output(arguments) -> pathlib.Path:
    """Returns where a command with --output, or OUTPUT, keeps what it cannot print any more."""
    return pathlib.Path(arguments.output) / console.LOG


def add_gin_arguments(parser) -> None:
    """Adds --gin_file; `embed.commands.main` collects --gin.NAME=VALUE into `arguments.gin_bindings`."""
    parser.add_argument(
        "--gin_file",
        action="append",
        type=options.path,
        default=[],
        metavar="FILE",
        help="gin file; may be given again",
    )
    parser.set_defaults(gin_bindings=())
    parser.epilog = "--gin.NAME=VALUE overrides a binding of the gin files, e.g. --gin.TRAIN_STEPS=200."


def start(distributed: bool = False) -> None:
    """Sets up JAX for a command. Call it before anything touches a device.

    Compiled programs are kept under $EMBED_COMPILATION_CACHE (default ~/.cache/embed/xla; 'off' keeps none). Several
    hosts meet (`hosts.join`).
    """
    import logging

    import jax

    from embed import hosts

    for name in ("absl", "asyncio"):  # what Orbax logs in its threads is raised too
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("jax").setLevel(logging.ERROR)
    sys.unraisablehook = _without_closed_loops
    cache = os.environ.get("EMBED_COMPILATION_CACHE", str(pathlib.Path.home() / ".cache" / "embed" / "xla"))
    if cache != "off":
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    hosts.join(distributed)


def _without_closed_loops(unraisable) -> None:
    """Prints an exception that nobody can catch, but for those of writes that were under way when another write failed.

    tensorstore tells the event loop of Orbax of each of them, which is closed by then; the failure itself has been raised.
    """
    if not (unraisable.exc_type is RuntimeError and str(unraisable.exc_value) == "Event loop is closed"):
        sys.__unraisablehook__(unraisable)


def of_several_hosts(distributed: bool) -> bool:
    """Returns whether `start` would meet other hosts; for commands that load JAX only then."""
    return distributed or "JAX_COORDINATOR_ADDRESS" in os.environ


def environment() -> dict:
    """Returns the versions and devices that decide whether a run can be reproduced to the bit."""
    import importlib.metadata
    import platform
    import sys

    import jax

    import embed

    packages = (
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "grain",
        "numpy",
        "seqio",
        "sentencepiece",
        "tokenizers",
    )
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "embed": embed.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": versions,
        "devices": {
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
        },
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }


def numbers(flag: str, text: str | None, kind: type = float) -> list | None:
    """Returns the comma-separated numbers of an option, None when it was not given."""
    from embed.errors import UsageError

    try:
        return [kind(part) for part in text.split(",")] if text else None
    except ValueError as e:
        raise UsageError(f"--{flag}={text}: not numbers separated by commas") from e


@contextlib.contextmanager
def text_bar(total: int, every_minute: bool = False):
    """Gives progress(texts): it moves a bar on a terminal; elsewhere it is silent, or says a line `every_minute`."""
    import sys

    if not total or not sys.stderr.isatty():
        yield _Minutes(total) if total and every_minute else lambda texts: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="text", leave=False, dynamic_ncols=True) as bar:
        yield bar.update


class _Minutes:
    """Counts texts and says every minute how far they are."""

    def __init__(self, total: int):
        self._total, self._done, self._begun = total, 0, time.time()
        self._said = self._begun

    def __call__(self, texts: int) -> None:
        self._done += texts
        now = time.time()
        if now - self._said >= 60:
            self._said = now
            rate = self._done / (now - self._begun)
            left = (self._total - self._done) / max(rate, 1e-9) / 60
            print(
                f"{self._done:,} of {self._total:,} texts, {rate:,.0f} a second, {left:,.0f} minutes left", flush=True
            )


def progress_bar(what: str):
    """Returns progress(share) that draws a bar on a terminal and is silent elsewhere."""
    import sys

    if not sys.stderr.isatty():
        return lambda share: None
    from tqdm import tqdm

    bar = tqdm(
        total=100, desc=what, unit="%", leave=False, dynamic_ncols=True, bar_format="{desc} {bar} {percentage:3.0f}%"
    )

    def progress(share: float) -> None:
        bar.update(round(100 * share) - bar.n)
        if share >= 1:
            bar.close()

    return progress


class ShardReport:
    """Says after every shard how far a job is and how fast it goes; `total`, where it is known, is said too. Of several
    hosts the main one tells of its own share."""

    def __init__(self, prefix: str = "", total: int | None = None, unit: str = "texts"):
        self._prefix, self._of, self._unit = prefix, "" if total is None else f" of {total:,}", unit
        self._begun, self._new, self._kept = time.time(), 0, 0

    def __call__(self, count: int, done_before: bool) -> None:
        from embed.training.reports import say

        if done_before:
            self._kept += count
            return
        if self._kept and not self._new:
            say(f"{self._prefix}resuming: {self._kept:,} {self._unit} were done before")
        self._new += count
        rate = self._new / (time.time() - self._begun)
        say(f"{self._prefix}{self._kept + self._new:,}{self._of} {self._unit}, {rate:,.0f} a second")
