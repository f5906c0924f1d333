"""seqio's Task and Mixture made from ours. The only file that imports tensorflow and seqio; only `prepare` calls it."""

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from embed.data import sources
from embed.data.encoding import Lengths, PairEncoder
from embed.data.fields import check_fields, text_of
from embed.data.tasks import AnyTask, Mixture, RegisteredTask
from embed.data.text import clean
from embed.data.tokenizers import Tokenizer
from embed.errors import ConfigError, DataError, EmbedError, did_you_mean

_BATCH = 256
# The texts of an example before it is tokenised; those after `target` may be empty.
_TEXTS = ("location", "query", "target", "title", "target_key", "query_prompt", "target_prompt")
_RAGGED = ("query", "target", "negatives", "negatives_lengths", "negatives_id")


@functools.cache
def _libraries():
    """Imports tensorflow and seqio quietly, without letting tensorflow take an accelerator."""
    import logging
    import warnings

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings(), _silent_stderr():
        warnings.simplefilter("ignore")
        import seqio
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return seqio, tf


@contextlib.contextmanager
def _silent_stderr():
    """Drops what C++ code writes to stderr: tensorflow reports missing GPUs there before its log level counts."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _silently(rows: Iterator[Any]) -> Iterator[Any]:
    """Yields the same, without the pages that tensorflow's C++ code writes to stderr when a row is bad."""
    while True:
        with _silent_stderr():
            row = next(rows, None)
        if row is None:
            return
        yield row


def seqio_name(name: str) -> str:
    """Returns a task's name as seqio's registry takes it: what it does not allow becomes '_'."""
    return re.sub(r"[^\w.:#]", "_", name)


def registered_name(task: AnyTask) -> str:
    """Returns what our tokenised task is called in seqio's registry."""
    return seqio_name(task.name) + ("_tokens" if isinstance(task, RegisteredTask) else "")


def vocabulary(tokenizer: Tokenizer):
    """Returns `tokenizer` as a seqio Vocabulary. Special tokens are added by the tokenizer itself, never by seqio."""
    seqio, tf = _libraries()

    class TokenizerVocabulary(seqio.Vocabulary):
        def __init__(self):
            super().__init__(extra_ids=0)

        @property
        def _base_vocab_size(self):
            return tokenizer.vocab_size

        @property
        def pad_id(self):
            return tokenizer.pad_id

        @property
        def bos_id(self):
            return None

        @property
        def eos_id(self):
            return None

        @property
        def unk_id(self):
            return None

        def _encode(self, s):
            return tokenizer.encode_batch([s], 1 << 30)[0][0].tolist()

        def _decode(self, ids):
            return tokenizer.decode(ids)

        def _encode_tf(self, s):
            encode = lambda x: np.array(self._encode(np.asarray(x).item().decode()), np.int32)  # noqa: E731
            rows = tf.numpy_function(encode, [s], tf.int32)
            rows.set_shape([None])
            return rows

        def _decode_tf(self, ids):
            return tf.numpy_function(lambda x: self._decode(x).encode(), [ids], tf.string)

        def __eq__(self, other):
            # Each call makes its own class; seqio mixes tasks whose vocabularies are equal.
            return getattr(other, "tokenizer_digest", None) == self.tokenizer_digest

        __hash__ = None
        tokenizer_digest = tokenizer.digest

    return TokenizerVocabulary()


class _Failures:
    """Keeps the error raised inside tf.data, which would otherwise reach the user as a page of graph dump."""

    def __init__(self):
        self.first: Exception | None = None

    def wrap(self, function):
        @functools.wraps(function)
        def wrapped(*args):
            try:
                return function(*args)
            except Exception as e:
                self.first = self.first or e
                raise

        return wrapped

    def generator(self, iterable):
        def generate():
            try:
                yield from iterable()
            except Exception as e:
                self.first = self.first or e
                raise

        return generate


