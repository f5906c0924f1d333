"""From a recipe's declarations to what training reads: the vocabulary, then one token cache per task."""

import itertools
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from embed import files
from embed.data import cache, parts, records, seqio_tasks
from embed.data.features import Feature
from embed.data.forecast import Forecast, forecast
from embed.data.record_encoder import prompts_of
from embed.data.tasks import AnyTask, Mixture, Task
from embed.data.tokenizers import SentencePiece, Tokenizer, train_sentencepiece
from embed.errors import ConfigError, DataError, EmbedError

Say = Callable[[str], None]


class Helpers(Protocol):
    """Other processes that encode parts of the tasks (`parts.encode`). `count` is their number, on all hosts."""

    count: int

    def start(self) -> None:
        """Starts them, once."""

    def check(self, index: int) -> bool:
        """Returns whether one of them has ended; raises the error that it has ended with."""


_VOCABULARY_CHARACTERS = 10_000_000  # enough for a small vocabulary; training takes seconds
_VOCABULARY_TEXT = 4000  # of the characters of one text


def ensure_vocabulary(tokenizer: Tokenizer, mixture: Mixture, features: Sequence[Feature], say: Say = print) -> None:
    """Trains the SentencePiece vocabulary on the mixture's texts when its file is not there and a size is given.

    A file of another size than the one to train is a ConfigError.
    """
    path = pathlib.Path(tokenizer.path)
    if isinstance(tokenizer, SentencePiece) and tokenizer.train_sentinels and tokenizer.train_vocab_size is None:
        raise ConfigError(
            f"SentencePiece.train_sentinels = {tokenizer.train_sentinels} has no effect without train_vocab_size; give both or none"
        )
    if not isinstance(tokenizer, SentencePiece) or tokenizer.train_vocab_size is None:
        return
    if path.exists():
        if tokenizer.vocab_size != tokenizer.train_vocab_size:
            raise ConfigError(
                f"{path}: has {tokenizer.vocab_size} pieces, but SentencePiece.train_vocab_size = "
                f"{tokenizer.train_vocab_size}; remove the file to train it anew, or give its size"
            )
        return
    say(f"vocabulary: training {tokenizer.train_vocab_size} pieces on mixture {mixture.name!r}")
    texts = _Remembering(_texts(mixture, features))
    try:
        sentinels = [f"<unused{i}>" for i in range(tokenizer.train_sentinels)]
        model = train_sentencepiece(texts, tokenizer.train_vocab_size, sentinels)
    except DataError:
        if texts.error is not None:
            raise texts.error from None
        raise
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, model)
    say(f"vocabulary: wrote {path} ({len(model) / 1e6:.2f} MB)")


class _Remembering:
    """An iterator that keeps the error which ended it: SentencePiece's trainer raises one of its own instead."""

    def __init__(self, texts: Iterator[str]):
        self._texts = texts
        self.error: EmbedError | None = None

    def __iter__(self):
        return self

    def __next__(self) -> str:
        try:
            return next(self._texts)
        except EmbedError as e:
            self.error = e
            raise


def _texts(mixture: Mixture, features: Sequence[Feature]) -> Iterator[str]:
    """Yields texts with the prompts of their tasks, tasks in turn, up to a fixed number of characters."""
    streams = []
    for task in mixture.tasks:
        if not isinstance(task, Task) or not hasattr(task.source, "examples"):
            raise DataError(
                f"task {task.name!r}: a vocabulary cannot be trained on it; give an existing vocabulary file"
            )
        streams.append(_texts_of(task, features))
    total = 0
    for one in itertools.chain.from_iterable(itertools.zip_longest(*streams)):
        if one is None:
            continue
        yield from one
        total += sum(map(len, one))
        if total > _VOCABULARY_CHARACTERS:
            return


def _texts_of(task: Task, features: Sequence[Feature]) -> Iterator[list[str]]:
    """Yields the texts of each record that a vocabulary is trained on."""
    for _, record in task.source.examples():
        templates = dict(zip(("query", "target"), prompts_of(record, task.query_prompt, task.target_prompt)))
        yield [one for feature in features for one in feature.vocabulary_texts(record, templates, _VOCABULARY_TEXT)]


def ensure_caches(
    mixture: Mixture,
    tokenizer: Tokenizer,
    features: Sequence[Feature],
    cache_dir,
    say: Say = print,
    fetches=False,
    helpers: Helpers | None = None,
) -> list[cache.Cache]:
    """Returns the verified caches of a mixture's tasks, preparing those that are missing through their seqio tasks.

    A source such as `WebImages` fetches its files before it is read. With `fetches` all sources do, also those whose caches are
    there: files that failed before may come now, and a cache of more records replaces that of fewer. With `helpers` tasks of many
    records are prepared by several processes, to the same bytes.
    """
    mixture.check()
    fetches = fetches or _is_trained(tokenizer)
    for task in mixture.tasks if fetches else ():
        _fetch(task, say)
    ensure_vocabulary(tokenizer, mixture, features, say)
    if helpers is not None:
        parts.begin(cache_dir)
    caches = []
    for task in mixture.tasks:
        cached = cache.find(task, tokenizer, features, cache_dir)
        if cached is None:
            if not fetches:
                _fetch(task, say)
            cached = _prepare(task, tokenizer, features, cache_dir, say, helpers)
        say(summary(cached))
        caches.append(cached)
    return caches


