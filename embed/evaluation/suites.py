"""Suites: which local files to score, as what. A suite is JSON; its paths are relative to it.

{"name": ..., "tasks": [{"name", "type", "path", "languages"?, "prompt"?}]}
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence

from embed import files
from embed.data import sources
from embed.errors import DataError, did_you_mean


@dataclasses.dataclass(frozen=True)
class RetrievalTask:
    """Queries, a corpus, and which documents answer which query. `prompt` names the queries' prompt."""

    name: str
    prompt: str
    query_ids: list[str]
    queries: list[str]
    corpus_ids: list[str]
    corpus: list[str]
    titles: list[str]
    qrels: dict[str, dict[str, float]]
    type = "retrieval"


@dataclasses.dataclass(frozen=True)
class StsTask:
    """Pairs of sentences and how similar people found them."""

    name: str
    prompt: str
    first: list[str]
    second: list[str]
    gold: list[float]
    type = "sts"


Task = RetrievalTask | StsTask


def _part(folder: pathlib.Path, *names: str) -> str:
    for name in names:
        for suffix in ("", ".gz"):
            if (folder / (name + suffix)).is_file():
                return str(folder / (name + suffix))
    raise DataError(
        f"{folder}: has no {' or '.join(names)} (.gz); a retrieval task is a folder with queries, corpus and qrels"
    )


def _texts(path: str) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for where, row in sources.read_json_lines(path):
        key = row.get("_id", row.get("id"))
        if key is None:
            raise DataError(f"{where}: no field 'id'; every query and document needs one")
        if str(key) in found:
            raise DataError(f"{where}: the id {str(key)!r} stands twice; make ids unique")
        found[str(key)] = {**row, "text": sources.text_of(row.get("text", row.get("title")), "text", where)}
    return found


def read_retrieval(name: str, path: pathlib.Path, prompt: str) -> RetrievalTask:
    """Returns the task of a BEIR-style folder. Judgements of unknown ids are DataErrors."""
    queries = _texts(_part(path, "queries.jsonl"))
    corpus = _texts(_part(path, "corpus.jsonl"))
    qrels: dict[str, dict[str, float]] = {}
    for where, query, document, score in sources.read_qrels(
        _part(path, "qrels.tsv", "qrels/test.tsv", "qrels/dev.tsv")
    ):
        for kind, known, key in (("query", queries, query), ("document", corpus, document)):
            if key not in known:
                raise DataError(f"{where}: names the {kind} {key!r}, which is not there; correct the judgements")
        qrels.setdefault(query, {})[document] = score
    return RetrievalTask(
        name=name,
        prompt=prompt,
        query_ids=list(queries),
        queries=[q["text"] for q in queries.values()],
        corpus_ids=list(corpus),
        corpus=[d["text"] for d in corpus.values()],
        titles=[d.get("title") or "" for d in corpus.values()],
        qrels=qrels,
    )


def read_sts(name: str, path: pathlib.Path, prompt: str) -> StsTask:
    """Returns the task of a tsv file with columns sentence1, sentence2, score."""
    first, second, gold = [], [], []
    for where, row in sources.read_tsv(str(path)):
        try:
            gold.append(float(row["score"]))
            if not math.isfinite(gold[-1]):
                raise ValueError(f"score is {row['score']}")
        except (KeyError, ValueError) as e:
            raise DataError(f"{where}: needs columns sentence1, sentence2 and a number in score ({e})") from e
        first.append(sources.text_of(row.get("sentence1"), "sentence1", where))
        second.append(sources.text_of(row.get("sentence2"), "sentence2", where))
    if not gold:
        raise DataError(f"{path}: no pairs in it; correct the suite")
    return StsTask(name, prompt, first, second, gold)


# type -> (reader, the prompt used when the suite names none)
TYPES = {"retrieval": (read_retrieval, "query"), "sts": (read_sts, "sentence similarity")}


def read_suite(path, only: Sequence[str] | None = None) -> tuple[str, list[Task]]:
    """Returns (suite name, tasks with their data). `only` picks tasks by name.

    A missing file and an unknown type are DataErrors, found before anything is encoded.
    """
    path = pathlib.Path(path)
    suite = files.read_json(path)
    entries = suite.get("tasks", [])
    if not entries:
        raise DataError(f"{path}: a suite without tasks; list at least one under 'tasks'")
    for entry in entries:
        lacking = {"name", "type", "path"} - (entry.keys() if isinstance(entry, dict) else set())
        if lacking:
            raise DataError(f"{path}: a task lacks {', '.join(sorted(lacking))}: {str(entry)[:80]}; complete it")
    names = [e["name"] for e in entries]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path}: two tasks are called {name!r}; give each its own name")
    for name in only or ():
        if name not in names:
            raise DataError(f"{path}: no task {name!r}{did_you_mean(name, names)}")
    tasks = []
    for entry in entries:
        if only is not None and entry["name"] not in only:
            continue
        if entry.get("type") not in TYPES:
            kinds = ", ".join(TYPES)
            raise DataError(
                f"{path}: task {entry.get('name')!r} has type {entry.get('type')!r}; supported: {kinds}; "
                "pick the tasks to run with --tasks"
            )
        read, prompt = TYPES[entry["type"]]
        where = path.parent / entry["path"]
        if not where.exists():
            raise DataError(f"{path}: task {entry['name']!r} needs {where}, which is not there")
        tasks.append(read(entry["name"], where, entry.get("prompt", prompt)))
    return suite.get("name", path.stem), tasks
