"""seqio's Task and Mixture made from ours. Only `prepare` calls it."""

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from embed import sources
from embed.data import records
from embed.data.features import Feature, Role, parse_value, roles_of
from embed.data.record_encoder import RecordEncoder
from embed.data.records import Field
from embed.data.seqio_library import BATCH, libraries, strings_of
from embed.data.tasks import AnyTask, Mixture, RegisteredTask
from embed.data.text_features import TextFeature, text_features
from embed.data.tokenizers import Tokenizer
from embed.errors import ConfigError, DataError, EmbedError, did_you_mean
from embed.sources.fields import check_fields

_RECORD = "record"
Chosen = Callable[[int], bool] | None


def seqio_name(name: str) -> str:
    """Returns a task's name as seqio's registry takes it: what it does not allow becomes '_'."""
    return re.sub(r"[^\w.:#]", "_", name)


def registered_name(task: AnyTask) -> str:
    """Returns what our tokenised task is called in seqio's registry."""
    return seqio_name(task.name) + ("_tokens" if isinstance(task, RegisteredTask) else "")


def vocabulary(tokenizer: Tokenizer):
    """Returns `tokenizer` as a seqio Vocabulary. Special tokens are added by the tokenizer itself, never by seqio."""
    seqio, tf = libraries()

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


def _source(task, features: Sequence[Feature], failures: _Failures, is_chosen: Chosen):
    """Returns the seqio DataSource of a task.

    Of our own sources only records whose number `is_chosen` are taken, and an example is one string (`_to_string`): with a tensor
    for each role, tensorflow would take ten times as long as the encoding.
    """
    seqio, tf = libraries()
    owner, fields, roles = type(task.source).__name__, getattr(task.source, "fields", None), roles_of(features)
    if fields is not None:
        check_fields(fields, {name: not role.optional for name, role in roles.items()}, owner)
    if isinstance(task.source, sources.Tfds):
        return seqio.TfdsDataSource(
            tfds_name=task.source.name,
            tfds_data_dir=task.source.data_dir,
            splits={"train": task.source.split},
            decoders=task.source.decoders([name for name, role in roles.items() if role.kind in ("bytes", "files")]),
        )

    bad = lambda: getattr(task.source, "bad_records", None)  # noqa: E731 - counted anew by `examples`

    def strings():
        for number, (location, record) in enumerate(task.source.examples()):
            if is_chosen is not None and not is_chosen(number):
                continue
            try:
                values = {
                    name: parse_value(record.get(name), role, (fields or {}).get(name, name), location)
                    for name, role in roles.items()
                }
                for feature in features if bad() is not None and bad().skips else ():
                    feature.check_record({"location": location, **values})
            except DataError as e:
                if bad() is None:
                    raise
                bad().refuse(e, was_read=True)
                continue
            yield _to_string(location, values)
        if bad() is not None:
            bad().check()

    def batches():
        iterator = strings()
        while batch := list(itertools.islice(iterator, BATCH)):
            yield batch

    def dataset(split, shuffle_files, seed=None):
        del split, shuffle_files, seed
        several = tf.TensorSpec([None], tf.string)
        batched = tf.data.Dataset.from_generator(failures.generator(batches), output_signature=several)
        return batched.unbatch().map(lambda string: {_RECORD: string})

    return seqio.FunctionDataSource(dataset_fn=dataset, splits=["train"])


def _to_string(location: str, values: Mapping[str, Any]) -> bytes:
    """Returns a record's parsed values (`features.parse_value`), and where it stands, as one string."""
    return msgspec.msgpack.encode({"location": location, **values})


_LISTS = ("texts", "files", "numbers")  # kinds of roles with several values


def _as_kind(value, kind: str):
    """Returns a tensor of an example as its role's kind has it; None is for a value that is not there."""
    _, tf = libraries()
    if kind in _LISTS:
        dtype = tf.float64 if kind == "numbers" else tf.string
        return tf.zeros([0], dtype) if value is None else tf.cast(tf.reshape(value, [-1]), dtype)
    if value is None:
        return tf.constant("")
    if kind == "bytes" and value.dtype == tf.uint8:
        return tf.io.encode_png(value)  # of a user's own task, which decoded it
    return value if value.dtype == tf.string else tf.strings.as_string(value)


