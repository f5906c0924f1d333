"""Strings of tensorflow's datasets, one by one in their order."""

import pytest

from embed.data import seqio_library


@pytest.mark.slow
def test_strings_are_those_of_the_dataset_in_order():
    _, tf = seqio_library.libraries()
    strings = [bytes([i % 256, 0, i // 256]) * (i % 3) for i in range(seqio_library.BATCH + 5)]
    dataset = tf.data.Dataset.from_tensor_slices({"a": strings, "b": list(range(len(strings)))})
    assert list(seqio_library.strings_of(dataset, "a")) == strings
