"""The start of a command that computes: quiet logs, the compilation cache, joining other hosts; and what machine it runs on."""

import importlib.metadata
import logging
import os
import pathlib
import platform
import sys
import warnings


def start(distributed: bool = False) -> None:
    """Sets up JAX for a command. Call it before anything touches a device.

    Compiled programs are kept under $EMBED_COMPILATION_CACHE (default ~/.cache/embed/xla; 'off' keeps none). Several
    hosts meet (`hosts.join`).
    """
    import jax

    from embed import hosts

    for name in ("absl", "asyncio"):  # what Orbax logs in its threads is raised too
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("jax").setLevel(logging.ERROR)
    sys.unraisablehook = _without_closed_loops
    # JAX writes a compiled program in place: another process may read half of it, and compiles it itself.
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry", UserWarning)
    cache = os.environ.get("EMBED_COMPILATION_CACHE", str(pathlib.Path.home() / ".cache" / "embed" / "xla"))
    if cache != "off":
        jax.config.update("jax_compilation_cache_dir", cache)
        for name, value in (("min_compile_time_secs", 0.5), ("min_entry_size_bytes", 0)):
            if f"JAX_PERSISTENT_CACHE_{name.upper()}" not in os.environ:  # which JAX has read
                jax.config.update(f"jax_persistent_cache_{name}", value)
    hosts.join(distributed)


def prepare_for_topologies() -> None:
    """Lets libtpu compile on a machine without a TPU, and quietly. Call it before JAX is imported."""
    variables = {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "TPU_STDERR_LOG_LEVEL": "3",
        "TPU_MIN_LOG_LEVEL": "3",
        "EMBED_COMPILATION_CACHE": "off",  # a TPU's program cannot be read back without one
    }
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def _without_closed_loops(unraisable) -> None:
    """Prints an exception that nobody can catch, but for those of writes that were under way when another write failed.

    tensorstore tells the event loop of Orbax of each of them, which is closed by then; the failure itself has been raised.
    """
    if not (unraisable.exc_type is RuntimeError and str(unraisable.exc_value) == "Event loop is closed"):
        sys.__unraisablehook__(unraisable)


def meets_other_hosts(distributed: bool) -> bool:
    """Returns whether `start` would meet other hosts; for commands that load JAX only then."""
    return distributed or "JAX_COORDINATOR_ADDRESS" in os.environ


def describe() -> dict:
    """Returns the versions and devices that decide whether a run can be reproduced to the bit."""
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
