"""Random numbers of drawn examples: a function of the seed, the task, the record and the epoch alone.

So every host knows what the others draw, and a resumed run draws what it would have drawn.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from embed.text import content_id


@dataclasses.dataclass(frozen=True)
class Draws:
    """Which examples are drawn: int64 [n] each, the number of the task, the record in its cache, and how often it came before."""

    tasks: np.ndarray
    records: np.ndarray
    epochs: np.ndarray
    seed: int = 0

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, rows: slice) -> "Draws":
        return Draws(self.tasks[rows], self.records[rows], self.epochs[rows], self.seed)

    def by_task(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (task, the positions of its examples among these), in the order of the tasks."""
        for task in np.unique(self.tasks):
            yield int(task), np.flatnonzero(self.tasks == task)

    def noise(self, name: str, columns: int, *, every_epoch: bool = True) -> np.ndarray:
        """Returns uint64 [n, columns], random and fixed for the feature `name`; without `every_epoch` the same in all epochs."""
        key = np.full(len(self), self.seed, np.uint64) ^ np.uint64(int(content_id(name)) % (1 << 64))
        for part in (self.tasks, self.records, self.epochs if every_epoch else np.zeros(len(self), np.int64)):
            key = mix(key + part.astype(np.uint64))
        return mix(key[:, None] + np.arange(1, columns + 1, dtype=np.uint64))

    def rng(self, i: int) -> np.random.Generator:
        """Returns the generator of example i of these: for random crops, masks and spans."""
        return np.random.default_rng([self.seed, int(self.tasks[i]), int(self.records[i]), int(self.epochs[i])])


def mix(x: np.ndarray) -> np.ndarray:
    """Returns well mixed 64-bit numbers, one for each of `x`: the finaliser of SplitMix64 after one step."""
    with np.errstate(over="ignore"):  # all of it is modulo 2^64
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
