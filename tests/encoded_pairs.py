"""Encoded text pairs for the tests of records, caches, batches and training steps."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Letters:
    """A tokenizer of one token per character."""

    digest: str = "letters"
    path: str = "letters"

    def encode_batch(self, texts, max_length):
        rows = [np.array([ord(c) for c in text[:max_length]], np.int32) for text in texts]
        return rows, [len(text) > max_length for text in texts]


def encoded(name: str, texts, ids, equal_ids=(), truncated: int = 0) -> dict[str, np.ndarray]:
    """Returns the arrays of some texts of one feature."""
    return {
        name: np.concatenate([np.zeros(0, np.int32), *texts]).astype(np.int32),
        f"{name}_lengths": np.array([len(x) for x in texts], np.int32),
        f"{name}_id": np.array(ids, np.int64),
        f"{name}_truncated": np.int32(truncated),
        f"{name}_equal_ids": np.array(equal_ids, np.int64),
    }


def pair(query, target, negatives=(), *, query_id=0, target_id=0, negatives_id=(), equal_ids=(), truncated=(0, 0, 0)):
    """Returns an encoded pair of texts with hard negatives; `equal_ids` are the ids of texts that say what the target says."""
    return {
        **encoded("query", [query], [query_id], truncated=truncated[0]),
        **encoded("target", [target], [target_id], equal_ids, truncated[1]),
        **encoded("negatives", negatives, negatives_id, truncated=truncated[2]),
    }


def drawn_pair(rng, most=9):
    """Returns an encoded pair with up to three negatives, all values drawn from their whole range."""
    counts = rng.integers(0, most, rng.integers(0, 4)).astype(np.int32)
    draw = lambda n: rng.integers(-(2**31), 2**31, n, dtype=np.int64).astype(np.int32)  # noqa: E731
    ids = lambda n: rng.integers(-(2**63), 2**63 - 1, n, dtype=np.int64)  # noqa: E731
    return pair(
        draw(rng.integers(0, 6)),
        draw(rng.integers(0, most)),
        [draw(n) for n in counts],
        query_id=ids(1)[0],
        target_id=ids(1)[0],
        negatives_id=ids(len(counts)),
        equal_ids=ids(2),
        truncated=rng.integers(0, 2, 3),
    )


def drawn_pairs(count, seed=0):
    """Returns `count` pairs of `drawn_pair`, the same for a seed."""
    rng = np.random.default_rng(seed)
    return [drawn_pair(rng) for _ in range(count)]


def assert_same_record(found, wanted, fields):
    """Checks the dtypes, shapes and values of the `fields` of a record."""
    for field in fields:
        assert found[field.name].dtype == field.dtype
        assert found[field.name].shape == np.shape(wanted[field.name])
        np.testing.assert_array_equal(found[field.name], wanted[field.name])