def _source(task, failures: _Failures):
    """Returns the seqio DataSource of a task; its examples hold the texts and `location`."""
    seqio, tf = _libraries()
    if isinstance(task.source, sources.Tfds):
        check_fields(task.source.fields, "Tfds")
        return seqio.TfdsDataSource(
            tfds_name=task.source.name, tfds_data_dir=task.source.data_dir, splits={"train": task.source.split}
        )

    def rows():
        for location, record in task.source.examples():
            texts = {name: record.get(name, "") for name in _TEXTS}
            yield {**texts, "location": location, "negatives": record.get("negatives", [])}

    def dataset(split, shuffle_files, seed=None):
        del split, shuffle_files, seed
        text = tf.TensorSpec([], tf.string)
        signature = dict.fromkeys(_TEXTS, text)
        return tf.data.Dataset.from_generator(
            failures.generator(rows), output_signature={**signature, "negatives": tf.TensorSpec([None], tf.string)}
        )

    return seqio.FunctionDataSource(dataset_fn=dataset, splits=["train"])


def _from_tfds(task):
    """Returns the preprocessor that maps a TFDS example's fields to our roles."""
    _, tf = _libraries()

    @tf.autograph.experimental.do_not_convert
    def rekey(number, example):
        fields = task.source.fields
        missing = [f for f in fields.values() if f not in example]
        if missing:
            raise DataError(f"{task.source.name}: no field {missing[0]!r}; it has {', '.join(sorted(example))}")
        negatives = (
            tf.reshape(example[fields["negatives"]], [-1]) if "negatives" in fields else tf.zeros([0], tf.string)
        )
        texts = {name: example[fields[name]] if name in fields else tf.constant("") for name in _TEXTS}
        location = tf.strings.join([task.source.name, tf.strings.as_string(number)], ":")
        return {**texts, "location": location, "negatives": negatives}

    return lambda dataset: dataset.enumerate().map(rekey)


def _tokenize(encoder: PairEncoder, failures: _Failures):
    """Returns the preprocessor from texts to token ids, in batches for the tokenizers' sake."""
    _, tf = _libraries()

    def encode(*arrays):
        *texts, negatives, counts = arrays
        negatives, records = iter(negatives.tolist()), []
        for values, count in zip(zip(*texts), counts):
            location, query, target, title, *others = values
            location = location.decode()
            record = {
                "query": text_of(query, "query", location),
                "target": text_of(target, "target", location),
                "title": clean(title.decode()),
                **{name: text.decode() for name, text in zip(_TEXTS[4:], others)},
                "negatives": [text_of(next(negatives), "negatives", location) for _ in range(count)],
            }
            records.append(record)
        rows = encoder(records)
        flat = lambda name: np.concatenate([r[name] for r in rows])  # noqa: E731
        size = lambda name: np.array([len(r[name]) for r in rows], np.int64)  # noqa: E731
        ids = np.array([[r["query_id"], r["target_id"], *r["target_text_ids"]] for r in rows], np.int64)
        cut = np.stack([r["truncated"] for r in rows])
        parts = [f(n) for n in _RAGGED for f in (flat, size)]
        return *parts, ids, cut

    def batch(x):
        negatives = x["negatives"]
        if not isinstance(negatives, tf.RaggedTensor):  # a source whose examples all have the same number of them
            negatives = tf.RaggedTensor.from_tensor(negatives)
        out = tf.numpy_function(
            failures.wrap(encode),
            [*(x[name] for name in _TEXTS), negatives.flat_values, negatives.row_lengths()],
            [tf.int32, tf.int64] * 4 + [tf.int64, tf.int64] + [tf.int64, tf.int32],
        )
        rows = {}
        for i, name in enumerate(_RAGGED):
            values = tf.ensure_shape(out[2 * i], [None])
            rows[name] = tf.RaggedTensor.from_row_lengths(values, tf.ensure_shape(out[2 * i + 1], [None]))
        return {**rows, "ids": tf.ensure_shape(out[10], [None, 4]), "truncated": tf.ensure_shape(out[11], [None, 3])}

    return lambda dataset: dataset.ragged_batch(_BATCH).map(batch).unbatch()


