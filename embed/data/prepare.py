"""From a recipe's declarations to what training reads: the vocabulary, then one token cache per task."""

import itertools
import pathlib
from collections.abc import Callable, Iterator

from embed import files
from embed.data import cache, seqio_tasks, text
from embed.data.encoding import Lengths, prompts_of
from embed.data.tasks import AnyTask, Mixture, Task
from embed.data.tokenizers import SentencePiece, Tokenizer, train_sentencepiece
from embed.errors import ConfigError, DataError, EmbedError

Say = Callable[[str], None]
_VOCABULARY_CHARACTERS = 10_000_000  # enough for a small vocabulary; training takes seconds


def ensure_vocabulary(tokenizer: Tokenizer, mixture: Mixture, say: Say = print) -> None:
    """Trains the SentencePiece vocabulary on the mixture's texts when its file is not there and a size is given.

    A file of another size than the one to train is a ConfigError.
    """
    path = pathlib.Path(tokenizer.path)
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
    texts = _Remembering(_texts(mixture))
    try:
        model = train_sentencepiece(texts, tokenizer.train_vocab_size)
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


def _texts(mixture: Mixture) -> Iterator[str]:
    """Yields texts with the prompts of their tasks, tasks in turn, up to a fixed number of characters."""
    streams = []
    for task in mixture.tasks:
        if not isinstance(task, Task) or not hasattr(task.source, "examples"):
            raise DataError(
                f"task {task.name!r}: a vocabulary cannot be trained on it; give an existing vocabulary file"
            )
        streams.append(_prompted(task))
    total = 0
    for one in itertools.chain.from_iterable(itertools.zip_longest(*streams)):
        if one is None:
            continue
        yield from one
        total += sum(map(len, one))
        if total > _VOCABULARY_CHARACTERS:
            return


def _prompted(task: Task) -> Iterator[tuple[str, str]]:
    for _, record in task.source.examples():
        ask, answer = prompts_of(record, task.query_prompt, task.target_prompt)
        yield (
            text.apply_prompt(ask, record["query"]),
            text.apply_prompt(answer, record["target"][:4000], record.get("title", "")),
        )


def ensure_caches(
    mixture: Mixture, tokenizer: Tokenizer, lengths: Lengths, cache_dir, say: Say = print
) -> list[cache.Cache]:
    """Returns the verified caches of a mixture's tasks, preparing those that are missing through their seqio tasks."""
    mixture.check()
    ensure_vocabulary(tokenizer, mixture, say)
    caches = []
    for task in mixture.tasks:
        found = cache.find(task, tokenizer, lengths, cache_dir) or _prepare(task, tokenizer, lengths, cache_dir, say)
        say(summary(found))
        caches.append(found)
    return caches


def _prepare(task: AnyTask, tokenizer: Tokenizer, lengths: Lengths, cache_dir, say: Say) -> cache.Cache:
    """Returns the cache of a task after writing it, or after another run on this machine has."""
    folder = cache.folder_of(task, tokenizer, lengths, cache_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    wait = lambda holder: say(f"task {task.name!r}: waiting for {holder}, which prepares its token cache")  # noqa: E731
    with files.Lock(folder.with_name(f".{folder.name}.preparing"), folder, wait):
        found = cache.find(task, tokenizer, lengths, cache_dir)
        if found is not None:
            return found
        say(f"task {task.name!r}: preparing its token cache")
        rows = seqio_tasks.examples(task, tokenizer, lengths)
        report = lambda n: say(f"task {task.name!r}: {n} examples") if n % 10_000 == 0 else None  # noqa: E731
        return cache.write(task, tokenizer, lengths, cache_dir, rows, report)


def summary(found: cache.Cache) -> str:
    """Returns one line about a cache: examples, tokens, share truncated."""
    m = found.manifest
    cut = ", ".join(
        f"{m['truncated'][side] / len(found):.1%} of {side} texts truncated"
        for side in ("query", "target", "negatives")
        if m["truncated"][side]
    )
    tokens = " + ".join(f"{m['tokens'][side] / len(found):.0f} {side}" for side in ("query", "target"))
    repeated = (
        f", {m['false_negatives']:,} negatives are positives of their query and are left out"
        if m["false_negatives"]
        else ""
    )
    bad = m.get("bad_records")
    skipped = f", {bad['skipped']:,} bad records are left out, such as {bad['first'][0]}" if bad else ""
    return (
        f"task {found.name!r}: {len(found)} examples, {tokens} tokens on average, "
        f"{cut or 'none truncated'}{repeated}{skipped}"
    )
