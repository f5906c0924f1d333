"""A part of a cache: the examples that are learned, and those that are held out for validation."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from embed.data.cache import Cache
from embed.data.draws import mix
from embed.errors import DataError

_SALT = np.uint64(0x5851F42D4C957F2D)  # so that what is held out has nothing to do with other uses of the ids


@dataclasses.dataclass(frozen=True)
class Subset:
    """Some records of a cache, in their order, as a cache."""

    cache: Cache
    records: np.ndarray

    def __len__(self) -> int:
        return len(self.records)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.cache, name)

    def read(self, indices: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """As `Cache.read`."""
        return self.cache.read(self.records[np.asarray(indices)])

    def lengths(self, name: str, indices: Sequence[int]) -> np.ndarray:
        """As `Cache.lengths`."""
        return self.cache.lengths(name, self.records[np.asarray(indices)])


def split(caches: Sequence[Cache], share: float) -> tuple[list[Subset], list[Subset]]:
    """Returns (what is learned, what is held out) of each cache: about `share` of its examples, the same for every run.

    Examples of one group (`Cache.groups`: of one query, for text pairs, or of one image) stay together, in all tasks, so that no
    group is on both sides. A task of which nothing is left to learn is a DataError.
    """
    learned, held_out = [], []
    for cache in caches:
        chance = mix(np.asarray(cache.groups).astype(np.uint64) ^ _SALT).astype(np.float64) / 2.0**64
        is_held_out = chance < share
        learned.append(Subset(cache, np.flatnonzero(~is_held_out)))
        held_out.append(Subset(cache, np.flatnonzero(is_held_out)))
        if not len(learned[-1]):
            raise DataError(
                f"task {cache.name!r}: validation_share = {share} leaves nothing of its {len(cache)} examples to learn"
            )
    return learned, held_out
