"""Records keep every value with its type and shape."""

import numpy as np
import pytest
from encoded_pairs import assert_same_record, drawn_pair, drawn_pairs

from embed.data import records
from embed.data.text_features import Lengths, pairs
from embed.errors import DataError

FEATURES = pairs(Lengths(6, 9))
FIELDS = [field for feature in FEATURES for field in feature.fields]


def test_packed_records_come_back_with_every_value_type_and_shape():
    rng = np.random.default_rng(1)
    for _ in range(300):
        wanted = drawn_pair(rng)
        found = records.unpack(records.pack(wanted, FIELDS), FIELDS)
        assert set(found) == {f.name for f in FIELDS}
        assert_same_record(found, wanted, FIELDS)


def test_packed_records_of_other_fields_and_ranks():
    fields = (
        records.Field("image", "float32", 3), records.Field("flag", "bool", 0), records.Field("none", "int32", 2),
        records.Field("bytes", "uint8", 1), records.Field("scale", "float64", 0), records.Field("id", "int64", 1),
    )  # fmt: skip
    rng = np.random.default_rng(2)
    for _ in range(100):
        wanted = {
            "image": rng.normal(size=rng.integers(0, 4, 3)).astype(np.float32),
            "flag": np.bool_(rng.integers(2)),
            "none": np.zeros((rng.integers(0, 3), 0), np.int32),
            "bytes": rng.integers(0, 256, rng.integers(0, 9)).astype(np.uint8),
            "scale": np.float64(rng.normal()),
            "id": rng.integers(-(2**63), 2**63 - 1, rng.integers(0, 4), dtype=np.int64),
        }
        found = records.unpack(records.pack(wanted, fields), fields)
        for field in fields:
            assert found[field.name].shape == wanted[field.name].shape
            assert found[field.name].dtype == field.dtype
            np.testing.assert_array_equal(found[field.name], wanted[field.name])


def test_the_bytes_of_a_record_by_hand():
    row = {"query": [1], "query_id": [4], "label": -1, "half": [2.0, 3.0]}
    fields = [
        records.Field("query", "int32", 1), records.Field("query_id", "int64", 1),
        records.Field("label", "int64", 0), records.Field("half", "int16", 1),
    ]  # fmt: skip
    ints = lambda *values: b"".join(v.to_bytes(4, "little") for v in values)  # noqa: E731
    assert records.pack(row, fields) == ints(1, 1, 2) + ints(1) + ints(4, 0) + b"\xff" * 8 + b"\x02\x00\x03\x00"


def test_unpacked_arrays_are_read_only():
    found = records.unpack(records.pack(drawn_pairs(1)[0], FIELDS), FIELDS)
    with pytest.raises(ValueError, match="read-only"):
        found["query"][...] = 0


def test_a_damaged_record_is_an_error():
    rng = np.random.default_rng(3)
    packed = records.pack(drawn_pair(rng), FIELDS)
    for damaged in (
        packed[:-1],
        packed + b"x",
        packed[:3],
        b"",
        b"\xff\xff\xff\xff" + packed[4:],
        b"\x7f" + packed[1:],
    ):
        with pytest.raises(DataError, match=f"a record of {len(damaged)} bytes is damaged; prepare the cache again"):
            records.unpack(damaged, FIELDS)
