"""The work of `embed mine`: texts collected, encoded, searched and chosen from, each step kept on disk until a file is written."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import shutil
from collections.abc import Iterator

import jax
import numpy as np

from embed import files, sharding
from embed.commands import runtime
from embed.curation import collection
from embed.curation.collection import Collection
from embed.curation.negatives import Rule
from embed.curation.neighbours import Neighbours
from embed.data.sources import map_fields, read_json_lines, write_json_lines
from embed.data.text import template
from embed.data.texts import Text, read_texts
from embed.errors import DataError
from embed.inference import bulk, search
from embed.inference.model import EmbeddingModel
from embed.training.reports import say

_SHARD = 8192
_MOST_POSITIVES = 256  # of one query, for which as many more neighbours are searched


def name_of(path: str) -> str:
    """Returns what a file of pairs is called: its name without .jsonl and .gz."""
    return pathlib.Path(path.removesuffix(".gz")).stem


@contextlib.contextmanager
def unlocked():
    """Stands for a lock on the hosts that hold none."""
    yield


def fields_of(arguments) -> dict[str, str]:
    """Returns the fields of the pairs by role."""
    fields = {"query": arguments.query_field, "target": arguments.target_field, "negatives": arguments.negatives_field}
    prompts = {"query_prompt": arguments.query_prompt, "target_prompt": arguments.target_prompt}
    return {**fields, **({"title": arguments.title_field} if arguments.title_field else {}), **prompts}


@dataclasses.dataclass(frozen=True)
class Pairs:
    """A file of pairs as numbers: each row's query among the distinct ones, and its target's content id."""

    queries: np.ndarray
    targets: np.ndarray

    @functools.cached_property
    def _grouped(self):
        order = np.lexsort((self.targets, self.queries))
        return self.targets[order], np.searchsorted(self.queries[order], np.arange(self.queries.max() + 2))

    def targets_of(self, query: int) -> np.ndarray:
        """Returns the content ids of all targets of a query."""
        targets, bounds = self._grouped
        return targets[bounds[query] : bounds[query + 1]]

    @property
    def most_targets(self) -> int:
        """Of one query."""
        return int(np.diff(self._grouped[1]).max())


@dataclasses.dataclass(frozen=True)
class Job:
    """What is mined with which model by which rule, into `output`."""

    output: pathlib.Path
    model: EmbeddingModel
    rule: Rule
    fields: dict[str, str]
    replace: bool

    @property
    def _work(self) -> pathlib.Path:
        return self.output / ".work"

    def _identity(self, *paths: str) -> dict:
        """Returns what decides a file of negatives."""
        return {
            "model": self.model.digest,
            "max_length": self.model.encoder.max_length,
            "rule": dataclasses.asdict(self.rule),
            "replace": self.replace,
            **self.fields,
            "files": {pathlib.Path(p).name: files.sha256_file(p) for p in paths},
        }

    def encode_corpus(self, paths: list[str]) -> tuple[Collection, pathlib.Path, dict]:
        """Returns the distinct texts of --corpus, where their vectors are, and the digests of the files."""
        read = lambda: (t for p in paths for t in read_texts(p, title_field="title" if _has_titles(p) else None))  # noqa: E731
        folder = self._work / "corpus"
        digests = {p: files.sha256_file(p) for p in paths}
        texts = self._collect("corpus", folder, read, digests)
        return texts, self._encode("corpus", texts, folder / "vectors", self.fields["target_prompt"]), digests

    def mine(self, name: str, path: str, shared) -> None:
        """Writes the pairs of `path` with their negatives to NAME.jsonl.gz, and NAME.json with what was counted."""
        target, summary = self.output / f"{name}.jsonl.gz", self.output / f"{name}.json"
        identity = self._identity(path)
        identity["corpus"] = {} if shared is None else {pathlib.Path(p).name: d for p, d in shared[2].items()}
        if summary.is_file():
            changed = [k for k, v in identity.items() if files.read_json(summary)["identity"].get(k) != v]
            if changed:
                raise DataError(
                    f"{summary}: was mined with another {', '.join(changed)}; give the same, or another --output"
                )
            say(f"{name}: done before")
            return
        folder = self._work / name
        digest = {path: identity["files"][pathlib.Path(path).name]}
        texts = {
            side: self._collect(f"{name} {side}", folder / side, functools.partial(self._texts, path, side), digest)
            for side in ("query", "target")
        }
        vectors = {
            side: self._encode(f"{name} {side}", texts[side], folder / side / "vectors", self.fields[f"{side}_prompt"])
            for side in texts
        }
        own = [(texts["target"], vectors["target"]), *([shared[:2]] if shared else [])]
        pairs = self._pairs(path, texts["query"])
        corpus = bulk.Vectors(*(v for _, v in own))
        neighbours = self._search(name, folder, bulk.Vectors(vectors["query"]), corpus, pairs)
        if jax.process_index() == 0:
            counted = self._write(path, target, pairs, texts["query"], own, vectors, neighbours)
            files.write_json(summary, {"identity": identity, **counted})
            say(f"{name}: {_told(counted, self.rule)}")
        sharding.sync(f"{name} was mined")

    def clean(self) -> None:
        """Removes what was kept for a resumed run."""
        sharding.sync("all files were mined")
        if jax.process_index() == 0:
            shutil.rmtree(self._work, ignore_errors=True)

    def _rows(self, path: str) -> Iterator[tuple[str, dict, dict]]:
        roles = {r: f for r, f in self.fields.items() if not r.endswith("prompt")}
        for where, raw in read_json_lines(path):
            yield where, raw, map_fields(raw, roles, where)

    def _texts(self, path: str, side: str) -> Iterator[Text]:
        for where, _, record in self._rows(path):
            yield Text("", record[side], record.get("title", "") if side == "target" else "", where)

    def _pairs(self, path: str, queries: Collection) -> Pairs:
        ids = [
            (collection.text_id(r["query"]), collection.text_id(r["target"], r.get("title", "")))
            for _, _, r in self._rows(path)
        ]
        both = np.array(ids, np.int64)
        return Pairs(queries.find(both[:, 0]), both[:, 1])

    def _collect(self, what: str, folder: pathlib.Path, read, digests: dict) -> Collection:
        """Returns the distinct texts of a side; those of a run that was killed are taken when the files are the same."""
        done = folder / "done.json"
        if jax.process_index() == 0 and not (done.is_file() and files.read_json(done) == digests):
            shutil.rmtree(folder, ignore_errors=True)
            found = collection.collect(folder, read)
            if not len(found):
                raise DataError(f"{', '.join(digests)}: holds no text")
            files.write_json(done, digests)
        sharding.sync(f"{what} was collected")
        return Collection(folder)

    def _encode(self, what: str, texts: Collection, folder: pathlib.Path, prompt: str) -> pathlib.Path:
        words = template(prompt, self.model.prompts)
        identity = {"model": self.model.digest, "prompt": words, "max_length": self.model.encoder.max_length}
        job = bulk.Job(folder, "npy", "float32", _SHARD, identity)
        if jax.process_index() == 0:
            job.begin()
        sharding.sync(f"the encoding of {what} has begun")

        def encode(shard):
            with runtime.text_bar(len(shard)) as progress:
                found = self.model.encode([t.text for t in shard], words, [t.title for t in shard], progress=progress)
                return found, 0

        report = runtime.ShardReport(f"{what}: ", len(texts))
        bulk.run(job, texts, encode, jax.process_index(), jax.process_count(), report)
        sharding.sync(f"{what} was encoded")
        return folder

    def _search(self, name: str, folder: pathlib.Path, queries, corpus, pairs: Pairs) -> Neighbours:
        if len(corpus) <= self.rule.last:
            raise DataError(
                f"{name}: --ranks wants {self.rule.last} neighbours, and there are {len(corpus)} texts to search; "
                "lower the last rank or give a --corpus"
            )
        k = min(len(corpus), self.rule.last + min(pairs.most_targets, _MOST_POSITIVES) + 1)
        found = Neighbours(folder / f"neighbours-{k}", len(queries), k)
        report = runtime.ShardReport(f"{name} searched: ", len(queries), "queries")
        found.find(queries, corpus, search.top_k, jax.process_index(), jax.process_count(), report)
        sharding.sync(f"{name} was searched")
        return found

    def _write(self, path, target, pairs: Pairs, queries: Collection, own, vectors, neighbours: Neighbours) -> dict:
        """Writes the pairs with their negatives and returns what was counted."""
        choice = _Choice(self.rule, pairs, queries, own, vectors, neighbours)
        temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
        try:
            write_json_lines(
                temporary, (self._with_negatives(n, *row, choice) for n, row in enumerate(self._rows(path)))
            )
            if not choice.counted["negatives"]:
                raise DataError(
                    f"{path}: no pair has a neighbour that may be its negative: {choice.counted['ruled_out']:,} of "
                    f"{choice.counted['neighbours']:,} score too near the positive; raise --ceiling, or give a --corpus"
                )
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        files.fsync_folder(target.parent)
        return choice.summary()

    def _with_negatives(self, number: int, where: str, raw: dict, record: dict, choice: "_Choice") -> dict:
        given = [] if self.replace else record.get("negatives", [])
        found, facts = choice.of(number, given)
        row = {**raw, self.fields["negatives"]: [*given, *found]}
        return {**row, "mined": facts} if found else row


class _Choice:
    """Chooses the negatives of one row after the other, and counts."""

    def __init__(self, rule: Rule, pairs: Pairs, queries: Collection, own, vectors, neighbours: Neighbours):
        self._rule, self._pairs, self._neighbours = rule, pairs, neighbours
        self._texts = [texts for texts, _ in own]
        self._ids = np.concatenate([texts.ids for texts in self._texts])
        self._first = np.cumsum([0, *map(len, self._texts)])
        self._query_vectors, self._target_vectors = bulk.Vectors(vectors["query"]), bulk.Vectors(vectors["target"])
        self._query_ids = queries.ids
        self._positive: tuple[int, np.ndarray] = (-1, np.zeros(0))
        self.counted = dict.fromkeys(("pairs", "negatives", "short", "neighbours", "ruled_out"), 0)
        self._cosines: list[float] = []
        self._positives: list[float] = []

    def of(self, row: int, given: list[str]) -> tuple[list[str], dict]:
        """Returns the negatives of a row and how they were found."""
        query = int(self._pairs.queries[row])
        scores, numbers = self._neighbours[query]
        ids = self._ids[numbers]
        known = np.concatenate(
            [self._pairs.targets_of(query), [self._query_ids[query]], *[[collection.text_id(g)] for g in given]]
        )
        positive = self._positive_score(row)
        candidates, ruled_out = self._rule.candidates(scores, ids, known, positive)
        taken = self._rule.choose(candidates, row)
        self._count(len(candidates), ruled_out, scores[taken], positive)
        texts = [self._read(int(numbers[i])) for i in taken]
        rounded = lambda x: round(float(x), 4)  # noqa: E731
        return texts, {"positive_score": rounded(positive), "scores": [rounded(scores[i]) for i in taken]}

    def _positive_score(self, row: int) -> float:
        block, found = self._positive
        if row // _SHARD != block:
            rows = slice(row // _SHARD * _SHARD, (row // _SHARD + 1) * _SHARD)
            query = self._query_vectors.take(self._pairs.queries[rows])
            target = self._target_vectors.take(self._texts[0].find(self._pairs.targets[rows]))
            found = np.einsum("nE,nE->n", query, target)
            self._positive = (row // _SHARD, found)
        return float(found[row % _SHARD])

    def _read(self, number: int) -> str:
        which = int(np.searchsorted(self._first, number, side="right")) - 1
        found = self._texts[which].read([number - int(self._first[which])])[0]
        return f"{found.title} {found.text}" if found.title else found.text

    def _count(self, candidates: int, ruled_out: int, cosines: np.ndarray, positive: float) -> None:
        self.counted["pairs"] += 1
        self.counted["negatives"] += len(cosines)
        self.counted["short"] += len(cosines) < self._rule.negatives
        self.counted["neighbours"] += candidates + ruled_out
        self.counted["ruled_out"] += ruled_out
        self._cosines += map(float, cosines)
        self._positives.append(positive)

    def summary(self) -> dict:
        """Returns the counts, and the medians of the cosines."""
        medians = {"negative": float(np.median(self._cosines)), "positive": float(np.median(self._positives))}
        return {**self.counted, "median_cosine": medians}


def _told(counted: dict, rule: Rule) -> str:
    full = counted["pairs"] - counted["short"]
    share = counted["ruled_out"] / max(counted["neighbours"], 1)
    medians = counted["median_cosine"]
    return (
        f"{full:,} of {counted['pairs']:,} pairs have {rule.negatives} negative{'s' if rule.negatives > 1 else ''} now; "
        f"{share:.1%} of the neighbours are too near the positive; median cosine {medians['negative']:.2f}, "
        f"of positives {medians['positive']:.2f}"
    )


def _has_titles(path: str) -> bool:
    is_json = path.removesuffix(".gz").endswith((".jsonl", ".json"))
    return is_json and any("title" in row for _, (_, row) in zip(range(1), read_json_lines(path)))
