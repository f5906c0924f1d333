"""A teacher's scores of texts for queries, in files of their own: joined to the records of a run by the ids of both texts.

A line holds {"query", "text", "score"} and, where the recipe maps titles, the `title` of the text; or it is a row of
`embed curate filter` or `pick`, whose grades are the scores. So a cross-encoder or a language model scores pairs once, and no file
of pairs is written anew.
"""

import array
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from embed import documents, files, ranges
from embed.data.features import Feature, Unit, drawn_ids
from embed.errors import DataError
from embed.ranges import MAX_FLOAT
from embed.sources.fields import text_of
from embed.sources.lines import read_json_lines
from embed.sources.paths import expand_paths
from embed.text import content_id, pair_id, target_id

_CURATED = "rows.jsonl.gz"  # what `embed curate` calls its rows
_JUDGED = ("query", "positive", "negative")  # their fields
_BLOCK = 4096  # records that are checked at once


@dataclasses.dataclass(frozen=True)
class ScoreStore:
    """Scores float32 [n] under the ids of their pairs, uint64 [n] in ascending order. `digest` is of the files' content."""

    path: str
    digest: str
    ids: np.ndarray
    scores: np.ndarray

    def rows(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns where the scores of some pairs are, and which are there, both in the shape of `ids`."""
        rows = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return rows, self.ids[rows] == ids


def read(path: str) -> ScoreStore:
    """Returns the scores in the files that a path or a pattern names, or in the folder of an `embed curate` job.

    A line of another form, a score that is not finite, and a pair with two scores are DataErrors that name the line.
    """
    folder = pathlib.Path(path)
    names = expand_paths(str(folder / _CURATED) if (folder / _CURATED).is_file() else path, "Recipe.teacher_scores")
    ids, scores = array.array("Q"), array.array("d")
    for _, pair, score in _pairs(names):
        ids.append(pair)
        scores.append(score)
    if not ids:
        raise DataError(f'{path}: holds no score; write lines of {{"query": ..., "text": ..., "score": ...}}')
    keys = np.frombuffer(ids, np.uint64)
    order = np.argsort(keys, kind="stable")
    values = np.frombuffer(scores, np.float64)[order].astype(np.float32)
    keys = keys[order]
    again = np.flatnonzero((keys[1:] == keys[:-1]) & (values[1:] != values[:-1]))
    if len(again):
        _refuse_two_scores(names, int(keys[again[0]]), len(again))
    first = np.append(True, keys[1:] != keys[:-1])
    return ScoreStore(
        path, documents.digest_json([files.sha256_file(name) for name in names]), keys[first], values[first]
    )


def _pairs(names) -> Iterator[tuple[str, int, float]]:
    """Yields (location, id, score) of every pair in some files."""
    for name in names:
        for location, row in read_json_lines(name):
            for query, text, title, score in _scored(row, location):
                pair = pair_id(np.array(content_id(query)), np.array(target_id(text, title)))
                yield location, int(pair), _number(score, location)


def _refuse_two_scores(names, pair: int, count: int) -> None:
    scored = [(location, score) for location, key, score in _pairs(names) if key == pair]
    (first, score), (second, other) = scored[0], next(s for s in scored if s[1] != scored[0][1])
    raise DataError(
        f"{second}: scores a pair {other:g} that has the score {score:g} at {first} ({count:,} pairs have two scores); keep one "
        "of each"
    )


def _scored(row: Mapping[str, Any], location: str) -> Iterator[tuple[str, str, str, Any]]:
    """Yields (query, text, title, score) of a line."""
    if "judged" in row:
        yield from _judged(row, location)
        return
    for name in ("query", "text", "score"):
        if name not in row:
            raise DataError(
                f"{location}: no field {name!r}; a line of scores holds 'query', 'text', 'score' and, where there is one, 'title'"
            )
    title = row.get("title")
    yield (
        text_of(row["query"], "query", location),
        text_of(row["text"], "text", location),
        text_of(title, "title", location) if title else "",
        row["score"],
    )


def _judged(row: Mapping[str, Any], location: str) -> Iterator[tuple[str, str, str, Any]]:
    """Yields what a row of `embed curate` grades: its negatives, and its target where that was graded."""
    query, target, negatives = (row.get(name) for name in _JUDGED)
    judged = row["judged"] if isinstance(row["judged"], dict) else {}
    negatives = [negatives] if isinstance(negatives, str) else negatives or []
    grades = judged.get("kept", judged.get("negatives"))
    if not isinstance(negatives, list) or not isinstance(grades, list) or len(grades) != len(negatives):
        raise DataError(
            f"{location}: 'judged' does not grade each text of 'negative'; take the rows of `embed curate filter` as it writes "
            "them, with the fields 'query', 'positive' and 'negative'"
        )
    query = text_of(query, "query", location)
    if "target" in judged:
        text, title = text_of(target, "positive", location), row.get("title")
        # Whether a recipe maps the title is not known here.
        for one in {"", text_of(title, "title", location) if isinstance(title, str) and title.strip() else ""}:
            yield query, text, one, judged["target"]
    for text, grade in zip(negatives, grades):
        yield query, text_of(text, "negative", location), "", grade


def _number(score: Any, location: str) -> float:
    if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) <= MAX_FLOAT:
        raise DataError(f"{location}: the score is {str(score)[:40]!r}, expected a finite number")
    return float(score)


@dataclasses.dataclass(frozen=True)
class TeacherScores(Feature):
    """The scores of each query with its target and with the texts of the feature `each`, from the files `path` (`read`).

    As of `features.Scores`, the batch has float32 [n, 1 + N]: the target's first, then those of the texts that are drawn, 0 where
    there is none. A pair without a score is a DataError when a run starts. Nothing of it is cached with the records.
    """

    name: str = "scores"
    path: str = ""
    each: str = "negatives"
    query: str = "query"
    target: str = "target"

    def __post_init__(self):
        ranges.check_fields(self)

    @functools.cached_property
    def _store(self) -> ScoreStore:
        return read(self.path)

    def identity(self):
        """Returns the digest of the scores."""
        return {"scores": self._store.digest}

    def check(self, cache):
        """Raises a DataError where pairs of the cache's records have no score, whichever of their texts are drawn."""
        asked = [self._pairs_of(cache, range(i, min(i + _BLOCK, len(cache)))) for i in range(0, len(cache), _BLOCK)]
        ids = np.unique(np.concatenate([np.zeros(0, np.uint64), *asked]))
        missing = int((~self._store.rows(ids)[1]).sum())
        if missing:
            raise DataError(
                f"{self.path}: has no score for {missing:,} of {len(ids):,} pairs of a query and a text of task {cache.name!r}; "
                'add a line {"query": ..., "text": ..., "score": ...} for each, with the "title" that the recipe maps'
            )

    def _pairs_of(self, cache: Any, numbers: range) -> np.ndarray:
        """Returns the ids of the pairs of some records, but for texts that are never drawn."""
        ids = [np.zeros(0, np.uint64)]
        drawable = cache.lengths(self.each, list(numbers)) > 0
        for example, is_there in zip(cache.read(numbers), drawable):
            several = example[f"{self.each}_id"]
            texts = np.concatenate([example[f"{self.target}_id"], several[is_there[: len(several)]]])
            ids.append(pair_id(*np.meshgrid(example[f"{self.query}_id"], texts)).ravel())
        return np.concatenate(ids)

    def collate(self, unit: Unit):
        texts = drawn_ids(unit, self.target)[:, None]
        is_there = np.ones(texts.shape, bool)
        if self.each in unit.columns:
            texts = np.concatenate([texts, drawn_ids(unit, self.each)], axis=1)
            is_there = np.concatenate([is_there, unit.columns[self.each] >= 0], axis=1)
        rows, _ = self._store.rows(pair_id(drawn_ids(unit, self.query)[:, None], texts))
        return {self.name: np.where(is_there, self._store.scores[rows], np.float32(0))}

    def shapes(self, size, texts):
        return {self.name: ((size, 1 + sum(texts.get(self.each, ()))), np.float32)}
