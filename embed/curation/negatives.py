"""Which neighbours of a query become its hard negatives."""

import dataclasses

import numpy as np

from embed.errors import UsageError

ORDERS = ("nearest", "random", "farthest")


@dataclasses.dataclass(frozen=True)
class Rule:
    """Takes `negatives` of a query's neighbours of rank `first` to `last`, counted from 1 without the known positives.

    A neighbour whose score is above `ceiling` times that of the positive (0.95: arXiv:2407.15831 s3.2), or above it less
    `margin`, is taken for a positive that nobody marked, and left out. `order` says which of the rest are taken: the nearest, a
    draw, or the farthest (arXiv:2503.07891 s4.2 takes the neighbour that ranks lowest).

    With `consistent` pairs are dropped whose target is not among that many nearest texts of the query (arXiv:2209.11755 s3.2,
    arXiv:2212.03533 s3.1): most of those are wrong.
    """

    negatives: int = 1
    first: int = 1
    last: int = 50
    ceiling: float | None = 0.95
    margin: float | None = None
    order: str = "nearest"
    seed: int = 0
    consistent: int | None = None

    def __post_init__(self):
        if self.negatives < 1 or not 1 <= self.first <= self.last:
            raise UsageError(
                f"negatives = {self.negatives}, ranks {self.first} to {self.last}: at least one, of ranks in order from 1"
            )
        if self.order not in ORDERS:
            raise UsageError(f"order = {self.order!r}; known: {', '.join(ORDERS)}")
        if self.ceiling is not None and not 0 < self.ceiling <= 1:
            raise UsageError(f"ceiling = {self.ceiling}: a share of the positive's score, above 0 and at most 1")
        if self.consistent is not None and not 1 <= self.consistent <= self.last:
            raise UsageError(
                f"consistent = {self.consistent}: at least 1, and no more than the last rank that is searched, {self.last}"
            )
        if self.seed < 0:
            raise UsageError(f"seed = {self.seed}: at least 0")
        if self.margin is not None and not 0 <= self.margin < 2:
            raise UsageError(f"margin = {self.margin}: a difference of cosines, at least 0 and below 2")

    def keeps(self, scores: np.ndarray, ids: np.ndarray, is_known: np.ndarray, positive: float) -> bool:
        """Returns whether a pair is good enough to keep, by its neighbours [k], their content ids and the score of its positive.

        A text that comes twice counts once.
        """
        return self.consistent is None or len(np.unique(ids[~is_known & (scores > positive)])) < self.consistent

    def candidates(self, scores: np.ndarray, ids: np.ndarray, is_known: np.ndarray, positive: float):
        """Returns which of a query's neighbours [k] may be taken, best first, and how many the score of the positive ruled out.

        `ids` are the neighbours' content ids; `is_known` says which of them are the query's own positives, or its own text;
        `positive` is the score of its positive. A text that comes twice counts once.
        """
        unknown = ~is_known & np.isfinite(scores)
        repeated = np.ones(len(ids), bool)
        repeated[np.unique(ids, return_index=True)[1]] = False
        ranked = np.flatnonzero(unknown & ~repeated)[self.first - 1 : self.last]
        below = np.ones(len(ranked), bool)
        if self.ceiling is not None:
            below &= scores[ranked] <= self.ceiling * positive
        if self.margin is not None:
            below &= scores[ranked] <= positive - self.margin
        return ranked[below], int(np.sum(~below))

    def choose(self, candidates: np.ndarray, number: int) -> np.ndarray:
        """Returns those of the candidates, best first, that become negatives of row `number`."""
        if self.order == "random":
            drawn = np.random.default_rng((self.seed, number)).permutation(len(candidates))[: self.negatives]
            return candidates[np.sort(drawn)]
        return candidates[-self.negatives :] if self.order == "farthest" else candidates[: self.negatives]


def fuse(*scores: np.ndarray, constant: float = 60.0) -> np.ndarray:
    """Returns the reciprocal rank fusion of several scores [n] of the same items: sum of 1 / (constant + rank).

    Equal scores share the better rank. Source: Cormack et al. 2009, as in arXiv:2403.20327 s3.2.
    """
    total = np.zeros(len(scores[0]))
    for ranking in scores:
        rank = 1 + np.sum(np.asarray(ranking)[None, :] > np.asarray(ranking)[:, None], 1)
        total += 1 / (constant + rank)
    return total
