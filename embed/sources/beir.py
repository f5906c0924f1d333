"""Retrieval sets as training pairs: folders in the form of BEIR, and sets of the Hub in the form of MTEB."""

import dataclasses
import pathlib
from collections.abc import Iterator

from embed.errors import DataError, NotHere
from embed.sources import qrels
from embed.sources.datasets import HuggingFaceDataset
from embed.sources.fields import Record, map_fields, rows_by_id
from embed.sources.lines import read_json_lines, read_lines
from embed.sources.paths import folder_fingerprint, source_digest


@dataclasses.dataclass(frozen=True)
class BeirFolder:
    """A BEIR-style folder: queries.jsonl, corpus.jsonl (both may be .gz) and qrels. Each relevant pair is an example."""

    path: str
    split: str = "train"

    def _file(self, *names: str) -> str:
        for name in names:
            for suffix in ("", ".gz"):
                if (pathlib.Path(self.path) / (name + suffix)).is_file():
                    return str(pathlib.Path(self.path) / (name + suffix))
        if not pathlib.Path(self.path).exists():
            raise NotHere(f"{self.path}: no such folder; correct BeirFolder.path")
        raise DataError(f"{self.path}: has no {' or '.join(names)} (.gz); it is not a BEIR folder")

    def parts(self) -> tuple[str, str, str]:
        """Returns the paths of queries, corpus and qrels."""
        judgements = self._file(f"qrels/{self.split}.tsv", "qrels.tsv")
        if self.split != type(self).split and pathlib.Path(judgements).parent.name != "qrels":
            raise DataError(
                f"{self.path}: has no qrels/{self.split}.tsv (.gz), and {judgements} has no splits; correct BeirFolder.split, "
                "or leave it out"
            )
        return self._file("queries.jsonl"), self._file("corpus.jsonl"), judgements

    def fingerprint(self) -> dict[str, str]:
        """Returns {file: sha256}."""
        return {path: source_digest(path) for path in self.parts()}

    def examples(self) -> Iterator[tuple[str, Record]]:
        """Yields one record per relevant (query, document), in the order of qrels; graded zero means not relevant."""
        queries_path, corpus_path, qrels_path = self.parts()
        queries, corpus = (
            {key: (w, row) for w, key, row in rows_by_id(read_json_lines(p))} for p in (queries_path, corpus_path)
        )
        for location, query, document, score in qrels.parse(read_lines(qrels_path)):
            if score <= 0:
                continue
            for kind, ids, key in (("query", queries, query), ("document", corpus, document)):
                if key not in ids:
                    raise DataError(f"{location}: names the {kind} {key!r}, which is not in the folder; correct qrels")
            query_part = map_fields(queries[query][1], {"query": "text"}, queries[query][0], several=False)
            fields = {"target": "text", "title": "title"}
            answer = map_fields(corpus[document][1], fields, corpus[document][0], several=False)
            yield location, {**query_part, **answer}


@dataclasses.dataclass(frozen=True)
class HuggingFaceBeir:
    """A retrieval set of the Hub in MTEB's layout: configs `corpus`, `queries` and `default`, which holds the judgements.

    Each relevant pair of the split is an example, in the order of the judgements.
    """

    name: str
    split: str = "train"
    revision: str | None = None

    def fingerprint(self) -> dict[str, str]:
        """Returns the dataset's name and revision, and {file: sha256} of a local folder."""
        names = {"name": self.name, "split": self.split, "revision": str(self.revision)}
        return names | folder_fingerprint(self.name)

    def _part(self, config: str, split: str):
        return HuggingFaceDataset(self.name, config=config, split=split, revision=self.revision).load()

    def examples(self) -> Iterator[tuple[str, Record]]:
        """Yields ("name[split]:row", record)."""
        queries, corpus = (self._part(part, part) for part in ("queries", "corpus"))
        rows_by_id: dict[str, dict[str, int]] = {}
        for part, rows in (("query", queries), ("document", corpus)):
            rows_by_id[part] = {str(key): number for number, key in enumerate(rows["_id"])}
            if len(rows_by_id[part]) < len(rows):
                raise DataError(
                    f"{self.name}: {len(rows) - len(rows_by_id[part])} ids of the {part} part stand twice; make them unique"
                )
        for number, row in enumerate(self._part("default", self.split)):
            location = f"{self.name}[{self.split}]:{number}"
            if row["score"] <= 0:
                continue
            ids = {"query": str(row["query-id"]), "document": str(row["corpus-id"])}
            for part, key in ids.items():
                if key not in rows_by_id[part]:
                    raise DataError(f"{location}: names the {part} {key!r}, which the set does not have")
            query_part = queries[rows_by_id["query"][ids["query"]]]
            answer = corpus[rows_by_id["document"][ids["document"]]]
            yield (
                location,
                {
                    **map_fields(query_part, {"query": "text"}, location, several=False),
                    **map_fields(answer, {"target": "text", "title": "title"}, location, several=False),
                },
            )
