"""tensorflow and seqio, imported quietly when they are needed, and the examples of their datasets as arrays."""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

BATCH = 256


@functools.cache
def libraries():
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


def rows_of(dataset) -> Iterator[dict[str, Any]]:
    """Yields the examples of a dataset as arrays. tensorflow gives them in batches: one by one takes three times as long."""
    for batch in _silently(dataset.ragged_batch(BATCH).as_numpy_iterator()):
        columns = {name: _items(values) for name, values in batch.items()}
        for row in zip(*columns.values()):
            yield dict(zip(columns, row))


def _items(values) -> Sequence[Any]:
    """Returns the arrays of each example; `values` is an array, or one of tensorflow's with rows of any length."""
    if isinstance(values, np.ndarray):
        return values
    flat, ends = values.values, values.row_splits.tolist()
    return [flat[begin:end] for begin, end in zip(ends, ends[1:])]
