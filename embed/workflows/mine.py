"""The work of `embed mine`: texts collected, encoded, searched and chosen from, each step kept on disk until a file is written.

Everything that is read is checked before anything is written, and what an earlier run left is verified before it is taken.
"""

import contextlib
import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict

import jax
import numpy as np

from embed import console, digests, documents, files, hosts, ranges
from embed.console import say
from embed.curation import collection
from embed.curation.collection import Collection
from embed.curation.negatives import Rule
from embed.curation.neighbours import Neighbours
from embed.curation.positives import Positives, text_ids
from embed.errors import DataError, StorageError, UsageError, did_you_mean
from embed.inference import bulk, search
from embed.inference import model as inference
from embed.inference.model import EmbeddingModel
from embed.sources.fields import map_fields
from embed.sources.input_texts import Text, read_texts
from embed.sources.lines import read_json_lines, write_json_lines
from embed.sources.paths import expand_paths
from embed.text import target_id, template
from embed.types import Item
from embed.workflows.choice import Choice, Pairs, Source, summary_line

_SHARD = 8192
MAX_POSITIVES = 256  # of one query, for which as many more neighbours are searched
_MINED = "mined"  # the field that says how a row's negatives were found


class _Summary(TypedDict):
    """What NAME.json holds beside the counts."""

    identity: dict[str, Any]
    files: dict[str, digests.Entry]
    digest: ranges.Text


def name_of(path: str) -> str:
    """Returns what a file of pairs is called: its name without .jsonl and .gz."""
    return pathlib.Path(path.removesuffix(".gz")).stem


def run(
    model,
    pairs: Sequence[str],
    output,
    *,
    corpus: Sequence[str] = (),
    rule: Rule | None = None,
    replace: bool = False,
    query_field: str = "query",
    target_field: str = "positive",
    title_field: str | None = None,
    negatives_field: str = "negative",
    query_prompt: str = "query",
    target_prompt: str = "document",
    max_length: int | None = None,
) -> None:
    """Writes the pairs of each jsonl file with hard negatives to NAME.jsonl.gz in the folder `output`.

    Every file is searched in its own targets and in the jsonl files `corpus`. `rule` says which neighbours become negatives
    (default: the nearest one below 95 % of the positive's score). `replace` drops negatives that pairs have. `max_length` is in
    tokens. Work that an earlier call left is verified and kept.
    """
    fields = _fields(query_field, target_field, title_field, negatives_field)
    paths, corpus_paths = expand_paths(pairs, "--pairs"), expand_paths(corpus, "--corpus")
    names = [name_of(path) for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--pairs: two files are called {name!r}; mine them into different folders")
    local_devices = jax.local_devices()  # every host works for itself
    opened = inference.open_model(model, max_length=max_length, devices=local_devices)
    prompts = {"query": query_prompt, "target": target_prompt}
    for prompt in prompts.values():
        template(prompt, opened.prompts)
    Job(pathlib.Path(output), opened, rule or Rule(), fields, prompts, replace, tuple(paths), tuple(corpus_paths)).run()


def _fields(query: str, target: str, title: str | None, negatives: str) -> dict[str, str]:
    """Returns the fields of the pairs by role. UsageError for one field in two roles."""
    fields = {"query": query, "target": target, "negatives": negatives} | ({"title": title} if title else {})
    names = list(fields.values())
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"the field {name!r} is given for two roles; give each its own")
        if name == _MINED:
            raise UsageError(f"the field {name!r} is the one that says how negatives were found; rename yours")
    return fields


