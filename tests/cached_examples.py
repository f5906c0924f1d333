"""Small caches of tasks whose records follow from their numbers, and the examples of a mixture of them."""

import dataclasses

import numpy as np
from encoded_pairs import pair

from embed.data import cache
from embed.data.examples import Examples
from embed.data.tasks import Mixture, RegisteredTask
from embed.data.text_features import Lengths, pairs

LENGTHS = Lengths(5, 7)


@dataclasses.dataclass(frozen=True)
class NamedTokenizer:
    digest: str = "d"


def example(task, i, most_negatives):
    """The i-th record of a task: lengths, negatives and ids follow from (task, i)."""
    rng = np.random.default_rng([task, i])
    sizes = rng.integers(1, 8, rng.integers(0, most_negatives + 1)).astype(np.int32)
    ids = lambda n: rng.integers(-(2**63), 2**63 - 1, n, dtype=np.int64)  # noqa: E731
    query = np.concatenate([[1000 * task + i], rng.integers(10, 99, rng.integers(0, 5))])
    target = np.concatenate([[1000 * task + i], rng.integers(10, 99, rng.integers(0, 7))])
    negatives = [rng.integers(10, 99, size) for size in sizes]
    return pair(
        query,
        target,
        negatives,
        query_id=ids(1)[0],
        target_id=ids(1)[0],
        negatives_id=ids(len(sizes)),
        equal_ids=[task, i],
    )


def examples(folder, sizes, batch_size=4, most_negatives=0, num_negatives=0, seed=0, draw="first", **settings):
    tasks = [RegisteredTask(f"t{k}", "none") for k in range(len(sizes))]
    caches, features = [], pairs(LENGTHS, num_negatives, draw)
    for k, (task, size) in enumerate(zip(tasks, sizes)):
        key = NamedTokenizer(f"{size}-{most_negatives}")
        found = cache.find(task, key, features, folder)
        rows = (example(k, i, most_negatives) for i in range(size))
        caches.append(found or cache.write(task, key, features, folder, rows))
    return Examples(Mixture("mixed", tasks, **settings), caches, features, batch_size, seed)


def drawn(made, t):
    """The (task, record) numbers of batch t, read off its first query token."""
    return [divmod(int(e["query"][0]), 1000) for e in made.read(made.drawn(t))]


def equal(one, other):
    """Asserts that two dicts of arrays, or two lists of such, are the same."""
    if isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other):
            equal(a, b)
        return
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
