"""The start of a command in this process: the compilation cache, quiet logs, other hosts; and the description of a machine."""

import importlib.metadata
import json
import logging
import os
import platform
import sys
import types
import warnings

import jax
import pytest

import embed
from embed import environment, hosts

NAMES = ("absl", "asyncio", "jax")
OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def joined(monkeypatch):
    """What `hosts.join` is told; all that a start changes is put back."""
    told = []
    monkeypatch.setattr(hosts, "join", told.append)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    levels = {name: logging.getLogger(name).level for name in NAMES}
    options = {name: getattr(jax.config, name) for name in OPTIONS}
    yield told
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    for name, value in options.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_the_folder_that_the_environment_names(joined, monkeypatch, tmp_path):
    monkeypatch.setenv("EMBED_COMPILATION_CACHE", str(tmp_path))
    for name in OPTIONS[1:]:
        monkeypatch.delenv(name.upper(), raising=False)
    environment.start()
    assert [getattr(jax.config, name) for name in OPTIONS] == [str(tmp_path), 0.5, 0]


def test_what_the_user_gives_jax_is_kept(joined, monkeypatch, tmp_path):
    monkeypatch.setenv("EMBED_COMPILATION_CACHE", str(tmp_path))
    for name, value in zip(OPTIONS[1:], (7.0, 5)):
        monkeypatch.setenv(name.upper(), str(value))
        jax.config.update(name, value)
    environment.start()
    assert [getattr(jax.config, name) for name in OPTIONS] == [str(tmp_path), 7.0, 5]


def test_without_a_name_they_are_kept_at_home(joined, monkeypatch, tmp_path):
    monkeypatch.delenv("EMBED_COMPILATION_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    environment.start()
    assert jax.config.jax_compilation_cache_dir == f"{tmp_path}/.cache/embed/xla"


def test_none_are_kept_when_the_cache_is_off(joined, monkeypatch):
    jax.config.update("jax_compilation_cache_dir", "before")
    monkeypatch.setenv("EMBED_COMPILATION_CACHE", "off")
    environment.start()
    assert jax.config.jax_compilation_cache_dir == "before"


@pytest.mark.parametrize("distributed", [False, True])
def test_a_start_quiets_the_logs_and_then_meets_other_hosts(joined, monkeypatch, distributed):
    environment.start(distributed)
    assert joined == [distributed]
    assert [logging.getLogger(name).level for name in NAMES] == [logging.CRITICAL, logging.CRITICAL, logging.ERROR]
    shown = []
    monkeypatch.setattr(sys, "__unraisablehook__", lambda unraisable: shown.append(unraisable.exc_value))
    closed, other = RuntimeError("Event loop is closed"), RuntimeError("another error")
    for error in (closed, other, OSError("Event loop is closed")):
        sys.unraisablehook(types.SimpleNamespace(exc_type=type(error), exc_value=error))
    assert shown[0] is other and [type(e) for e in shown] == [RuntimeError, OSError]


def test_what_a_user_sets_for_topologies_is_left(monkeypatch):
    changed = {"PATH": "/bin", "JAX_PLATFORMS": "tpu", "TPU_MIN_LOG_LEVEL": "0"}
    monkeypatch.setattr(os, "environ", dict(changed))
    environment.prepare_for_topologies()
    assert os.environ == {
        **changed,
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "TPU_STDERR_LOG_LEVEL": "3",
        "EMBED_COMPILATION_CACHE": "off",
    }


@pytest.mark.parametrize("distributed, coordinator, meets", [(0, 0, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)])
def test_other_hosts_are_met_when_it_is_asked_for_or_a_coordinator_is_set(monkeypatch, distributed, coordinator, meets):
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    if coordinator:
        monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    assert environment.meets_other_hosts(bool(distributed)) is bool(meets)


def test_a_machine_is_described_by_what_decides_whether_a_run_can_be_repeated(monkeypatch):
    jax.devices()  # reads the flags as they are
    monkeypatch.setenv("XLA_FLAGS", "--a=1")
    versions = {"jax": "1.2", "numpy": "3.4"}

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = environment.describe()
    assert json.loads(json.dumps(found)) == found
    assert found["embed"] == embed.__version__ and found["XLA_FLAGS"] == "--a=1"
    assert found["python"] == platform.python_version()
    assert (found["packages"]["jax"], found["packages"]["numpy"]) == ("1.2", "3.4")
    assert found["packages"]["seqio"] is None, "a package that is not installed"
    assert found["devices"] == {"kind": "cpu", "count": 8, "processes": 1}
    monkeypatch.delenv("XLA_FLAGS")
    assert environment.describe()["XLA_FLAGS"] == ""


def test_a_half_written_program_of_another_process_is_compiled_without_a_word(joined, monkeypatch):
    monkeypatch.setenv("EMBED_COMPILATION_CACHE", "off")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        environment.start()
        warnings.warn("Error reading persistent compilation cache entry for 'step': cut", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning):
            warnings.warn("another", UserWarning, stacklevel=1)