def _rename(name: str, fields: Mapping[str, str], roles: Mapping[str, Role]):
    """Returns the preprocessor that gives the examples of TFDS, or of a user's own task, the values of the roles and `location`."""
    _, tf = libraries()

    @tf.autograph.experimental.do_not_convert
    def rename(number, example):
        for role, field in fields.items():
            if field not in example and not roles[role].optional:
                raise DataError(f"{name}: no field {field!r} (mapped to {role}); it has {', '.join(sorted(example))}")
            if field in example and roles[role].kind == "texts" and example[field].dtype != tf.string:
                raise DataError(f"{name}: field {field!r} is {example[field].dtype.name}, expected a text")
        location = tf.strings.join([name, tf.strings.as_string(number)], ":")
        values = {role: _as_kind(example.get(fields.get(role, role)), kind.kind) for role, kind in roles.items()}
        return {"location": location, **values}

    return lambda dataset: dataset.enumerate().map(rename)


def _strings(roles: Mapping[str, Role], failures: _Failures):
    """Returns the preprocessor from what `_rename` gives to one string an example, as our own sources give it."""
    _, tf = libraries()

    def string(location, *arrays):
        location = location.decode()
        values = {n: parse_value(x, role, n, location) for (n, role), x in zip(roles.items(), arrays)}
        return _to_string(location, values)

    def one(x):
        packed = tf.numpy_function(failures.wrap(string), [x["location"], *(x[name] for name in roles)], tf.string)
        return {_RECORD: tf.ensure_shape(packed, [])}

    return lambda dataset: dataset.map(one)


def _only(is_chosen: Callable[[int], bool], failures: _Failures):
    """Returns the preprocessor that leaves out examples whose number is not chosen."""
    _, tf = libraries()
    choose = failures.wrap(lambda number: np.bool_(is_chosen(int(number))))

    @tf.autograph.experimental.do_not_convert
    def keep(number, example):
        return tf.ensure_shape(tf.numpy_function(choose, [number], tf.bool), [])

    return lambda dataset: dataset.enumerate().filter(keep).map(lambda number, example: example)


def written_fields(features: Sequence[Feature]) -> list[Field]:
    """Returns all arrays that features encode, those that a cache does not keep among them."""
    return [field for f in features for field in (*f.fields, *(f.counted if isinstance(f, TextFeature) else ()))]


def _encode(encoder: RecordEncoder, failures: _Failures):
    """Returns the preprocessor from records, a string each, to their packed arrays (`records.pack`), in batches for the tokenizers'
    sake."""
    _, tf = libraries()
    fields = written_fields(encoder.features)

    def encode(strings):
        rows = encoder([msgspec.msgpack.decode(string) for string in strings])
        return np.array([records.pack(row, fields) for row in rows], object)

    def batch(x):
        packed = tf.numpy_function(failures.wrap(encode), [x[_RECORD]], tf.string)
        return {_RECORD: tf.ensure_shape(packed, [None])}

    return lambda dataset: dataset.batch(BATCH).map(batch).unbatch()


def _unpack(fields: Sequence[Field]):
    """Returns the preprocessor from packed arrays to arrays."""
    _, tf = libraries()

    def one(x):
        unpack = lambda packed: list(records.unpack(packed, fields).values())  # noqa: E731
        arrays = tf.numpy_function(unpack, [x[_RECORD]], [tf.as_dtype(f.dtype) for f in fields])
        return {f.name: tf.ensure_shape(array, [None] * f.rank) for f, array in zip(fields, arrays)}

    return lambda dataset: dataset.map(one)


