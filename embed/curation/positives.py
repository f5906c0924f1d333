"""The known positives of every query, of all files of pairs together: content ids alone, 32 bytes a pair."""

from collections.abc import Iterable

import numpy as np

from embed.text import target_id


def text_ids(text: str, title: str = "") -> tuple[np.int64, np.int64, np.int64]:
    """Returns the content ids that a text goes by: with its title, without it, and with the title in front as one text."""
    return target_id(text, title), target_id(text), target_id(f"{title} {text}" if title else text)


class Positives:
    """Finds the known positives of a query by its content id; equal queries of several files are one query.

    `parts` are (queries int64 [n], targets int64 [n, 3]) of each file; the columns are those of `text_ids`.
    """

    def __init__(self, parts: Iterable[tuple[np.ndarray, np.ndarray]]):
        parts = list(parts)
        queries, targets = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        order = np.lexsort((targets[:, 0], queries))
        queries, targets = queries[order], targets[order]
        is_new = np.ones(len(queries), bool)
        is_new[1:] = (queries[1:] != queries[:-1]) | (targets[1:, 0] != targets[:-1, 0])
        self._queries, self._targets = queries[is_new], targets[is_new]

    def of(self, query: np.int64) -> np.ndarray:
        """Returns the content ids int64 [k] by which the positives of a query may be met."""
        start, stop = (np.searchsorted(self._queries, query, side) for side in ("left", "right"))
        return self._targets[start:stop].reshape(-1)

    def max_count(self, queries: np.ndarray) -> int:
        """Returns the largest number of distinct positives that one of these queries has."""
        counts = np.searchsorted(self._queries, queries, "right") - np.searchsorted(self._queries, queries, "left")
        return int(counts.max(initial=0))
