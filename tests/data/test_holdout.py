"""What of a cache is held out: groups as a whole, about the share, the same in every run; and a part of a cache as a cache."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest

from embed.data.holdout import Subset, split
from embed.errors import DataError


@dataclasses.dataclass
class Groups:
    """Stands for a cache: the groups of its records, and what reading them gives."""

    name: str
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.groups)

    def read(self, indices):
        return [f"{self.name}{i}" for i in indices]

    def lengths(self, name, indices):
        return np.array([[int(i), len(name)] for i in indices])


def held_groups(subset) -> set[int]:
    return set(np.asarray(subset.groups)[subset.records].tolist())


def test_every_record_is_on_one_side_and_a_group_on_the_same_in_all_tasks():
    rng = np.random.default_rng(0)
    ids = rng.integers(-(2**63), 2**63 - 1, 200, dtype=np.int64)
    caches = [Groups(name, rng.choice(ids, 500)) for name in "ab"]
    learned, held_out = split(caches, 0.3)
    for cache, some, others in zip(caches, learned, held_out):
        assert some.cache is others.cache is cache
        assert sorted([*some.records, *others.records]) == list(range(500))
        assert list(some.records) == sorted(some.records) and list(others.records) == sorted(others.records)
    sides = [set.union(*map(held_groups, side)) for side in (learned, held_out)]
    assert not sides[0] & sides[1] and sides[0] | sides[1] == {*caches[0].groups.tolist(), *caches[1].groups.tolist()}


@pytest.mark.parametrize("share", [0.01, 0.25, 0.9])
def test_about_the_share_is_held_out(share):
    _, (held_out,) = split([Groups("a", np.arange(20_000))], share)
    assert abs(len(held_out) - 20_000 * share) < 5 * (20_000 * share * (1 - share)) ** 0.5


def test_a_larger_share_holds_out_what_a_smaller_does_and_more():
    smaller, larger = (split([Groups("a", np.arange(1000))], share)[1][0] for share in (0.1, 0.2))
    assert held_groups(smaller) < held_groups(larger)


def test_what_is_held_out_stays_the_same_from_version_to_version():
    """Golden values, computed by SplitMix64 in whole numbers: a run that goes on would learn from what it is scored on."""
    groups = np.array([*range(20), -1, -(2**63), 2**63 - 1], np.int64)
    _, (held_out,) = split([Groups("a", groups)], 0.3)
    assert held_out.records.tolist() == [2, 3, 5, 8, 9, 11, 13, 15, 16, 20]


def test_a_task_of_which_nothing_is_left_is_refused():
    caches = [Groups("large", np.arange(500)), Groups("small", np.array([7, 7, 7]))]
    assert [len(x) for x in split(caches, 0.01)[0]][1] == 3
    with pytest.raises(DataError) as caught:
        split(caches, 0.99)
    assert str(caught.value) == "task 'small': validation_share = 0.99 leaves nothing of its 3 examples to learn"


def test_a_subset_reads_as_a_cache_of_its_records():
    subset = Subset(Groups("a", np.arange(10) + 100), np.array([1, 4, 6]))
    assert len(subset) == 3 and subset.name == "a"
    assert subset.read([2, 0]) == ["a6", "a1"] and subset.read(np.array([1])) == ["a4"]
    assert subset.lengths("query", [0, 2]).tolist() == [[1, 5], [6, 5]]


def test_a_subset_can_be_copied_and_has_nothing_private_of_its_cache():
    subset = Subset(Groups("a", np.arange(4)), np.array([3]))
    for other in (copy.deepcopy(subset), pickle.loads(pickle.dumps(subset))):
        assert other.read([0]) == ["a3"]
    with pytest.raises(AttributeError, match="^_reader$"):
        subset._reader  # noqa: B018
    with pytest.raises(AttributeError, match="nothing"):
        subset.nothing  # noqa: B018
