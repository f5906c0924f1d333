"""The file formats of each type of task: those of MTEB's data, of BEIR, and the published ones of XOR-Retrieve and XTREME-UP."""

import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from embed.data import sources
from embed.data.fields import text_of
from embed.data.lines import read_json_lines, read_table
from embed.errors import DataError, did_you_mean
from embed.evaluation import paired_tasks, pairs, probe_tasks, ranked_tasks, ranking, tasks

Entry = Mapping[str, Any]  # a task of a suite


def _part(folder: pathlib.Path, what: str, *names: str) -> str:
    for name in names:
        for suffix in ("", ".gz"):
            if (folder / (name + suffix)).is_file():
                return str(folder / (name + suffix))
    raise DataError(f"{folder}: has no {' or '.join(names)} (.gz); {what}")


def _identity(row: Mapping, where: str) -> str:
    key = row.get("_id", row.get("id"))
    if key is None:
        raise DataError(f"{where}: no field 'id'; every query and document needs one")
    return str(key)


def _texts(path: str) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for where, row in read_json_lines(path):
        key = _identity(row, where)
        if key in found:
            raise DataError(f"{where}: the id {key!r} stands twice; make ids unique")
        # A document may be a title alone.
        text = row.get("text") or row.get("title")
        title = _title(row, where) if row.get("text") else ""
        found[key] = {**row, "title": title, "text": text_of(text, "text", where)}
    return found


def _title(row: Mapping, where: str) -> str:
    title = row.get("title")
    if title is None or (isinstance(title, str) and not title.strip()):
        return ""
    return text_of(title, "title", where)


def _qrels(path: str, queries, corpus) -> dict[str, dict[str, float]]:
    """Returns the judgements; one of an unknown id is a DataError."""
    qrels: dict[str, dict[str, float]] = {}
    for where, query, document, score in sources.read_qrels(path):
        for kind, known, key in (("query", queries, query), ("document", corpus, document)):
            if key not in known:
                raise DataError(f"{where}: names the {kind} {key!r}, which is not there; correct the judgements")
        qrels.setdefault(query, {})[document] = score
    return qrels


_RETRIEVAL = "a retrieval task is a folder with queries, corpus and qrels"


def _beir(path: pathlib.Path, ask=lambda query: query["text"]) -> dict[str, Any]:
    """Returns the fields of a BEIR-style folder; `ask` gives a query's text."""
    queries, corpus = (_texts(_part(path, _RETRIEVAL, f"{n}.jsonl")) for n in ("queries", "corpus"))
    qrels = _part(path, _RETRIEVAL, "qrels.tsv", "qrels/test.tsv", "qrels/dev.tsv")
    return {
        "query_ids": list(queries),
        "queries": [ask(q) for q in queries.values()],
        "corpus_ids": list(corpus),
        "corpus": [d["text"] for d in corpus.values()],
        "titles": [d["title"] for d in corpus.values()],
        "qrels": _qrels(qrels, queries, corpus),
    }