def _is_trained(tokenizer: Tokenizer) -> bool:
    """Returns whether `ensure_vocabulary` trains a vocabulary, unless it raises an error."""
    return (
        isinstance(tokenizer, SentencePiece)
        and tokenizer.train_vocab_size is not None
        and not pathlib.Path(tokenizer.path).exists()
    )


def _fetch(task: AnyTask, say: Say) -> None:
    fetch = getattr(getattr(task, "source", None), "fetch", None)
    if fetch is not None:
        fetch(say)


def _prepare(
    task: AnyTask, tokenizer: Tokenizer, features: Sequence[Feature], cache_dir, say: Say, helpers: Helpers | None
) -> cache.Cache:
    """Returns the cache of a task after writing it, or after another run on this machine has."""
    folder = cache.folder_of(task, tokenizer, features, cache_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    wait = lambda holder: say(f"task {task.name!r}: waiting for {holder}, which prepares its token cache")  # noqa: E731
    with files.Lock(folder.with_name(f".{folder.name}.preparing"), folder, wait):
        cached = cache.find(task, tokenizer, features, cache_dir)
        if cached is not None:
            return cached
        for old in cache.outdated(task, cache_dir):
            say(
                f"task {task.name!r}: {old} is of an older version of embed, and is prepared again; nothing reads it any more"
            )
        encoded = parts.folder_of(folder)
        expected = forecast(task, tokenizer, features)
        if expected is not None:
            say(f"task {task.name!r}: {expected.text(1 if helpers is None else helpers.count)}")
        if helpers is not None and parts.is_shared(task):
            say(f"task {task.name!r}: preparing its cache, {helpers.count} processes")
            helpers.start()
            packed: Iterable[bytes] = parts.examples(encoded, helpers.count, helpers.check)
        else:
            say(f"task {task.name!r}: preparing its cache")
            packed = seqio_tasks.examples(task, tokenizer, features)
        packed = _unchanged(
            packed, task, lambda: cache.folder_of(task, tokenizer, features, cache_dir) == folder, encoded
        )
        fields = seqio_tasks.written_fields(features)
        rows = (records.unpack(one, fields) for one in packed)
        cached = cache.write(task, tokenizer, features, cache_dir, rows, _Report(task.name, say, expected))
        shutil.rmtree(encoded, ignore_errors=True)
        return cached


def _unchanged(
    rows: Iterable[bytes], task: AnyTask, is_same: Callable[[], bool], encoded: pathlib.Path
) -> Iterator[bytes]:
    """Yields the same; a source that has changed when the last has come is a DataError, and its parts are removed."""
    yield from rows
    if not is_same():
        shutil.rmtree(encoded, ignore_errors=True)
        raise DataError(f"task {task.name!r}: its source changed while it was read; run the command again")


class _Report:
    """Says every 10,000 examples how many there are, how many come a second, and how long the others will take."""

    def __init__(self, name: str, say: Say, expected: Forecast | None):
        self._name, self._say, self._began = name, say, time.monotonic()
        self._total = None if expected is None else expected.records

    def __call__(self, count: int) -> None:
        if count % 10_000 == 0:
            rate = count / max(time.monotonic() - self._began, 1e-9)
            of = "" if self._total is None else f" of about {self._total:,}"
            left = "" if self._total is None else f", {max(0, self._total - count) / rate / 60:,.1f} minutes left"
            self._say(f"task {self._name!r}: {count:,}{of} examples, {rate:,.0f} a second{left}")


def summary(cached: cache.Cache) -> str:
    """Returns one line about a cache: examples, tokens, share truncated."""
    m = cached.manifest
    texts = {name: count for name, count in m["texts"].items() if count}
    averages = " + ".join(f"{m['tokens'][name] / count:.0f} {name}" for name, count in texts.items())
    cut = [f"{m['truncated'][n] / count:.1%} of {n} texts truncated" for n, count in texts.items() if m["truncated"][n]]
    parts = [f"{len(cached)} examples"]
    parts += [f"{averages} tokens on average", ", ".join(cut) or "none truncated"] if texts else []
    parts += [f"{n:,} {name} are positives of their query and are left out" for name, n in m["left_out"].items() if n]
    bad = m.get("bad_records")
    parts += [] if cached.has_source else ["its source is not on this machine, and the cache is taken as it is"]
    parts += [f"{bad['skipped']:,} bad records are left out, such as {bad['first'][0]}"] if bad else []
    return f"task {cached.name!r}: " + ", ".join(parts)
