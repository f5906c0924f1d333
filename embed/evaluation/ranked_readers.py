"""The file formats of tasks that rank documents: BEIR's folder, lines of candidates, XOR-Retrieve and XTREME-UP.

An empty document is scored like any other, as MTEB scores it, and a document may be a title alone.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from embed.errors import DataError
from embed.evaluation import query_groups, ranked_tasks, ranking
from embed.evaluation.reading import Entry, part, remark_of_empty, some, text_or_empty
from embed.sources import qrels
from embed.sources.fields import checked_text, identity, rows_by_id
from embed.sources.lines import read_json_lines, read_lines
from embed.sources.tables import read_table


def _title(row: Mapping, location: str) -> str:
    title = row.get("title")
    if title is None or (isinstance(title, str) and not title.strip()):
        return ""
    return checked_text(title, "title", location)


def _corpus(path: str) -> dict[str, tuple[str, str]]:
    """Returns {id: (text, title)}. A document with a title and a blank text is its title, as MTEB joins the two."""
    documents = {}
    for location, key, row in rows_by_id(read_json_lines(path)):
        title = _title(row, location)
        if row.get("text") is None and not title:
            raise DataError(f"{location}: no field 'text' and no title; a document needs one of them")
        text = "" if row.get("text") is None else text_or_empty(row["text"], "text", location)
        documents[key] = (text, title) if text else (title, "")
    return documents


def _query(row: Mapping, location: str) -> str:
    """Returns a query's text, followed by its instruction where it has one, as MTEB joins them."""
    text, instruction = text_or_empty(row.get("text"), "text", location), row.get("instruction")
    return text if instruction is None else f"{text} {text_or_empty(instruction, 'instruction', location)}".strip()


def judgements(path: str, queries: Mapping, corpus: Mapping) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Returns (judgements, remarks). MTEB counts a document that is not there as never found, and asks only known queries."""
    judged: dict[str, dict[str, float]] = {}
    no_document, no_query, changed = 0, 0, 0
    for _, query, document, relevance in qrels.parse(read_lines(path)):
        if query not in queries:
            no_query += 1
            continue
        no_document += document not in corpus
        before = judged.setdefault(query, {}).get(document, relevance)
        changed += before != relevance
        judged[query][document] = relevance
    if not judged:
        raise DataError(f"{path}: judges no query of the folder; correct the judgements or the ids of the queries")
    notes = [
        (no_document, "judgements name documents that are not in the corpus; they count as never found"),
        (no_query, "judgements are of queries that are not there; they are left out"),
        (changed, "judgements stand again with another relevance; the last one counts"),
    ]
    return judged, [f"{number} {text}, as in MTEB" for number, text in notes if number]


_RETRIEVAL = "a retrieval task is a folder with queries, corpus and qrels"
_QRELS = ("qrels.tsv", "qrels/test.tsv", "qrels/dev.tsv")
_BACKUPS = ("~", ".bak", ".orig", ".swp", ".tmp")  # what editors leave beside a file


def qrels_path(path: pathlib.Path) -> str:
    """Returns the judgements of a folder: by BEIR's names, or the only file called qrels.*, as MS MARCO's and TREC's are."""
    others = sorted(
        p
        for p in path.glob("qrels*")
        if p.is_file() and p.name.removesuffix(".gz") not in _QRELS and not p.name.endswith(_BACKUPS)
    )
    known = any((path / f"{name}{suffix}").is_file() for name in _QRELS for suffix in ("", ".gz"))
    if known or not others:
        return part(path, _RETRIEVAL, *_QRELS)
    if len(others) > 1:
        raise DataError(
            f"{path}: several judgements ({', '.join(p.name for p in others)}); call the right one qrels.tsv"
        )
    return str(others[0])


