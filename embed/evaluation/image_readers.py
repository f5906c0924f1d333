"""The file formats of tasks of images.

A task is a folder of jsonl files whose rows name images by a path in the folder, or NAME.npz with `images` of bytes, [n, height,
width] or [n, height, width, 3]. Labels are in it as `labels`; names and texts are in the rows of NAME.jsonl beside it.
"""

import collections
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from embed.errors import DataError
from embed.evaluation import ranked_readers
from embed.evaluation.dense_tasks import MAPS
from embed.evaluation.ranked_tasks import Retrieval
from embed.evaluation.reading import Entry, finite, label_of, part, some, text_or_empty
from embed.evaluation.universal_tasks import Domain
from embed.sources.fields import checked_text, rows_by_id
from embed.sources.lines import read_json_lines
from embed.types import Item


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz file; nothing in it is executed."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        raise DataError(f"{path}: cannot be read ({str(e)[:80]}); restore it from its source") from e
    images = arrays.get("images")
    if images is None or images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(f"{path}: needs the array 'images' of uint8, [n, height, width] or [n, height, width, 3]")
    return arrays


def _rows_beside(path: pathlib.Path, number: int) -> list[tuple[str, dict]]:
    """Returns (location, row) of NAME.jsonl beside NAME.npz, one row for each image."""
    file = part(path.parent, f"the rows of {path.name} are there", f"{path.stem}.jsonl")
    rows = list(read_json_lines(file))
    if len(rows) != number:
        raise DataError(f"{file}: has {len(rows)} rows, and {path.name} {number} images; restore both")
    return rows


def _items(arrays: Mapping[str, np.ndarray]) -> list[Item]:
    return [Item(images=(image,)) for image in arrays["images"]]


def _image(value: Any, folder: pathlib.Path, location: str) -> pathlib.Path:
    """Returns the path of an image that a row names; one that is not there is a DataError."""
    path = folder / checked_text(value, "image", location)
    if not path.is_file():
        raise DataError(f"{location}: the image {path} is not there; correct the path, or remove the line")
    return path


def _item(row: Mapping, folder: pathlib.Path, location: str) -> Item:
    """Returns the item of a row with `text`, `image` or `images`."""
    given = [row["image"]] if row.get("image") is not None else list(row.get("images") or ())
    text = None if row.get("text") is None else text_or_empty(row["text"], "text", location)
    if text is None and not given:
        raise DataError(f"{location}: needs a field 'image' or 'text'")
    return Item(text, None, tuple(_image(value, folder, location) for value in given))


# retrieval


def _retrieval(entry: Entry, queries, corpus, qrels) -> Retrieval:
    """Returns the task of {id: item} of queries and documents."""
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
    )


def _named(path: pathlib.Path, entry: Entry) -> tuple[dict[str, Item], dict[str, tuple[dict, dict]]]:
    """Returns images by id, and for each language ({id: name}, {name: {id of every image called so: 1}})."""
    items, by_language = _items(_arrays(path)), {}
    rows = _rows_beside(path, len(items))
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

    A folder is BEIR's, whose queries and documents have `text`, `image` or both. Of an .npz file with names the queries are the
    names, language by language, and all images are searched.
    """
    if path.is_dir():
        return {"subsets": {"all": _folder(path, entry)}}
    images, by_language = _named(path, entry)
    subsets = {
        language: _retrieval(entry, {name: name for name in called}, images, called)
        for language, (_, called) in by_language.items()
    }
    return {"subsets": subsets}


def read_image_text_retrieval(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads images and the texts that they find: BEIR's folder, or an .npz file with names."""
    if path.is_dir():
        return {"subsets": {"all": _folder(path, entry)}}
    subsets = {}
    images, by_language = _named(path, entry)
    for language, (names, called) in by_language.items():
        judged = {key: {name: 1.0} for key, name in names.items()}
        subsets[language] = _retrieval(entry, images, {name: name for name in called}, judged)
    return {"subsets": subsets}


def _folder(path: pathlib.Path, entry: Entry) -> Retrieval:
    what = "a retrieval task is a folder with queries, corpus and qrels"
    read = {}
    for name in ("queries", "corpus"):
        rows = rows_by_id(read_json_lines(part(path, what, f"{name}.jsonl")))
        read[name] = {key: _item(row, path, location) for location, key, row in rows}
    qrels, _ = ranked_readers.judgements(ranked_readers.qrels_path(path), read["queries"], read["corpus"])
    return _retrieval(entry, read["queries"], read["corpus"], qrels)


# labels