@dataclasses.dataclass(frozen=True)
class Job:
    """What is mined with which model by which rule, into `output`. `corpus` are files that are searched for every file of pairs."""

    output: pathlib.Path
    model: EmbeddingModel
    rule: Rule
    fields: dict[str, str]
    prompts: dict[str, str]
    replace: bool
    pairs: tuple[str, ...]
    corpus: tuple[str, ...] = ()

    def run(self) -> None:
        """Mines every file that was not mined before."""
        positives = self._check_inputs()
        left = [path for path in self.pairs if not self._is_done(path)]
        if not left and not self._work.exists():
            return
        hosts.refuse_copies(self.output, "mining")
        with files.FolderLock(self.output) if hosts.is_main() else contextlib.nullcontext():
            shared = self._encoded_corpus() if left and self.corpus else None
            for path in left:
                self._mine(path, positives, shared)
            hosts.sync("all files were mined")
            if hosts.is_main():
                shutil.rmtree(self._work, ignore_errors=True)

    @property
    def _work(self) -> pathlib.Path:
        return self.output / ".work"

    def _check_inputs(self) -> Positives:
        """Returns the known positives of all files, after reading all that will be read; nothing is written before."""
        in_corpus = len(np.unique(np.fromiter((target_id(t.text, t.title) for t in self._corpus_texts()), np.int64)))
        if self.corpus and not in_corpus:
            raise DataError(f"{', '.join(self.corpus)}: there is no text in it; correct --corpus")
        parts, has_titles = [], False
        for path in self.pairs:
            ids = np.fromiter(self._ids(path), np.dtype((np.int64, 5)))
            if not len(ids):
                raise DataError(f"{path}: there is no pair in it; correct --pairs")
            self._check_size(name_of(path), len(np.unique(ids[:, 1])) + in_corpus)
            has_titles = has_titles or bool(ids[:, 4].any())
            parts.append((ids[:, 0], ids[:, 1:4]))
        if "title" in self.fields and not has_titles:
            _, raw = next(read_json_lines(self.pairs[0]))
            wrong = self.fields["title"]
            raise DataError(
                f"no pair has the field {wrong!r} (--title_field){did_you_mean(wrong, raw)}; correct or omit it"
            )
        return Positives(parts)

    def _ids(self, path: str) -> Iterator[tuple]:
        """Yields of each pair the content id of its query, the three of its target, and whether that has a title."""
        for _, _, record in self._rows(path):
            title = record.get("title", "")
            yield target_id(record["query"]), *text_ids(record["target"], title), bool(title)

    def _corpus_texts(self) -> Iterator[Text]:
        for path in self.corpus:
            yield from read_texts(path, title_field="title", titles_may_lack=True)

    @functools.cached_property
    def _digests(self) -> dict[str, str]:
        return {path: files.sha256_file(path) for path in (*self.pairs, *self.corpus)}

    def _read_from(self, path: str | None) -> dict:
        """Returns what decides the texts and vectors of a file: all but the rule and the known positives."""
        return {
            "model": self.model.digest,
            "max_length": self.model.max_length,
            "fields": self.fields,
            "prompts": self.prompts,
            "corpus": sorted(self._digests[path] for path in self.corpus),
            "pairs": None if path is None else self._digests[path],
        }

    def _identity(self, path: str) -> dict:
        """Returns what decides a file of negatives. The positives of a query may be in any file of pairs."""
        known = sorted(self._digests[path] for path in self.pairs)
        return {
            **self._read_from(path),
            "all pairs": known,
            "rule": dataclasses.asdict(self.rule),
            "replace": self.replace,
        }

    def _outputs(self, path: str) -> tuple[pathlib.Path, pathlib.Path]:
        """Returns where the negatives of a file go, and what was counted."""
        name = name_of(path)
        return self.output / f"{name}.jsonl.gz", self.output / f"{name}.json"

    def _work_folder(self, path: str | None) -> pathlib.Path:
        name = "corpus" if path is None else f"pairs-{name_of(path)}"
        return self._work / f"{name}-{documents.digest_json(self._read_from(path))[:12]}"

    def _is_done(self, path: str) -> bool:
        """Returns whether a file was mined by this very job and is whole; an output that is another's is refused."""
        target, summary = self._outputs(path)
        if {target.resolve(), summary.resolve()} & {pathlib.Path(p).resolve() for p in (*self.pairs, *self.corpus)}:
            raise UsageError(
                f"--output={self.output}: {target} would be written over what is read; choose another folder"
            )
        try:
            has_summary, has_target = summary.exists(), target.exists()
        except OSError as e:
            raise files.storage_error(self.output, e) from e
        if not has_summary:
            if has_target and not self._was_written(path, target):
                raise StorageError(
                    f"{target}: is there already and not of a job of this command; choose another --output"
                )
            return False
        advice = f"give another --output, or remove it and {target.name} to mine the file again"
        before, now = digests.read_sealed(summary, _Summary, advice), self._identity(path)
        changed = [k for k, v in now.items() if before["identity"].get(k) != v]
        if changed or set(before["files"]) != {target.name}:
            raise DataError(
                f"{summary}: was mined with another {', '.join(changed) or 'name'}; give the same, or another --output"
            )
        problem = digests.problem_of(target, before["files"][target.name])
        say(f"{problem}; it is mined again" if problem else f"{name_of(path)}: done before")
        return problem is None

    def _was_written(self, path: str, target: pathlib.Path) -> bool:
        """Returns whether an output without a summary is what a run of this job wrote, which was killed a moment later."""
        try:
            record = digests.read_sealed(self._work_folder(path) / "output.json", _Summary)
        except DataError:
            return False
        return target.name in record["files"] and digests.problem_of(target, record["files"][target.name]) is None

    def _encoded_corpus(self) -> Source:
        folder = self._work_folder(None)
        texts = self._collect("corpus", folder, self._corpus_texts)
        return Source(texts, self._encode("corpus", texts, folder / "vectors", self.prompts["target"]))

    def _mine(self, path: str, positives: Positives, shared: Source | None) -> None:
        """Writes the pairs of `path` with their negatives, and what was counted."""
        name, folder = name_of(path), self._work_folder(path)
        sources = {}
        for side in ("query", "target"):
            texts = self._collect(f"{name} {side}", folder / side, functools.partial(self._texts, path, side))
            vectors = self._encode(f"{name} {side}", texts, folder / side / "vectors", self.prompts[side])
            sources[side] = Source(texts, vectors)
        searched = [sources["target"], *([shared] if shared else [])]
        max_positives = min(positives.max_count(sources["query"].texts.ids), MAX_POSITIVES)
        neighbours = self._search(name, folder, sources["query"], searched, max_positives)
        if hosts.is_main():
            pairs = self._pairs(path, sources["query"].texts)
            choice = Choice(self.rule, pairs, positives, sources["query"], searched, neighbours)
            counted = self._write(path, choice)
            say(f"{name}: {summary_line(counted, self.rule)}")
        hosts.sync(f"{name} was mined")

    def _check_size(self, name: str, texts: int) -> None:
        if texts <= self.rule.last:
            raise DataError(
                f"{name}: --ranks wants {self.rule.last} neighbours, and there are {texts} texts to search; "
                "lower the last rank or give a --corpus"
            )

    def _rows(self, path: str) -> Iterator[tuple[str, dict, dict]]:
        for location, raw in read_json_lines(path):
            yield location, raw, map_fields(raw, self.fields, location, several=False)

    def _texts(self, path: str, side: str) -> Iterator[Text]:
        for location, _, record in self._rows(path):
            yield Text("", record[side], record.get("title", "") if side == "target" else "", location)

    def _pairs(self, path: str, queries: Collection) -> Pairs:
        ids = ((target_id(r["query"]), target_id(r["target"], r.get("title", ""))) for _, _, r in self._rows(path))
        columns = np.fromiter(ids, np.dtype((np.int64, 2)))
        return Pairs(queries.find(columns[:, 0]), columns[:, 1])

    def _collect(self, what: str, folder: pathlib.Path, read: Callable[[], Iterator[Text]]) -> Collection:
        """Returns the distinct texts of a side; those of a run that was killed are taken where they are whole."""
        if hosts.is_main():
            job = folder.relative_to(self._work).as_posix()
            try:
                collection.verify(folder, job)
            except DataError as e:
                if (folder / collection.RECORD).exists():
                    say(f"{what}: the texts kept of an earlier run are damaged ({e})")
                collection.collect(folder, read, job)
        hosts.sync(f"{what} was collected")
        return Collection(folder)

    def _encode(self, what: str, texts: Collection, folder: pathlib.Path, prompt: str) -> pathlib.Path:
        prompt_template = template(prompt, self.model.prompts)
        scanned = bulk.scan(lambda: texts, _SHARD, unique=False)
        identity = {"prompt": prompt_template, "model": self.model.digest, "max_length": self.model.max_length}
        job = bulk.Job(folder, "npy", "float32", _SHARD, scanned, identity)
        if hosts.is_main():
            try:
                job.begin()
            except (
                DataError,
                StorageError,
            ) as e:  # the folder is this command's alone: what is wrong in it is made again
                say(f"{what}: the vectors kept of an earlier run are damaged ({e})")
                shutil.rmtree(folder, ignore_errors=True)
                job.begin()
        hosts.sync(f"the encoding of {what} has begun")

        def encode(shard):
            with console.text_bar(len(shard)) as progress:
                vectors = self.model.encode([Item(t.text, t.title) for t in shard], prompt_template, progress=progress)
                return vectors, 0

        report = console.ShardReport(f"{what}: ", len(texts))
        bulk.run(job, texts, encode, jax.process_index(), jax.process_count(), report, say)
        hosts.sync(f"{what} was encoded")
        return folder

    def _search(
        self, name: str, folder: pathlib.Path, queries: Source, searched: list[Source], max_positives: int
    ) -> Neighbours:
        vectors, corpus = bulk.Vectors(queries.vectors), bulk.Vectors(*(s.vectors for s in searched))
        # A text that is a target and stands in the corpus too takes two places.
        k = len(searched) * (self.rule.last + max_positives + 1)
        job = documents.digest_json([vectors.jobs, corpus.jobs, k])
        neighbours = Neighbours(folder / f"neighbours-{k}", len(queries.texts), min(len(corpus), k), job)
        report = console.ShardReport(f"{name} searched: ", len(queries.texts), "queries")
        neighbours.find(vectors, corpus, search.top_k, jax.process_index(), jax.process_count(), report, say)
        hosts.sync(f"{name} was searched")
        return neighbours

    def _write(self, path: str, choice: Choice) -> dict[str, Any]:
        """Writes the pairs with their negatives, and what was counted, which is returned."""
        target, summary = self._outputs(path)
        with files.new_file(target, overwrite=True) as temporary:
            rows = (self._with_negatives(n, raw, r, choice) for n, (_, raw, r) in enumerate(self._rows(path)))
            write_json_lines(temporary, (row for row in rows if row is not None))
            self._check_counts(path, choice.counted)
            entries = {target.name: digests.entry_of(temporary)}
            record = {"identity": self._identity(path), **choice.summary(), "files": entries}
            digests.write_sealed(self._work_folder(path) / "output.json", record)
        files.failpoint("mine.before_summary")
        return digests.write_sealed(summary, record)

    def _check_counts(self, path: str, counted: dict[str, int]) -> None:
        if counted["dropped"] == counted["pairs"]:
            raise DataError(
                f"{path}: no pair has its target among the {self.rule.consistent} texts nearest to its query; raise "
                "--consistent, or mine with a model that knows this kind of text"
            )
        if not counted["negatives"]:
            why = (
                f"{counted['ruled_out']:,} of {counted['neighbours']:,} score too near the positive; raise --ceiling, or"
                if counted["neighbours"]
                else f"all that is near a query is its positive (up to {MAX_POSITIVES} of a query are passed over);"
            )
            raise DataError(f"{path}: no pair has a neighbour that may be its negative: {why} give a --corpus")

    def _with_negatives(self, number: int, raw: dict, record: dict, choice: Choice) -> dict | None:
        """Returns a row with its negatives, None where it is dropped."""
        chosen = choice.of(number, [] if self.replace else record.get("negatives", []))
        if chosen is None:
            return None
        kept, mined, facts = chosen
        row = {**raw, self.fields["negatives"]: [*kept, *mined]}
        row.pop(_MINED, None)
        return {**row, _MINED: facts} if mined else row