def _beir(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Returns the fields of a BEIR-style folder."""
    queries_path, corpus_path = (part(path, _RETRIEVAL, f"{n}.jsonl") for n in ("queries", "corpus"))
    queries = {key: _query(row, location) for location, key, row in rows_by_id(read_json_lines(queries_path))}
    corpus = _corpus(corpus_path)
    judged, remarks = judgements(qrels_path(path), queries, corpus)
    if "ignore_identical_ids" not in entry:
        same = sum(bool(text) and corpus.get(query, ("", ""))[0] == text for query, text in queries.items())
        remarks += (
            [f"{same} queries are documents too, by id and text; set ignore_identical_ids to leave them out"]
            if same
            else []
        )
    remarks += remark_of_empty("queries", queries.values())
    remarks += remark_of_empty("documents", (text for text, _ in corpus.values()))
    return {
        "query_ids": list(queries),
        "queries": list(queries.values()),
        "corpus_ids": list(corpus),
        "corpus": [text for text, _ in corpus.values()],
        "titles": [title for _, title in corpus.values()],
        "qrels": judged,
        "rules": rules(entry),
        "remarks": remarks,
    }


def rules(entry: Entry) -> ranking.Rules:
    """Returns the rules that a suite's entry sets for rankings."""
    chosen = {name: entry[name] for name in ("ignore_identical_ids", "skip_first_result") if name in entry}
    return ranking.Rules(**chosen, k_values=tuple(entry.get("k_values", ranking.CUTS)))


def _candidates(path: str, corpus) -> dict[str, list[str]]:
    """Returns {query: ids of documents} of lines with "query-id" and "corpus-ids"; an unknown document is a DataError."""
    lists = {}
    for location, row in read_json_lines(path):
        ids = row.get("corpus-ids")
        if "query-id" not in row or not isinstance(ids, list):
            raise DataError(f"{location}: needs 'query-id' and the list 'corpus-ids'")
        for document in ids:
            if str(document) not in corpus:
                raise DataError(f"{location}: names the document {document!r}, which is not there")
        lists[str(row["query-id"])] = [str(d) for d in ids]
    return lists


def read_retrieval(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a BEIR-style folder. With top_ranked.jsonl only the documents that it lists for a query are ranked, as in MTEB."""
    fields = _beir(path, entry)
    lists, remarks = candidates_of(path, fields["corpus_ids"], fields["qrels"])
    more = {} if lists is None else {"candidates": lists}
    return {**fields, **more, "remarks": [*fields["remarks"], *remarks]}


def candidates_of(
    path: pathlib.Path, corpus_ids, qrels: Mapping[str, Mapping[str, float]]
) -> tuple[dict[str, list[str]] | None, list[str]]:
    """Returns ({query: ids of documents} of a folder's top_ranked.jsonl or None, remarks).

    Judgements without a relevant document are a DataError.
    """
    if not any(g > 0 for judged in qrels.values() for g in judged.values()):
        raise DataError(f"{path}: no query has a relevant document; correct the judgements")
    if not any((path / f"top_ranked.jsonl{suffix}").is_file() for suffix in ("", ".gz")):
        return None, []
    lists = _candidates(part(path, _RETRIEVAL, "top_ranked.jsonl"), set(corpus_ids))
    missing = sum(query not in lists for query in qrels)
    remark = f"{missing} queries have no candidates in top_ranked; they score 0, as in MTEB"
    return lists, [remark] if missing else []


def read_reranking(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads lines of {"query", "positives", "negatives"}, or MTEB's folder, which is a retrieval folder with top_ranked.jsonl.

    A line without both kinds of candidates is a DataError.
    """
    if path.is_dir():
        fields = read_retrieval(path, entry)
        if "candidates" not in fields:
            raise DataError(f"{path}: has no top_ranked.jsonl (.gz), the candidates of each query")
        return {**fields, "task_class": ranked_tasks.RankedCandidates}
    if entry.get("ignore_identical_ids"):
        raise DataError(
            f"{path}: ignore_identical_ids needs ids; give MTEB's folder with corpus, queries, qrels and top_ranked"
        )
    if entry.get("main") in query_groups.names(rules(entry).k_values):
        raise DataError(f"{path}: {entry['main']} goes by the ids of queries; give MTEB's folder, or another 'main'")
    queries, candidates, relevant = [], [], []
    for location, row in read_json_lines(str(path)):
        sides = [row.get("positives", row.get("positive")), row.get("negatives", row.get("negative"))]
        for name, side in zip(("positives", "negatives"), sides):
            if not isinstance(side, list) or not side:
                raise DataError(f"{location}: field {name!r} must be a list with at least one text")
        queries.append(text_or_empty(row.get("query"), "query", location))
        candidates.append([text_or_empty(t, "positives and negatives", location) for side in sides for t in side])
        relevant.append([k == 0 for k, side in enumerate(sides) for _ in side])
    remarks = remark_of_empty("queries", queries) + remark_of_empty(
        "candidates", (c for texts in candidates for c in texts)
    )
    return {
        "queries": some(queries, path),
        "candidates": candidates,
        "relevant": relevant,
        "rules": rules(entry),
        "remarks": remarks,
    }


def read_instruction_reranking(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder of MTEB's instruction reranking: queries (with `instruction`), corpus, qrels, top_ranked, qrel_diff."""
    what = "an instruction reranking task is a folder with queries, corpus, qrels, top_ranked and qrel_diff"
    fields = _beir(path, entry)
    queries, corpus = set(fields["query_ids"]), set(fields["corpus_ids"])
    lists = [part(path, what, f"{name}.jsonl") for name in ("top_ranked", "qrel_diff")]
    candidates, changed = (_candidates(file, corpus) for file in lists)
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
    for location, key, row in rows_by_id((read_table if is_tsv else read_json_lines)(str(path))):
        text = row.get("text", row.get("context"))
        yield key, checked_text(text, "text", location), _title(row, location)


def _corpus_path(path: pathlib.Path, entry: Entry) -> pathlib.Path:
    if "corpus_path" not in entry:
        raise DataError(f"{path}: the suite's task {entry['name']!r} needs 'corpus_path', the passages to search")
    return entry["corpus_path"]


def read_xor_retrieve(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads XOR-TyDi's questions ({"id", "question", "lang", "answers"} a line) and their passages (`corpus_path`).

    Questions that are answered by yes or no alone are left out, as in the published script.
    """
    questions, languages, answers = [], [], []
    for location, row in read_json_lines(str(path)):
        for field, kind in (("question", str), ("lang", str), ("answers", list)):
            if not isinstance(row.get(field), kind):
                raise DataError(f"{location}: needs {field!r} ({kind.__name__})")
        if not all(isinstance(a, str) and a.strip() for a in row["answers"]):
            raise DataError(f"{location}: 'answers' must be texts; an empty one would stand in every passage")
        spans = [a for a in row["answers"] if a not in ("yes", "no")]
        if spans:
            questions.append(checked_text(row["question"], "question", location))
            languages.append(row["lang"])
            answers.append(spans)
    rows = list(_passages(_corpus_path(path, entry)))
    return {
        "questions": some(questions, path),
        "question_languages": languages,
        "answers": answers,
        "corpus": [text for _, text, _ in rows],
        "titles": [title for _, _, title in rows],
    }


def read_xtreme_up(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads XTREME-UP's retrieval: a folder of LANGUAGE.jsonl with {"id", "question"} and the index (`corpus_path`)."""
    corpus = list(_passages(_corpus_path(path, entry)))
    known = {key for key, _, _ in corpus}
    paths = sorted(p for pattern in ("*.jsonl", "*.jsonl.gz") for p in path.glob(pattern))
    if not paths:
        raise DataError(f"{path}: has no files LANGUAGE.jsonl; an xtreme_up task is a folder of them")
    questions, languages, targets = [], [], []
    for file in paths:
        for location, row in read_json_lines(str(file)):
            targets.append(identity(row.get("_id", row.get("id")), "id", location))
            if targets[-1] not in known:
                raise DataError(f"{location}: the id {targets[-1]!r} is not in {entry['corpus_path']}")
            questions.append(checked_text(row.get("question"), "question", location))
            languages.append(file.name.partition(".")[0])
    return {
        "questions": some(questions, path),
        "question_languages": languages,
        "targets": targets,
        "corpus_ids": [key for key, _, _ in corpus],
        "corpus": [text for _, text, _ in corpus],
        "titles": [title for _, _, title in corpus],
    }