def _labelled(path: pathlib.Path, folder: pathlib.Path) -> tuple[list[Item], list[str]]:
    """Returns the images and labels of lines of {"image", "label"}."""
    items, labels = [], []
    for location, row in read_json_lines(str(path)):
        if row.get("label") is None or isinstance(row["label"], list):
            raise DataError(f"{location}: needs a field 'label' with one label")
        items.append(Item(images=(_image(row.get("image"), folder, location),)))
        labels.append(label_of(row["label"], location))
    return some(items, path), labels


def _array_labels(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> list[str]:
    labels = arrays.get("labels")
    if labels is None or labels.shape != (len(arrays["images"]),):
        raise DataError(f"{path}: needs the array 'labels', one for each image")
    return [label_of(label, str(path)) for label in labels.tolist()]


def _is_training(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns which images classifiers learn from: those that `split` calls train, of even drawers, or at even positions."""
    if "split" in arrays:
        return arrays["split"] == "train"
    return (arrays["drawer"] if "drawer" in arrays else np.arange(len(arrays["images"]))) % 2 == 0


def read_image_classification(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder with train.jsonl and test.jsonl of {"image", "label"}, or an .npz file with `labels`.

    Without a `split` in it every second image is for training, or those of every second `drawer`.
    """
    if path.is_dir():
        what = "an image classification task is a folder with train and test"
        files = [pathlib.Path(part(path, what, f"{split}.jsonl")) for split in ("train", "test")]
        (train, train_labels), (test, test_labels) = (_labelled(file, path) for file in files)
    else:
        arrays = _arrays(path)
        items, labels, chosen = _items(arrays), _array_labels(path, arrays), _is_training(arrays)
        train, test = ([item for item, c in zip(items, chosen) if c == wanted] for wanted in (True, False))
        train_labels, test_labels = ([x for x, c in zip(labels, chosen) if c == wanted] for wanted in (True, False))
    if len(set(train_labels)) < 2 or not test:
        raise DataError(f"{path}: needs training images of two labels or more, and test images")
    return {
        "train": train,
        "train_labels": train_labels,
        "test": test,
        "test_labels": test_labels,
        "per_label": entry.get("samples_per_label", 16),
        "experiments": entry.get("n_experiments", 5),
    }


def read_zero_shot_classification(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder with test.jsonl of {"image", "label"} and labels.jsonl of {"label", "text"}: what each label is called.

    Of an .npz file the labels themselves are the texts.
    """
    if path.is_dir():
        what = "a zero-shot classification task is a folder with test and labels"
        items, labels = _labelled(pathlib.Path(part(path, what, "test.jsonl")), path)
        texts = {}
        for location, row in read_json_lines(part(path, what, "labels.jsonl")):
            texts[label_of(row.get("label"), location)] = text_or_empty(row.get("text"), "text", location)
    else:
        arrays = _arrays(path)
        items, labels = _items(arrays), _array_labels(path, arrays)
        texts = {label: label for label in sorted(set(labels))}
    position = {label: i for i, label in enumerate(texts)}
    unknown = sorted({label for label in labels if label not in position})
    if unknown:
        raise DataError(f"{path}: the label {unknown[0]!r} has no text in labels.jsonl; add it")
    return {"images": items, "gold": [position[label] for label in labels], "candidates": list(texts.values())}


def read_image_clustering(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder with test.jsonl of {"image", "label"}, or an .npz file with `labels`."""
    if path.is_dir():
        what = "an image clustering task is a folder with test"
        items, labels = _labelled(pathlib.Path(part(path, what, "test.jsonl")), path)
    else:
        arrays = _arrays(path)
        items, labels = _items(arrays), _array_labels(path, arrays)
    if len(set(labels)) < 2:
        raise DataError(f"{path}: the images have one label only; there is nothing to find")
    return {"images": items, "labels": labels}


# pairs


def read_visual_sts(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder with test.jsonl of {"image1", "image2", "score"}."""
    first, second, gold = [], [], []
    for location, row in read_json_lines(part(path, "a visual_sts task is a folder with test", "test.jsonl")):
        for side, name in ((first, "image1"), (second, "image2")):
            side.append(Item(images=(_image(row.get(name), path, location),)))
        try:
            gold.append(finite(row.get("score")))
        except (TypeError, ValueError) as e:
            raise DataError(
                f"{location}: needs a field 'score' with a number, not {str(row.get('score'))[:40]!r}"
            ) from e
    return {"first": some(first, path), "second": second, "gold": gold}


def read_image_text_pairs(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads an .npz file whose rows have `text` and `label`: 1 where the text is true of the image, else 0."""
    items = _items(_arrays(path))
    texts, labels = [], []
    for location, row in _rows_beside(path, len(items)):
        if row.get("label") not in (0, 1):
            raise DataError(f"{location}: needs a field 'label', 0 or 1")
        texts.append(text_or_empty(row.get("text"), "text", location))
        labels.append(int(row["label"]))
    if len(set(labels)) == 1:
        raise DataError(f"{path}: every label is {labels[0]}; pairs of both kinds are needed")
    return {"first": items, "second": texts, "labels": labels}


def read_compositionality(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder with test.jsonl of {"images": [...], "texts": [...]}, as many of each in every row."""
    images, texts = [], []
    for location, row in read_json_lines(part(path, "a compositionality task is a folder with test", "test.jsonl")):
        sides = [row.get("images"), row.get("texts")]
        if not all(isinstance(side, list) and side for side in sides):
            raise DataError(f"{location}: needs the lists 'images' and 'texts'")
        images.append([Item(images=(_image(value, path, location),)) for value in sides[0]])
        texts.append([text_or_empty(text, "texts", location) for text in sides[1]])
        if (len(images[-1]), len(texts[-1])) != (len(images[0]), len(texts[0])):
            raise DataError(f"{location}: has another number of images or texts than the first row")
    return {"images": some(images, path), "texts": texts}


def read_universal(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder with a folder for each domain: index.jsonl of {"image", "label"}, and queries.jsonl where queries are not it.

    Folders without index.jsonl are no domains.
    """
    domains, remarks = {}, []
    for folder in sorted(path.iterdir()) if path.is_dir() else ():
        file = _beside(folder, "index.jsonl")
        if file is None:
            continue
        index, labels = _labelled(file, folder)
        queries, query_labels = None, []
        file = _beside(folder, "queries.jsonl")
        if file is not None:
            queries, query_labels = _labelled(file, folder)
        domains[folder.name] = Domain(index, labels, queries, query_labels)
        alone = _alone(domains[folder.name])
        if alone == len(domains[folder.name].labels):
            raise DataError(
                f"{folder}: no query has another image of its label in the index; give every label two images"
            )
        if alone:
            remarks.append(f"{alone} queries of {folder.name} have no image to find and are left out")
    if len(domains) < 2:
        raise DataError(
            f"{path}: a universal retrieval task is a folder with a folder for each domain, which holds index.jsonl; it has "
            f"{len(domains)}, and two are needed"
        )
    return {"domains": domains, "remarks": remarks}


def _beside(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """Returns the path of a file in a folder, plain or packed; None where it is not there."""
    return next((folder / n for n in (name, f"{name}.gz") if (folder / n).is_file()), None)


def _alone(domain: Domain) -> int:
    """Returns how many queries have nothing to find."""
    counts = collections.Counter(domain.index_labels)
    itself = domain.queries is None
    return sum(counts[label] - itself < 1 for label in domain.labels)


def read_dense(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder with train.jsonl and test.jsonl of {"image", "classes", "depth"?, "normals"?}: images as paths in the folder.

    A map of classes has a number for each pixel, 255 for none; depths have 8 or 16 bits; normals are colours of -1 to 1. The
    classes' names may stand in labels.jsonl: {"label": number, "text": a name, or a list of texts of it}.
    """
    what, fields = "a dense task is a folder with train and test", {}
    for split in ("train", "test"):
        file = part(path, what, f"{split}.jsonl")
        rows = list(read_json_lines(file))
        kinds = [kind for kind in MAPS if rows and kind in rows[0][1]]
        if "classes" not in kinds:
            raise DataError(f"{file}: its rows need the fields 'image' and 'classes'")
        fields[split] = [Item(images=(_image(row.get("image"), path, location),)) for location, row in rows]
        fields[f"{split}_maps"] = {
            kind: [_image(row.get(kind), path, location) for location, row in rows] for kind in kinds
        }
    if fields["train_maps"].keys() != fields["test_maps"].keys():
        raise DataError(f"{path}: train and test have different kinds of maps; give both the same")
    return {**fields, "labels": _names(path)}


def _names(path: pathlib.Path) -> dict[int, list[str]] | None:
    """Returns the texts of each class of labels.jsonl by its number; None where there is no such file."""
    file = _beside(path, "labels.jsonl")
    if file is None:
        return None
    names: dict[int, list[str]] = {}
    for location, row in read_json_lines(file):
        number, texts = row.get("label"), row.get("text")
        texts = texts if isinstance(texts, list) else [texts]
        if not isinstance(number, int) or isinstance(number, bool) or number in names:
            raise DataError(
                f"{location}: label is {number!r}, expected the number of a class that stands in one line; correct it"
            )
        names[number] = [text_or_empty(text, "text", location) for text in texts]
        if not names[number] or not all(names[number]):
            raise DataError(f"{location}: class {number} has an empty name; fill it")
    return names
