"""The work of `embed mine`: texts collected, encoded, searched and chosen from, each step kept on disk until a file is written."""

import array
import contextlib
import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Iterator

import jax
import numpy as np

from embed import files, hosts
from embed.commands import runtime
from embed.curation import collection
from embed.curation.collection import Collection
from embed.curation.negatives import Rule
from embed.curation.neighbours import Neighbours
from embed.data.fields import map_fields
from embed.data.lines import read_json_lines
from embed.data.sources import write_json_lines
from embed.data.text import target_id, template
from embed.data.texts import Text, read_texts
from embed.errors import DataError, StorageError, UsageError
from embed.inference import bulk, search
from embed.inference.model import EmbeddingModel
from embed.training.reports import say

_SHARD = 8192
MOST_POSITIVES = 256  # of one query, for which as many more neighbours are searched


def name_of(path: str) -> str:
    """Returns what a file of pairs is called: its name without .jsonl and .gz."""
    return pathlib.Path(path.removesuffix(".gz")).stem


@contextlib.contextmanager
def unlocked():
    """Stands for a lock on the hosts that hold none."""
    yield


def fields_of(arguments) -> dict[str, str]:
    """Returns the fields of the pairs by role."""
    own = {"query": arguments.query_field, "target": arguments.target_field, "negatives": arguments.negatives_field}
    return {**own, **({"title": arguments.title_field} if arguments.title_field else {})}


@dataclasses.dataclass(frozen=True)
class Pairs:
    """A file of pairs as numbers: each row's query among the distinct ones, and its target's content ids.

    `targets` are as training knows them; `bare` without the title.
    """

    queries: np.ndarray
    targets: np.ndarray
    bare: np.ndarray

    @functools.cached_property
    def _grouped(self):
        order = np.lexsort((self.targets, self.queries))
        bounds = np.searchsorted(self.queries[order], np.arange(self.queries.max() + 2))
        return self.targets[order], self.bare[order], bounds

    def targets_of(self, query: int) -> np.ndarray:
        """Returns the content ids of all targets of a query, with their titles and without."""
        targets, bare, bounds = self._grouped
        own = slice(bounds[query], bounds[query + 1])
        return np.concatenate([targets[own], bare[own]])

    @property
    def most_targets(self) -> int:
        """Of one query."""
        return int(np.diff(self._grouped[2]).max())


