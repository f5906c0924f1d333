"""Datasets of tensorflow as arrays: rows of any length, one by one as tensorflow gives them."""

import numpy as np
import pytest

from embed.data import seqio_library


@pytest.mark.slow
def test_rows_are_those_of_the_dataset_in_order():
    _, tf = seqio_library.libraries()
    lists = [list(range(i % 4)) for i in range(seqio_library.BATCH + 5)]
    dataset = tf.data.Dataset.from_generator(
        lambda: ({"several": x, "one": i} for i, x in enumerate(lists)),
        output_signature={"several": tf.TensorSpec([None], tf.int32), "one": tf.TensorSpec([], tf.int64)},
    )
    rows = list(seqio_library.rows_of(dataset))
    assert [row["several"].tolist() for row in rows] == lists
    assert [int(row["one"]) for row in rows] == list(range(len(lists)))
    for row, expected in zip(rows, dataset.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(row["several"], expected["several"])


def test_a_dataset_whose_rows_have_one_length_is_an_array():
    assert seqio_library._items(np.arange(6).reshape(3, 2)).tolist() == [[0, 1], [2, 3], [4, 5]]
