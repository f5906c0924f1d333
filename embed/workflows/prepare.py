"""The vocabulary and the token caches of a recipe, before a run needs them."""

import contextlib
import pathlib
import subprocess
import time
from collections.abc import Sequence

import jax

from embed import hosts
from embed.buckets import copies
from embed.data import parts
from embed.data import prepare as data
from embed.data.cache import Cache
from embed.data.text_features import check_lists
from embed.errors import ConfigError, DataError, Preempted, StorageError
from embed.files import FolderLock
from embed.workflows import command_lines, init_from
from embed.workflows.recipe import Recipe

_ERRORS = {error.exit_code: error for error in (DataError, StorageError, ConfigError)}


def run(
    recipe: Recipe, *, workers: int = 1, command: Sequence[str] = (), pipeline: data.Helpers | None = None
) -> list[Cache]:
    """Returns the verified token caches of the recipe's tasks, after fetching files and preparing the caches that are missing.

    With `workers` > 1, tasks of many records are encoded by so many processes on each host. `command` are the words after `embed`
    that build the same recipe in another process. A Beam `pipeline` encodes them in the place of processes of the hosts.
    """
    recipe = init_from.complete(recipe)
    arguments = _arguments(recipe)
    if pipeline is not None:
        with FolderLock(recipe.cache_dir):
            return _checked(recipe, data.ensure_caches(*arguments, fetches=True, helpers=pipeline))
    helpers = _Helpers(recipe.cache_dir, command, workers) if workers > 1 or jax.process_count() > 1 else None
    with helpers or contextlib.nullcontext():
        if hosts.is_main():
            with FolderLock(recipe.cache_dir):
                caches = data.ensure_caches(*arguments, fetches=True, helpers=helpers)
            if helpers is not None:
                helpers.start()  # the other hosts wait for it, though there may be nothing to do
        else:
            helpers.start()
            helpers.wait()
            copies.send(recipe.cache_dir)
    hosts.share(recipe.cache_dir, "the caches are written")
    if not hosts.is_main():
        caches = data.ensure_caches(*arguments, say=lambda line: None)
    return _checked(recipe, caches)


def _checked(recipe: Recipe, caches: list[Cache]) -> list[Cache]:
    """Returns caches whose lists the recipe can use."""
    if not recipe.mixture.only:  # a mixture narrowed to some tasks keeps the settings of all
        check_lists(recipe.record_features, [cache.columns for cache in caches], recipe.mixture.name)
    return caches


def work(recipe: Recipe, index: int, count: int) -> None:
    """Encodes the parts of one of `count` processes, whose results another one puts together."""
    parts.encode(*_arguments(init_from.complete(recipe)), index, count)


def _arguments(recipe: Recipe) -> tuple:
    return recipe.mixture, recipe.tokenizer, recipe.record_features, recipe.cache_dir


class _Helpers:
    """Processes of this host that encode parts, started once and ended with this one. `count` is that of all hosts."""

    def __init__(self, cache_dir, command: Sequence[str], workers: int):
        self._folder, self._command, self._workers = pathlib.Path(cache_dir), command, workers
        self._running: dict[int, subprocess.Popen] = {}
        self._first = jax.process_index() * workers
        self.count = jax.process_count() * workers

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self._running.values():
            child.kill()
            child.wait()
        for index in self._running:
            self._log(index).unlink(missing_ok=True)

    def _log(self, index: int) -> pathlib.Path:
        return self._folder / f".worker-{index}.log"

    def start(self) -> None:
        """Starts them, once; every host must come here."""
        if self._running:
            return
        hosts.share(self._folder, "the vocabulary is there")
        for index in range(self._first, self._first + self._workers):
            line = [*self._command, f"--worker={index}/{self.count}"]
            self._running[index] = command_lines.start(line, self._log(index))

    def check(self, index: int) -> bool:
        """Returns whether one of them has ended; raises the error that it has ended with. That of another host ends that host."""
        child = self._running.get(index)
        code = None if child is None else child.poll()
        if code:
            text = self._log(index).read_text(encoding="utf-8", errors="replace")
            lines = [line for line in text.splitlines() if line.strip() and not line.startswith("$ ")]
            last = lines[-1].removeprefix("embed: ") if lines else ""
            if code not in _ERRORS:
                raise Preempted(
                    f"a process of the preparation was stopped ({code}{f': {last}' if last else ''}); run it again"
                )
            raise _ERRORS[code](last)
        return code is not None

    def wait(self) -> None:
        """Waits until all of this host have ended."""
        while any(child.poll() is None for child in self._running.values()):
            time.sleep(0.2)
        for index in self._running:
            self.check(index)
