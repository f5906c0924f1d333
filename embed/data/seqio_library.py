"""tensorflow and seqio, imported quietly when they are needed."""

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

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


def strings_of(dataset, name: str) -> Iterator[bytes]:
    """Yields a feature of a dataset, a string. tensorflow gives them in batches: one by one takes longer than the rest."""
    for batch in _silently(dataset.batch(BATCH).as_numpy_iterator()):
        yield from batch[name]