def to_seqio(task: AnyTask, tokenizer: Tokenizer, lengths: Lengths, failures: _Failures | None = None):
    """Returns the seqio Task of a declared task: source, preprocessors (prompts included), features.

    A task that a user's module registered keeps its name there; ours, tokenised, is called `<name>_tokens`.

    Features: `query`, `target` (token ids), `negatives` (ids one after the other) and `negatives_lengths`.
    """
    seqio, tf = _libraries()
    failures = failures or _Failures()
    encoder = PairEncoder(tokenizer, lengths, task.query_prompt, task.target_prompt)
    if isinstance(task, RegisteredTask):
        inner = _registered(task)
        source, first = inner.source, list(inner.preprocessors)
        first.append(_complete(task))
    else:
        source = _source(task, failures)
        first = [_from_tfds(task)] if isinstance(task.source, sources.Tfds) else []
    words = vocabulary(tokenizer)
    features = {
        name: seqio.Feature(words, add_eos=False, dtype=tf.int32)
        for name in ("query", "target", "negatives", "negatives_lengths")
    }
    return seqio.Task(
        registered_name(task),
        source=source,
        output_features=features,
        preprocessors=[*first, _tokenize(encoder, failures)],
    )


def _registered(task: RegisteredTask):
    """Returns the seqio Task that the user's module registered."""
    import importlib

    seqio, _ = _libraries()
    try:
        importlib.import_module(task.module)
    except ImportError as e:
        raise DataError(f"task {task.name!r}: cannot import its module {task.module!r} ({e}); correct the path") from e
    names = seqio.TaskRegistry.names()
    if task.name not in names:
        raise DataError(f"module {task.module!r} registers no task {task.name!r}{did_you_mean(task.name, names)}")
    return seqio.TaskRegistry.get(task.name)


def _complete(task: RegisteredTask):
    """Returns the preprocessor that gives a user's own text examples the fields that are optional for him."""
    _, tf = _libraries()

    @tf.autograph.experimental.do_not_convert
    def complete(number, example):
        for side in ("query", "target"):
            if side not in example or example[side].dtype != tf.string:
                raise DataError(f"task {task.name!r}: its examples need a text {side!r}; it gives {sorted(example)}")
        texts = {name: example.get(name, tf.constant("")) for name in _TEXTS}
        location = tf.strings.join([task.name, tf.strings.as_string(number)], ":")
        negatives = tf.reshape(example.get("negatives", tf.zeros([0], tf.string)), [-1])
        return {**texts, "location": location, "negatives": negatives}

    return lambda dataset: dataset.enumerate().map(complete)


def register(mixture: Mixture, tokenizer: Tokenizer, lengths: Lengths, sizes: Mapping[str, int]) -> None:
    """Adds the mixture and its tasks to seqio's registries, for use with any seqio tool."""
    seqio, _ = _libraries()
    names = {t.name: registered_name(t) for t in mixture.tasks}
    if len(set(names.values())) < len(names):
        raise ConfigError(
            f"mixture {mixture.name!r}: two task names are the same to seqio ({sorted(names.values())}); rename one"
        )
    for task in mixture.tasks:
        made = to_seqio(task, tokenizer, lengths)
        if names[task.name] not in seqio.TaskRegistry.names():
            seqio.TaskRegistry.add_provider(names[task.name], made)
    if seqio_name(mixture.name) not in seqio.MixtureRegistry.names():
        rates = [(names[t.name], share) for t, share in zip(mixture.tasks, mixture.shares(sizes))]
        seqio.MixtureRegistry.add(seqio_name(mixture.name), rates)


def examples(task: AnyTask, tokenizer: Tokenizer, lengths: Lengths) -> Iterator[dict[str, Any]]:
    """Yields the tokenised examples of a task in the order of its source, through its seqio Task."""
    _libraries()
    failures = _Failures()
    split = task.split if isinstance(task, RegisteredTask) else "train"
    try:
        made = to_seqio(task, tokenizer, lengths, failures)
        limits = {"query": lengths.query, "target": lengths.target, "negatives": None, "negatives_lengths": None}
        dataset = made.get_dataset(limits, split=split, shuffle=False, trim_output_features=False)
        for row in _silently(dataset.as_numpy_iterator()):
            ids = row.pop("ids")
            yield {**row, "query_id": ids[0], "target_id": ids[1], "target_text_ids": ids[2:]}
    except EmbedError:
        raise
    except Exception as e:  # tensorflow and tfds wrap faults of the source in types of their own, pages long
        if isinstance(failures.first, EmbedError):
            raise failures.first from e
        cause = failures.first or e
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise DataError(f"task {task.name!r}: {lines[0][:300]}; correct the source") from e