def read_retrieval(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a BEIR-style folder."""
    fields = _beir(path)
    if not any(g > 0 for judged in fields["qrels"].values() for g in judged.values()):
        raise DataError(f"{path}: no query has a relevant document; correct the judgements")
    return fields


def read_reranking(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads lines of {"query", "positives", "negatives"}; one without both kinds of candidates is a DataError."""
    queries, candidates, relevant = [], [], []
    for where, row in read_json_lines(str(path)):
        sides = [row.get("positives", row.get("positive")), row.get("negatives", row.get("negative"))]
        for name, side in zip(("positives", "negatives"), sides):
            if not isinstance(side, list) or not side:
                raise DataError(f"{where}: field {name!r} must be a list with at least one text")
        queries.append(text_of(row.get("query"), "query", where))
        candidates.append([text_of(t, "positives and negatives", where) for side in sides for t in side])
        relevant.append([k == 0 for k, side in enumerate(sides) for _ in side])
    return {"queries": _some(queries, path), "candidates": candidates, "relevant": relevant}


def read_instruction_reranking(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder of MTEB's instruction reranking: queries (with `instruction`), corpus, qrels, top_ranked, qrel_diff."""
    what = "an instruction reranking task is a folder with queries, corpus, qrels, top_ranked and qrel_diff"
    fields = _beir(path, lambda query: f"{query['text']} {query.get('instruction') or ''}".strip())
    queries, known, lists = set(fields["query_ids"]), set(fields["corpus_ids"]), []
    for name in ("top_ranked", "qrel_diff"):
        found = {}
        for where, row in read_json_lines(_part(path, what, f"{name}.jsonl")):
            ids = row.get("corpus-ids")
            if "query-id" not in row or not isinstance(ids, list):
                raise DataError(f"{where}: needs 'query-id' and the list 'corpus-ids'")
            for document in ids:
                if str(document) not in known:
                    raise DataError(f"{where}: names the document {document!r}, which is not there")
            found[str(row["query-id"])] = [str(d) for d in ids]
        lists.append(found)
    candidates, changed = lists
    for query in fields["query_ids"]:
        if query not in candidates:
            raise DataError(f"{path}: query {query!r} has no candidates in top_ranked")
    for query in changed:
        for end in ("-og", "-changed"):
            if query + end not in queries:
                raise DataError(f"{path}: qrel_diff names {query!r}, but there is no query {query + end!r}")
    return {**fields, "candidates": candidates, "changed": changed}


def _passages(path: pathlib.Path) -> Iterator[tuple[str, str, str]]:
    """Yields (id, text, title) of a corpus: jsonl, or the tsv of Wikipedia passages with id, text and title."""
    is_tsv = path.name.removesuffix(".gz").endswith(".tsv")
    seen = set()
    for where, row in (read_table if is_tsv else read_json_lines)(str(path)):
        identity = _identity(row, where)
        if identity in seen:
            raise DataError(f"{where}: the id {identity!r} stands twice; make ids unique")
        seen.add(identity)
        text = row.get("text", row.get("context"))
        yield identity, text_of(text, "text", where), _title(row, where)


def _corpus_path(path: pathlib.Path, entry: Entry) -> pathlib.Path:
    if "corpus_path" not in entry:
        raise DataError(f"{path}: the suite's task {entry['name']!r} needs 'corpus_path', the passages to search")
    return entry["corpus_path"]


def read_xor_retrieve(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads XOR-TyDi's questions ({"id", "question", "lang", "answers"} a line) and their passages (`corpus_path`).

    Questions that are answered by yes or no alone are left out, as in the published script.
    """
    questions, languages, answers = [], [], []
    for where, row in read_json_lines(str(path)):
        for field, kind in (("question", str), ("lang", str), ("answers", list)):
            if not isinstance(row.get(field), kind):
                raise DataError(f"{where}: needs {field!r} ({kind.__name__})")
        if not all(isinstance(a, str) and a.strip() for a in row["answers"]):
            raise DataError(f"{where}: 'answers' must be texts; an empty one would stand in every passage")
        spans = [a for a in row["answers"] if a not in ("yes", "no")]
        if spans:
            questions.append(text_of(row["question"], "question", where))
            languages.append(row["lang"])
            answers.append(spans)
    rows = list(_passages(_corpus_path(path, entry)))
    return {
        "questions": _some(questions, path),
        "question_languages": languages,
        "answers": answers,
        "corpus": [text for _, text, _ in rows],
        "titles": [title for _, _, title in rows],
    }


def read_xtreme_up(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads XTREME-UP's retrieval: a folder of LANGUAGE.jsonl with {"id", "question"} and the index (`corpus_path`)."""
    corpus = list(_passages(_corpus_path(path, entry)))
    known = {identity for identity, _, _ in corpus}
    found = sorted(p for pattern in ("*.jsonl", "*.jsonl.gz") for p in path.glob(pattern))
    if not found:
        raise DataError(f"{path}: has no files LANGUAGE.jsonl; an xtreme_up task is a folder of them")
    questions, languages, targets = [], [], []
    for file in found:
        for where, row in read_json_lines(str(file)):
            targets.append(_identity(row, where))
            if targets[-1] not in known:
                raise DataError(f"{where}: the id {targets[-1]!r} is not in {entry['corpus_path']}")
            questions.append(text_of(row.get("question"), "question", where))
            languages.append(file.name.partition(".")[0])
    return {
        "questions": _some(questions, path),
        "question_languages": languages,
        "targets": targets,
        "corpus_ids": [identity for identity, _, _ in corpus],
        "corpus": [text for _, text, _ in corpus],
        "titles": [title for _, _, title in corpus],
    }


def _pairs(path: pathlib.Path, first: str, second: str, value: str | None, kind: Callable):
    left, right, values = [], [], []
    columns = ", ".join(c for c in (first, second, value) if c)
    for where, row in read_table(str(path)):
        try:
            values.append(None if value is None else kind(row[value]))
        except (KeyError, ValueError) as e:
            raise DataError(f"{where}: needs columns {columns}, with a number in {value} ({e})") from e
        left.append(text_of(row.get(first), first, where))
        right.append(text_of(row.get(second), second, where))
    return _some(left, path), right, values


def _some(rows: list, path) -> list:
    if not rows:
        raise DataError(f"{path}: nothing in it; correct the suite")
    return rows


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"it is {text}")
    return float(text)


def _binary(text: str) -> int:
    if float(text) not in (0.0, 1.0):
        raise ValueError(f"{text} is neither 0 nor 1")
    return int(float(text))


def read_sts(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a tsv file with columns sentence1, sentence2, score."""
    first, second, gold = _pairs(path, "sentence1", "sentence2", "score", _finite)
    return {"first": first, "second": second, "gold": gold}


def read_pair_classification(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a tsv file with columns sentence1, sentence2, label (1 or 0); one label alone is a DataError."""
    first, second, labels = _pairs(path, "sentence1", "sentence2", "label", _binary)
    if len(set(labels)) == 1:
        raise DataError(f"{path}: every label is {labels[0]}; pairs of both kinds are needed")
    return {"first": first, "second": second, "labels": labels}


def read_bitext(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a tsv file with columns src and tgt, each line a sentence and its translation."""
    sources_, targets, _ = _pairs(path, "src", "tgt", None, str)
    return {"sources": sources_, "targets": targets}


def read_summarization(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads lines of {"human_summaries", "machine_summaries", "relevance"}: a grade for each machine summary."""
    human, machine, gold = [], [], []
    for where, row in read_json_lines(str(path)):
        sides = [row.get("human_summaries"), row.get("machine_summaries"), row.get("relevance")]
        if not all(isinstance(s, list) and s for s in sides) or len(sides[1]) != len(sides[2]):
            raise DataError(f"{where}: needs lists human_summaries, machine_summaries and as many grades in relevance")
        human.append([text_of(t, "human_summaries", where) for t in sides[0]])
        machine.append([text_of(t, "machine_summaries", where) for t in sides[1]])
        try:
            gold.append([_finite(str(g)) for g in sides[2]])
        except ValueError as e:
            raise DataError(f"{where}: the grades in relevance must be numbers ({e})") from e
    return {"human": _some(human, path), "machine": machine, "gold": gold}


_SPLITS = "a classification task is a folder with train and test"


def _labelled(path: str, many: bool) -> tuple[list[str], list]:
    texts, labels = [], []
    for where, row in read_json_lines(path):
        label = row.get("label", row.get("labels"))
        if label is None or (isinstance(label, list) and not many):
            raise DataError(f"{where}: needs a field 'label'{'' if many else ' with one label'}")
        texts.append(text_of(row.get("text"), "text", where))
        labels.append([str(x) for x in label] if isinstance(label, list) else [str(label)] if many else str(label))
    return _some(texts, path), labels


def _splits(path: pathlib.Path, entry: Entry, many: bool) -> dict[str, Any]:
    train = str(entry["train_path"]) if "train_path" in entry else _part(path, _SPLITS, "train.jsonl")
    test = str(path) if path.is_file() else _part(path, _SPLITS, "test.jsonl")
    found = {}
    for split, file in (("train", train), ("test", test)):
        found[split], found[f"{split}_labels"] = _labelled(file, many)
    per_label = entry.get("samples_per_label", 8)
    if not isinstance(per_label, int) or per_label < 1:
        raise DataError(f"{path}: samples_per_label is {per_label!r}; it must be a whole number above 0")
    return {**found, "per_label": per_label}


def read_classification(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder with train.jsonl and test.jsonl of {"text", "label"}; a single label is a DataError."""
    found = _splits(path, entry, many=False)
    if len(set(found["train_labels"])) < 2:
        raise DataError(f"{path}: the training texts have one label only; nothing can be learned from them")
    return found


def read_multilabel(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder with train.jsonl and test.jsonl of {"text", "label": [...]}.

    All test texts are scored; MTEB cuts more than 3,000 by a stratified sample.
    """
    found = _splits(path, entry, many=True)
    if len({label for own in found["test_labels"] for label in own}) < 2:
        raise DataError(f"{path}: the test texts have one label only; there is nothing to tell apart")
    return found


def read_clustering(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads lines of {"text", "label"}; a list as label goes from coarse to fine."""
    texts, labels = _labelled(str(path), many=True)
    if len({own[0] for own in labels if own}) < 2:
        raise DataError(f"{path}: the texts have one label only; there is nothing to find")
    fraction = entry.get("fraction")
    if fraction is not None and not (
        isinstance(fraction, int | float) and 0 < fraction <= 1 and int(fraction * len(texts)) > 0
    ):
        raise DataError(f"{path}: fraction is {fraction!r}; it must lie above 0, be at most 1 and leave some texts")
    if any(isinstance(x, str) for x in _raw_labels(path)):
        # MTEB marks a level that a text lacks by -1, which among words is one more label.
        deepest = max(map(len, labels))
        labels = [own + ["-1"] * (deepest - len(own)) for own in labels]
    return {"texts": texts, "labels": labels, "fraction": fraction}


def _raw_labels(path: pathlib.Path) -> Iterator[Any]:
    for _, row in read_json_lines(str(path)):
        label = row.get("label", row.get("labels"))
        yield from label if isinstance(label, list) else [label]


# type -> (class, reader, the prompt when the suite names none, the score that stands for it)
TYPES = {
    "retrieval": (ranked_tasks.Retrieval, read_retrieval, "query", "ndcg_at_10"),
    "reranking": (ranked_tasks.Reranking, read_reranking, "query", "map_at_1000"),
    "instruction_reranking": (ranked_tasks.InstructionReranking, read_instruction_reranking, "code retrieval", "p-MRR"),
    "xor_retrieve": (ranked_tasks.OpenRetrieval, read_xor_retrieve, "query", "recall_at_5kt"),
    "xtreme_up": (ranked_tasks.MultilingualRetrieval, read_xtreme_up, "query", "mrr_at_10"),
    "sts": (paired_tasks.Sts, read_sts, "sentence similarity", "cosine_spearman"),
    "summarization": (paired_tasks.Summarization, read_summarization, "summarization", "cosine_spearman"),
    "pair_classification": (paired_tasks.PairClassification, read_pair_classification, "sentence similarity", "max_ap"),
    "bitext": (paired_tasks.Bitext, read_bitext, "query", "f1"),
    "classification": (probe_tasks.Classification, read_classification, "classification", "accuracy"),
    "multilabel_classification": (probe_tasks.MultilabelClassification, read_multilabel, "classification", "accuracy"),
    "clustering": (probe_tasks.Clustering, read_clustering, "clustering", "v_measure"),
}


_RANKED = tuple(f"{name}_at_{k}" for name in ranking.MEASURES for k in ranking.CUTS)
# type -> the scores that may stand for a task, where there are several
_MAINS = {
    "retrieval": _RANKED,
    "reranking": _RANKED,
    "xor_retrieve": ("recall_at_5kt", "recall_at_2kt"),
    "sts": tuple(f"{s}_{c}" for s in ("cosine", "manhattan", "euclidean") for c in ("spearman", "pearson")),
    "summarization": ("cosine_spearman", "cosine_pearson"),
    "pair_classification": tuple(f"{s}_ap" for s in ("max", *pairs.SIMILARITIES)),
}


def read(entry: Entry, path: pathlib.Path) -> tasks.Task:
    """Returns the task of a suite's entry, whose data is at `path`. An unknown type or score is a DataError."""
    if entry["type"] not in TYPES:
        raise DataError(f"task {entry['name']!r}: type {entry['type']!r}{did_you_mean(entry['type'], TYPES)}")
    kind, reader, prompt, main = TYPES[entry["type"]]
    mains = _MAINS.get(entry["type"], (main,))
    if entry.get("main", main) not in mains:
        raise DataError(f"task {entry['name']!r}: main {entry['main']!r}{did_you_mean(entry['main'], mains)}")
    try:
        fields = reader(path, entry)
    except (TypeError, json.JSONDecodeError) as e:
        raise DataError(f"{path}: does not look like a {entry['type']} task ({e})") from e
    return kind(
        name=entry["name"],
        prompt=entry.get("prompt", prompt),
        main=entry.get("main", main),
        languages=tuple(entry.get("languages", ())),
        **fields,
    )