def to_seqio(
    task: AnyTask,
    tokenizer: Tokenizer,
    features: Sequence[Feature],
    failures: _Failures | None = None,
    is_chosen: Chosen = None,
    is_packed: bool = False,
):
    """Returns the seqio Task of a declared task: source, preprocessors (prompts included), features.

    A task that a user's module registered keeps its name there; ours, encoded, is called `<name>_tokens`. Its output features are
    the fields of a cached record (`features.Feature.fields`). With `is_chosen` it has the examples of chosen records alone; with
    `is_packed` their arrays are one string (`records.pack`) of the feature 'record'.
    """
    seqio, tf = libraries()
    failures, roles = failures or _Failures(), roles_of(features)
    encoder = RecordEncoder(features, tokenizer, task.query_prompt, task.target_prompt)
    if isinstance(task, RegisteredTask):
        inner = _registered(task)
        source = inner.source if task.cached_in is None else _cached(inner, task)
        needed = {name: name for name, role in roles.items() if not role.optional}
        first = [*(inner.preprocessors if task.cached_in is None else ()), _rename(task.name, needed, roles)]
    else:
        source = _source(task, features, failures, is_chosen)
        first = []
        if isinstance(task.source, sources.Tfds):
            first = [_rename(task.source.name, task.source.fields, roles)]
    if first:
        first += [*([] if is_chosen is None else [_only(is_chosen, failures)]), _strings(roles, failures)]
    written = written_fields(features)
    seqio_vocabulary, texts = vocabulary(tokenizer), {f.name for f in text_features(features)}
    outputs = {_RECORD: seqio.Feature(seqio.PassThroughVocabulary(1 << 31), add_eos=False, dtype=tf.string, rank=0)}
    arrays = {
        field.name: seqio.Feature(
            seqio_vocabulary if field.name in texts else seqio.PassThroughVocabulary(1 << 31),
            add_eos=False,
            dtype=tf.as_dtype(field.dtype),
            rank=field.rank,
        )
        for feature in features
        for field in feature.fields
    }
    return seqio.Task(
        registered_name(task),
        source=source,
        output_features=outputs if is_packed else arrays,
        preprocessors=[*first, _encode(encoder, failures), *([] if is_packed else [_unpack(written)])],
    )


def _registered(task: RegisteredTask):
    """Returns the seqio Task that the user's module registered."""
    import importlib

    seqio, _ = libraries()
    try:
        importlib.import_module(task.module)
    except ImportError as e:
        raise DataError(f"task {task.name!r}: cannot import its module {task.module!r} ({e}); correct the path") from e
    names = seqio.TaskRegistry.names()
    if task.name not in names:
        raise DataError(f"module {task.module!r} registers no task {task.name!r}{did_you_mean(task.name, names)}")
    return seqio.TaskRegistry.get(task.name)


def _cached(inner, task: RegisteredTask):
    """Returns the DataSource of what seqio's pipeline has cached of a task, past all of the task's preprocessors."""
    seqio, _ = libraries()
    task.cached_folder()
    seqio.add_global_cache_dirs([task.cached_in])

    def dataset(split, shuffle_files, seed=None):
        del shuffle_files, seed
        return inner.get_dataset(sequence_length=None, split=split, shuffle=False, use_cached=True, num_epochs=1)

    return seqio.FunctionDataSource(dataset_fn=dataset, splits=[task.split])


def register(mixture: Mixture, tokenizer: Tokenizer, features: Sequence[Feature], sizes: Mapping[str, int]) -> None:
    """Adds the mixture and its tasks to seqio's registries, for use with any seqio tool."""
    seqio, _ = libraries()
    names = {t.name: registered_name(t) for t in mixture.tasks}
    if len(set(names.values())) < len(names):
        raise ConfigError(
            f"mixture {mixture.name!r}: two task names are the same to seqio ({sorted(names.values())}); rename one"
        )
    for task in mixture.tasks:
        seqio_task = to_seqio(task, tokenizer, features)
        if names[task.name] not in seqio.TaskRegistry.names():
            seqio.TaskRegistry.add_provider(names[task.name], seqio_task)
    if seqio_name(mixture.name) not in seqio.MixtureRegistry.names():
        rates = [(names[t.name], share) for t, share in zip(mixture.tasks, mixture.shares(sizes))]
        seqio.MixtureRegistry.add(seqio_name(mixture.name), rates)


def examples(
    task: AnyTask, tokenizer: Tokenizer, features: Sequence[Feature], is_chosen: Chosen = None
) -> Iterator[bytes]:
    """Yields the encoded examples of a task in the order of its source, through its seqio Task: the packed `written_fields`.

    `is_chosen(number)` says whether a record is taken, and is called with the numbers in ascending order; None takes all.
    """
    libraries()
    failures = _Failures()
    split = task.split if isinstance(task, RegisteredTask) else "train"
    try:
        seqio_task = to_seqio(task, tokenizer, features, failures, is_chosen, is_packed=True)
        dataset = seqio_task.get_dataset(None, split=split, shuffle=False, trim_output_features=False)
        yield from strings_of(dataset, _RECORD)
    except EmbedError:
        raise
    except Exception as e:  # tensorflow and tfds wrap faults of the source in types of their own, pages long
        if isinstance(failures.first, EmbedError):
            raise failures.first from e
        cause = failures.first or e
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise DataError(f"task {task.name!r}: {lines[0][:300]}; correct the source") from e