@dataclasses.dataclass(frozen=True)
class Source:
    """Distinct texts that are searched, and where their vectors are."""

    texts: Collection
    vectors: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Job:
    """What is mined with which model by which rule, into `output`. `corpus` are files that are searched for every file of pairs."""

    output: pathlib.Path
    model: EmbeddingModel
    rule: Rule
    fields: dict[str, str]
    prompts: dict[str, str]
    replace: bool
    corpus: list[str] = dataclasses.field(default_factory=list)

    def run(self, paths: list[str]) -> None:
        """Mines every file that was not mined before."""
        left = [path for path in paths if not self._is_done(path)]
        shared = self._encoded_corpus() if left and self.corpus else None
        for path in left:
            self._mine(path, shared)
        hosts.sync("all files were mined")
        if hosts.is_main():
            shutil.rmtree(self._work, ignore_errors=True)

    @property
    def _work(self) -> pathlib.Path:
        return self.output / ".work"

    @functools.cached_property
    def _corpus_digests(self) -> dict[str, str]:
        return {path: files.sha256_file(path) for path in self.corpus}

    def _read_from(self, path: str | None) -> dict:
        """Returns what decides the texts, vectors and neighbours of a file: all but the rule."""
        return {
            "model": self.model.digest,
            "max_length": self.model.encoder.max_length,
            "fields": self.fields,
            "prompts": self.prompts,
            "corpus": self._corpus_digests,
            "pairs": None if path is None else files.sha256_file(path),
        }

    def _identity(self, path: str) -> dict:
        """Returns what decides a file of negatives."""
        return {**self._read_from(path), "rule": dataclasses.asdict(self.rule), "replace": self.replace}

    def _places(self, path: str) -> tuple[pathlib.Path, pathlib.Path]:
        """Returns where the negatives of a file go, and what was counted."""
        name = name_of(path)
        return self.output / f"{name}.jsonl.gz", self.output / f"{name}.json"

    def _is_done(self, path: str) -> bool:
        """Returns whether a file was mined by this very job; an output that is another's is refused."""
        target, summary = self._places(path)
        if target.resolve() in {pathlib.Path(p).resolve() for p in (path, *self.corpus)}:
            raise UsageError(
                f"--output={self.output}: {target} would be written over what is read; choose another folder"
            )
        if not summary.is_file():
            if target.exists():
                raise StorageError(
                    f"{target}: is there already and not of a job of this command; choose another --output"
                )
            return False
        before, now = files.read_json(summary).get("identity", {}), self._identity(path)
        changed = [k for k, v in now.items() if before.get(k) != v]
        if changed:
            raise DataError(
                f"{summary}: was mined with another {', '.join(changed)}; give the same, or another --output"
            )
        say(f"{name_of(path)}: done before")
        return True

    def _encoded_corpus(self) -> Source:
        def read():
            for path in self.corpus:
                yield from read_texts(path, title_field="title", titles_may_lack=True)

        folder = self._work / f"corpus-{files.digest_json(self._read_from(None))[:12]}"
        texts = self._collect("corpus", folder, read)
        return Source(texts, self._encode("corpus", texts, folder / "vectors", self.prompts["target"]))

    def _mine(self, path: str, shared: Source | None) -> None:
        """Writes the pairs of `path` with their negatives, and what was counted."""
        name, (target, summary) = name_of(path), self._places(path)
        identity = self._identity(path)
        folder = self._work / f"{name}-{files.digest_json(self._read_from(path))[:12]}"
        texts = {
            side: self._collect(f"{name} {side}", folder / side, functools.partial(self._texts, path, side))
            for side in ("query", "target")
        }
        self._check_size(name, len(texts["target"]) + (len(shared.texts) if shared else 0))
        own = {
            side: Source(found, self._encode(f"{name} {side}", found, folder / side / "vectors", self.prompts[side]))
            for side, found in texts.items()
        }
        searched = [own["target"], *([shared] if shared else [])]
        pairs = self._pairs(path, texts["query"])
        neighbours = self._search(name, folder, own["query"], searched, pairs)
        if hosts.is_main():
            counted = self._write(path, target, _Choice(self.rule, pairs, own["query"], searched, neighbours))
            files.write_json(summary, {"identity": identity, **counted})
            say(f"{name}: {_told(counted, self.rule)}")
        hosts.sync(f"{name} was mined")

    def _check_size(self, name: str, texts: int) -> None:
        if texts <= self.rule.last:
            raise DataError(
                f"{name}: --ranks wants {self.rule.last} neighbours, and there are {texts} texts to search; "
                "lower the last rank or give a --corpus"
            )

    def _rows(self, path: str) -> Iterator[tuple[str, dict, dict]]:
        for where, raw in read_json_lines(path):
            yield where, raw, map_fields(raw, self.fields, where)

    def _texts(self, path: str, side: str) -> Iterator[Text]:
        for where, _, record in self._rows(path):
            yield Text("", record[side], record.get("title", "") if side == "target" else "", where)

    def _pairs(self, path: str, queries: Collection) -> Pairs:
        def ids():
            for _, _, r in self._rows(path):
                with_title = target_id(r["target"], r.get("title", ""))
                yield target_id(r["query"]), with_title, target_id(r["target"])

        found = np.fromiter(ids(), np.dtype((np.int64, 3)))
        return Pairs(queries.find(found[:, 0]), found[:, 1], found[:, 2])

    def _collect(self, what: str, folder: pathlib.Path, read) -> Collection:
        """Returns the distinct texts of a side; those of a run that was killed are taken."""
        done = folder / "done.json"
        if hosts.is_main() and not done.is_file():
            found = collection.collect(folder, read)
            if not len(found):
                raise DataError(f"{what}: there is no text in it")
            files.write_json(done, {"texts": len(found)})
        hosts.sync(f"{what} was collected")
        return Collection(folder)

    def _encode(self, what: str, texts: Collection, folder: pathlib.Path, prompt: str) -> pathlib.Path:
        words = template(prompt, self.model.prompts)
        job = bulk.Job(folder, "npy", "float32", _SHARD, {"prompt": words})
        if hosts.is_main():
            job.begin()
        hosts.sync(f"the encoding of {what} has begun")

        def encode(shard):
            with runtime.text_bar(len(shard)) as progress:
                found = self.model.encode([t.text for t in shard], words, [t.title for t in shard], progress=progress)
                return found, 0

        report = runtime.ShardReport(f"{what}: ", len(texts))
        bulk.run(job, texts, encode, jax.process_index(), jax.process_count(), report)
        hosts.sync(f"{what} was encoded")
        return folder

    def _search(
        self, name: str, folder: pathlib.Path, queries: Source, searched: list[Source], pairs: Pairs
    ) -> Neighbours:
        corpus = bulk.Vectors(*(s.vectors for s in searched))
        # A text that is a target and stands in the corpus too takes two places.
        k = len(searched) * (self.rule.last + min(pairs.most_targets, MOST_POSITIVES) + 1)
        found = Neighbours(folder / f"neighbours-{k}", len(queries.texts), min(len(corpus), k))
        report = runtime.ShardReport(f"{name} searched: ", len(queries.texts), "queries")
        vectors = bulk.Vectors(queries.vectors)
        found.find(vectors, corpus, search.top_k, jax.process_index(), jax.process_count(), report)
        hosts.sync(f"{name} was searched")
        return found

    def _write(self, path: str, target: pathlib.Path, choice: "_Choice") -> dict:
        """Writes the pairs with their negatives and returns what was counted."""
        with files.new_file(target) as temporary:
            rows = (self._with_negatives(n, raw, r, choice) for n, (_, raw, r) in enumerate(self._rows(path)))
            write_json_lines(temporary, (row for row in rows if row is not None))
            counted = choice.counted
            if counted["dropped"] == counted["pairs"]:
                raise DataError(
                    f"{path}: no pair has its target among the {self.rule.consistent} texts nearest to its query; raise "
                    "--consistent, or mine with a model that knows this kind of text"
                )
            if not counted["negatives"]:
                why = (
                    f"{counted['ruled_out']:,} of {counted['neighbours']:,} score too near the positive; raise --ceiling, or"
                    if counted["neighbours"]
                    else f"all that is near a query is its positive (up to {MOST_POSITIVES} of a query are passed over);"
                )
                raise DataError(f"{path}: no pair has a neighbour that may be its negative: {why} give a --corpus")
        return choice.summary()

    def _with_negatives(self, number: int, raw: dict, record: dict, choice: "_Choice") -> dict | None:
        """Returns a row with its negatives, None where it is dropped."""
        given = [] if self.replace else record.get("negatives", [])
        chosen = choice.of(number, given)
        if chosen is None:
            return None
        found, facts = chosen
        row = {**raw, self.fields["negatives"]: [*given, *found]}
        return {**row, "mined": facts} if found else row


