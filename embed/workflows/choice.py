"""The negatives of each row of a file of pairs, chosen from its query's neighbours by the rule of `embed mine`."""

import array
import dataclasses
import pathlib
from typing import Any

import numpy as np

from embed.curation.collection import Collection
from embed.curation.negatives import Rule
from embed.curation.neighbours import Neighbours
from embed.curation.positives import Positives
from embed.inference import bulk
from embed.text import target_id

_BLOCK = 8192  # rows whose positives are scored together


@dataclasses.dataclass(frozen=True)
class Pairs:
    """A file of pairs as numbers: each row's query among the distinct ones, and its target's content id."""

    queries: np.ndarray
    targets: np.ndarray


@dataclasses.dataclass(frozen=True)
class Source:
    """Distinct texts that are searched, and where their vectors are."""

    texts: Collection
    vectors: pathlib.Path


class Choice:
    """Chooses the negatives of one row after the other, and counts."""

    def __init__(
        self,
        rule: Rule,
        pairs: Pairs,
        positives: Positives,
        queries: Source,
        searched: list[Source],
        neighbours: Neighbours,
    ):
        self._rule, self._pairs, self._positives, self._neighbours = rule, pairs, positives, neighbours
        self._texts = [s.texts for s in searched]
        self._first = np.cumsum([0, *map(len, self._texts)])
        self._query_vectors, self._target_vectors = bulk.Vectors(queries.vectors), bulk.Vectors(searched[0].vectors)
        self._query_ids = queries.texts.ids
        self._positive: tuple[int, np.ndarray] = (-1, np.zeros(0))
        names = ("pairs", "dropped", "negatives", "short", "neighbours", "ruled_out", "given_dropped")
        self.counted = dict.fromkeys(names, 0)
        self._cosines, self._positive_cosines = array.array("f"), array.array("f")

    def of(self, row: int, given: list[str]) -> tuple[list[str], list[str], dict] | None:
        """Returns the negatives that a row brings and keeps, those mined for it, and how these were found.

        None for a row that is dropped. A given negative that is a known positive of the query, or the query itself, is left
        out.
        """
        query = int(self._pairs.queries[row])
        forbidden = np.append(self._positives.of(self._query_ids[query]), self._query_ids[query])
        kept = [text for text in given if target_id(text) not in forbidden]
        self.counted["given_dropped"] += len(given) - len(kept)
        scores, numbers = self._neighbours[query]
        ids = self._ids(numbers)
        kept_ids = np.array([target_id(text) for text in kept], np.int64)
        is_known = np.isin(ids, np.concatenate([forbidden, kept_ids])).any(1)
        positive = self._positive_score(row)
        self.counted["pairs"] += 1
        if not self._rule.keeps(scores, ids[:, 0], is_known, positive):
            self.counted["dropped"] += 1
            return None
        candidates, ruled_out = self._rule.candidates(scores, ids[:, 0], is_known, positive)
        taken = self._rule.choose(candidates, row)
        self._count(len(candidates), ruled_out, scores[taken], positive)
        rounded = lambda x: round(float(x), 4)  # noqa: E731
        of_all = [*[None] * len(kept), *(rounded(scores[i]) for i in taken)]  # one for each negative of the row
        mined = [self._read(int(numbers[i])) for i in taken]
        return kept, mined, {"positive_score": rounded(positive), "scores": of_all}

    def _ids(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the content ids [k, 3] of neighbours: as they are, without their title, and with it in front."""
        ids = np.empty((len(numbers), 3), np.int64)
        which = np.searchsorted(self._first, numbers, side="right") - 1
        for i, texts in enumerate(self._texts):
            is_here = which == i
            indices = numbers[is_here] - self._first[i]
            ids[is_here, 0], ids[is_here, 1:] = texts.ids[indices], texts.bare[indices]
        return ids

    def _positive_score(self, row: int) -> float:
        block, scores = self._positive
        if row // _BLOCK != block:
            rows = slice(row // _BLOCK * _BLOCK, (row // _BLOCK + 1) * _BLOCK)
            query = self._query_vectors.take(self._pairs.queries[rows])
            target = self._target_vectors.take(self._texts[0].find(self._pairs.targets[rows]))
            scores = np.einsum("nE,nE->n", query, target)
            self._positive = (row // _BLOCK, scores)
        return float(scores[row % _BLOCK])

    def _read(self, number: int) -> str:
        which = int(np.searchsorted(self._first, number, side="right")) - 1
        text = self._texts[which].read([number - int(self._first[which])])[0]
        return f"{text.title} {text.text}" if text.title else text.text

    def _count(self, candidates: int, ruled_out: int, cosines: np.ndarray, positive: float) -> None:
        self.counted["negatives"] += len(cosines)
        self.counted["short"] += len(cosines) < self._rule.negatives
        self.counted["neighbours"] += candidates + ruled_out
        self.counted["ruled_out"] += ruled_out
        self._cosines.extend(map(float, cosines))
        self._positive_cosines.append(positive)

    def summary(self) -> dict[str, Any]:
        """Returns the counts, and the medians of the cosines."""
        medians = {"negative": float(np.median(self._cosines)), "positive": float(np.median(self._positive_cosines))}
        return {**self.counted, "median_cosine": medians}


def summary_line(counted: dict[str, Any], rule: Rule) -> str:
    """Returns what a summary says, for people."""
    full = counted["pairs"] - counted["dropped"] - counted["short"]
    share = counted["ruled_out"] / max(counted["neighbours"], 1)
    medians = counted["median_cosine"]
    dropped = f"{counted['dropped']:,} are dropped; " if counted["dropped"] else ""
    if counted["given_dropped"]:
        dropped += f"{counted['given_dropped']:,} given negatives were positives of their query, or the query, and are left out; "
    return (
        f"{dropped}{full:,} of {counted['pairs']:,} pairs have {rule.negatives} negative{'s' if rule.negatives > 1 else ''} now; "
        f"{share:.1%} of the neighbours are too near the positive; median cosine {medians['negative']:.2f}, "
        f"of positives {medians['positive']:.2f}"
    )
