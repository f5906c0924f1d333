"""The file formats of tasks in which images are found: by texts, by images, and by both together."""

import pathlib
from typing import Any

from embed import documents, files
from embed.data.interleaved import check_masks
from embed.errors import DataError, did_you_mean
from embed.evaluation import ranked_readers
from embed.evaluation.image_readers import item_of, items_of, read_arrays, rows_beside
from embed.evaluation.mixed_tasks import Query
from embed.evaluation.ranked_tasks import Retrieval
from embed.evaluation.reading import Entry, label_of, part, some
from embed.sources.fields import checked_text, rows_by_id
from embed.sources.lines import read_json_lines
from embed.types import Item


def _retrieval(entry: Entry, queries, corpus, qrels, candidates=None) -> Retrieval:
    """Returns the task of {id: item} of queries and documents, all of which are ranked unless there are `candidates`."""
    return Retrieval(
        name=entry["name"],
        prompt=entry.get("prompt", "query"),
        main=entry.get("main", "ndcg_at_10"),
        languages=(),
        query_ids=list(queries),
        queries=list(queries.values()),
        corpus_ids=list(corpus),
        corpus=list(corpus.values()),
        titles=None,
        qrels=qrels,
        rules=ranked_readers.rules(entry),
        candidates=candidates,
    )


def _named(path: pathlib.Path, entry: Entry) -> tuple[dict[str, Item], dict[str, tuple[dict, dict]]]:
    """Returns images by id, and for each language ({id: name}, {name: {id of every image called so: 1}})."""
    items, by_language = items_of(read_arrays(path)), {}
    rows = rows_beside(path, len(items))
    languages = list(entry.get("languages", ())) or sorted({lang for _, row in rows for lang in row.get("names", {})})
    images: dict[str, Item] = {}
    for (location, row), item in zip(rows, items):
        key = str(row.get("id", row.get("index")))
        if key in images:
            raise DataError(f"{location}: the id {key!r} stands twice; make ids different")
        images[key] = item
    for language in languages:
        names, called = {}, {}
        for key, (location, row) in zip(images, rows):
            name = row.get("names", {}).get(language)
            if name is not None:
                names[key] = checked_text(name, f"names.{language}", location)
                called.setdefault(names[key], {})[key] = 1.0
        if not names:
            raise DataError(f"{path}: no image has a name in {language!r}; correct 'languages'")
        by_language[language] = names, called
    return images, by_language


def read_image_retrieval(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads texts and the images that they find.

    A folder is BEIR's, whose queries and documents have `text`, `image` or both. With top_ranked.jsonl only the documents that it
    lists for a query are ranked, as in MTEB. The queries of an .npz file with names are the names, language by language, and all
    images are searched.
    """
    if path.is_dir():
        return _folder(path, entry)
    images, by_language = _named(path, entry)
    subsets = {
        language: _retrieval(entry, {name: name for name in called}, images, called)
        for language, (_, called) in by_language.items()
    }
    return {"subsets": subsets}


def read_image_text_retrieval(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads images and the texts that they find: BEIR's folder, or an .npz file with names."""
    if path.is_dir():
        return _folder(path, entry)
    subsets = {}
    images, by_language = _named(path, entry)
    for language, (names, called) in by_language.items():
        judged = {key: {name: 1.0} for key, name in names.items()}
        subsets[language] = _retrieval(entry, images, {name: name for name in called}, judged)
    return {"subsets": subsets}


def _folder(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    what = "a retrieval task is a folder with queries, corpus and qrels"
    read: dict[str, dict[str, Item]] = {}
    for name in ("queries", "corpus"):
        rows = rows_by_id(read_json_lines(part(path, what, f"{name}.jsonl")))
        read[name] = {key: item_of(row, path, location) for location, key, row in rows}
    queries, corpus = read["queries"], read["corpus"]
    qrels, remarks = ranked_readers.judgements(ranked_readers.qrels_path(path), queries, corpus)
    candidates, more = ranked_readers.candidates_of(path, corpus, qrels)
    same = sum(key in corpus and _same(item, corpus[key]) for key, item in queries.items())
    if same and "ignore_identical_ids" not in entry:
        more.append(f"{same} queries are documents too, by id and content; set ignore_identical_ids to leave them out")
    task = _retrieval(entry, queries, corpus, qrels, candidates)
    return {"subsets": {"all": task}, "remarks": [*remarks, *more]}


def _same(one: Item, other: Item) -> bool:
    """Returns whether two items are of the same text and of images with the same bytes."""
    if one.text != other.text or len(one.images) != len(other.images):
        return False
    return all(a == b or files.sha256_file(a) == files.sha256_file(b) for a, b in zip(one.images, other.images))


def read_mixed(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder of queries.jsonl, corpus.jsonl and qrels: texts with `[MASK_k]`, their images, and the images they find.

    A query is {"_id", "text", "images": [path, ...], "unmasked"?, "excluded"?: [ids of the gallery], "language"?, "kind"?}. Gallery
    images with the same bytes as an image of the query are excluded too. Queries without a judgement are left out. ceilings.json,
    if present, holds upper bounds {score: value}.
    """
    what = "a mixed retrieval task is a folder with queries, corpus and qrels"
    rows = {
        name: list(rows_by_id(read_json_lines(part(path, what, f"{name}.jsonl")))) for name in ("queries", "corpus")
    }
    gallery = {key: item_of(row, path, location) for location, key, row in rows["corpus"]}
    for location, key, _ in rows["corpus"]:
        if len(gallery[key].images) != 1 or gallery[key].text is not None:
            raise DataError(f"{location}: an image of the gallery has one field, 'image'; correct the line")
    position = {key: row for row, key in enumerate(gallery)}
    items = {key: item_of(row, path, location) for location, key, row in rows["queries"]}
    qrels, _ = ranked_readers.judgements(ranked_readers.qrels_path(path), items, gallery)
    rows_by_digest: dict[str, set[int]] = {}
    for key, item in gallery.items():
        rows_by_digest.setdefault(files.sha256_file(item.images[0]), set()).add(position[key])
    queries = []
    for location, key, row in rows["queries"]:
        targets = frozenset(position[one] for one, gain in qrels.get(key, {}).items() if gain > 0)
        if not targets:
            continue
        item = items[key]
        check_masks(item.text or "", len(item.images), location, len(item.images))
        if not item.images:
            raise DataError(f"{location}: a query has at least one image; add it, or remove the line")
        excluded = {match for image in item.images for match in rows_by_digest.get(files.sha256_file(image), ())}
        for one in row.get("excluded") or ():
            if one not in position:
                raise DataError(
                    f"{location}: field 'excluded' has {one!r}, which is not in the gallery{did_you_mean(str(one), position)}"
                )
            excluded.add(position[one])
        if targets <= excluded:
            raise DataError(
                f"{location}: every relevant image is excluded as the query's own; correct qrels, or remove the query"
            )
        groups = {name: label_of(row[name], location) for name in ("language", "kind") if row.get(name) is not None}
        unmasked = None if row.get("unmasked") is None else checked_text(row["unmasked"], "unmasked", location)
        queries.append(Query(item, targets - excluded, frozenset(excluded), unmasked, groups))
    file = path / "ceilings.json"
    ceilings = documents.read_json(file, dict[str, float]) if file.is_file() else {}
    return {"queries": some(queries, path), "gallery": list(gallery.values()), "ceilings": ceilings}