class _Choice:
    """Chooses the negatives of one row after the other, and counts."""

    def __init__(self, rule: Rule, pairs: Pairs, queries: Source, searched: list[Source], neighbours: Neighbours):
        self._rule, self._pairs, self._neighbours = rule, pairs, neighbours
        self._texts = [s.texts for s in searched]
        self._first = np.cumsum([0, *map(len, self._texts)])
        self._query_vectors, self._target_vectors = bulk.Vectors(queries.vectors), bulk.Vectors(searched[0].vectors)
        self._query_ids = queries.texts.ids
        self._positive: tuple[int, np.ndarray] = (-1, np.zeros(0))
        self.counted = dict.fromkeys(("pairs", "dropped", "negatives", "short", "neighbours", "ruled_out"), 0)
        self._cosines, self._positives = array.array("f"), array.array("f")

    def of(self, row: int, given: list[str]) -> tuple[list[str], dict] | None:
        """Returns the negatives of a row and how they were found; None for a row that is dropped."""
        query = int(self._pairs.queries[row])
        scores, numbers = self._neighbours[query]
        ids = self._ids(numbers)
        known = [self._query_ids[query], *map(target_id, given)]
        is_known = np.isin(ids, np.concatenate([self._pairs.targets_of(query), known])).any(1)
        positive = self._positive_score(row)
        self.counted["pairs"] += 1
        if not self._rule.keeps(scores, is_known, positive):
            self.counted["dropped"] += 1
            return None
        candidates, ruled_out = self._rule.candidates(scores, ids[:, 0], is_known, positive)
        taken = self._rule.choose(candidates, row)
        self._count(len(candidates), ruled_out, scores[taken], positive)
        rounded = lambda x: round(float(x), 4)  # noqa: E731
        of_all = [*[None] * len(given), *(rounded(scores[i]) for i in taken)]  # one for each negative of the row
        return [self._read(int(numbers[i])) for i in taken], {"positive_score": rounded(positive), "scores": of_all}

    def _ids(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the content ids [k, 3] of neighbours: as they are, without their title, and with it in front."""
        found = np.empty((len(numbers), 3), np.int64)
        which = np.searchsorted(self._first, numbers, side="right") - 1
        for i, texts in enumerate(self._texts):
            own = which == i
            places = numbers[own] - self._first[i]
            found[own, 0], found[own, 1:] = texts.ids[places], texts.bare[places]
        return found

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
        self.counted["negatives"] += len(cosines)
        self.counted["short"] += len(cosines) < self._rule.negatives
        self.counted["neighbours"] += candidates + ruled_out
        self.counted["ruled_out"] += ruled_out
        self._cosines.extend(map(float, cosines))
        self._positives.append(positive)

    def summary(self) -> dict:
        """Returns the counts, and the medians of the cosines."""
        medians = {"negative": float(np.median(self._cosines)), "positive": float(np.median(self._positives))}
        return {**self.counted, "median_cosine": medians}


def _told(counted: dict, rule: Rule) -> str:
    full = counted["pairs"] - counted["dropped"] - counted["short"]
    share = counted["ruled_out"] / max(counted["neighbours"], 1)
    medians = counted["median_cosine"]
    dropped = f"{counted['dropped']:,} are dropped; " if counted["dropped"] else ""
    return (
        f"{dropped}{full:,} of {counted['pairs']:,} pairs have {rule.negatives} negative{'s' if rule.negatives > 1 else ''} now; "
        f"{share:.1%} of the neighbours are too near the positive; median cosine {medians['negative']:.2f}, "
        f"of positives {medians['positive']:.2f}"
    )
