"""The file formats of universal retrieval: folders of domains, and the files of UnED and ILIAS as their authors publish them."""

import pathlib
from collections.abc import Sequence
from typing import Any

from embed import files
from embed.data.image_values import EXTENSIONS
from embed.errors import DataError
from embed.evaluation.image_readers import beside, path_of, read_labelled
from embed.evaluation.reading import Entry, label_of, some
from embed.evaluation.universal_tasks import Domain
from embed.sources.lines import read_json_lines
from embed.types import Item

_ILIAS = "ilias"
_DISTRACTORS = "distractors"


def read_universal(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads the domains of a folder, which has one of three forms.

    - A folder for each domain, with index.jsonl of {"image", "label"} and, where the queries are others, queries.jsonl. An image of
      the index with the same bytes as the query is not ranked. Folders without index.jsonl are no domains.
    - UnED (arXiv:2309.01858): info_files/DOMAIN/test.json, and index.json of the domains whose index are other images, lists of
      {"path", "class_id"}; the paths are in images/. A query of several classes finds the images of each.
    - ILIAS (arXiv:2502.11748): INSTANCE/query/ and INSTANCE/pos/ of images, and distractors/ of any depth; one domain, "ilias".

    Without other queries the images of the index are the queries.
    """
    domains: dict[str, Domain] = {}
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir()) if path.is_dir() else []
    if (path / "info_files").is_dir():
        for folder in sorted(folder for folder in (path / "info_files").iterdir() if folder.is_dir()):
            domains[folder.name] = _uned(folder, path / "images")
    elif any((folder / "query").is_dir() for folder in folders):
        domains[_ILIAS] = _ilias(path, folders)
    else:
        domains = {folder.name: _listed(folder) for folder in folders if beside(folder, "index.jsonl") is not None}
    if len(domains) < 2 and _ILIAS not in domains:
        raise DataError(
            f"{path}: a universal retrieval task is a folder with a folder for each domain, which holds index.jsonl; it has "
            f"{len(domains)}, and two are needed"
        )
    remarks = []
    for name, domain in domains.items():
        alone = int((domain.relevant < 1).sum())
        if alone == len(domain.labels):
            raise DataError(
                f"{path / name}: no query has another image of its label in the index; give every label two images"
            )
        if alone:
            remarks.append(f"{alone} queries of {name} have no image to find and are left out")
    return {"domains": domains, "remarks": remarks}


def _listed(folder: pathlib.Path) -> Domain:
    index, labels = read_labelled(beside(folder, "index.jsonl"), folder)
    file = beside(folder, "queries.jsonl")
    if file is None:
        return Domain(index, labels)
    queries, query_labels = read_labelled(file, folder)
    row_of: dict[str, int] = {}
    for row, item in enumerate(index):
        row_of.setdefault(files.sha256_file(item.images[0]), row)
    own_rows = [row_of.get(files.sha256_file(item.images[0]), -1) for item in queries]
    return Domain(index, labels, queries, query_labels, own_rows)


def _uned(folder: pathlib.Path, images: pathlib.Path) -> Domain:
    test, index = folder / "test.json", folder / "index.json"
    if not test.is_file():
        raise DataError(f"{folder}: has no test.json; restore UnED's info_files")
    has_index = index.is_file()
    items, labels = _uned_rows(index if has_index else test, images, is_index=True)
    queries = _uned_rows(test, images, is_index=False) if has_index else ()
    return Domain(items, [label for (label,) in labels], *queries)


def _uned_rows(file: pathlib.Path, images: pathlib.Path, is_index: bool) -> tuple[list[Item], list[tuple[str, ...]]]:
    """Returns the images of a list and the labels of each; an image of an index has one."""
    items, labels = [], []
    for location, row in read_json_lines(str(file)):
        classes = row.get("class_id")
        listed = classes if isinstance(classes, list) else [classes]
        if not listed or None in listed:
            raise DataError(f"{location}: needs a field 'class_id' with a class or a list of classes")
        if is_index and len(listed) > 1:
            raise DataError(f"{location}: an image of an index has one 'class_id'; restore UnED's info_files")
        items.append(Item(images=(_unpacked(row.get("path"), images, location),)))
        labels.append(tuple(label_of(one, location) for one in listed))
    return some(items, file), labels


def _unpacked(value: Any, images: pathlib.Path, location: str) -> pathlib.Path:
    """Returns the path of an image, also where `unzip` wrote the characters beyond ASCII as #Uxxxx, as it does for RP2K."""
    if isinstance(value, str) and not (images / value).is_file():
        escaped = "".join(x if x.isascii() else f"#U{ord(x):04x}" for x in value)
        if (images / escaped).is_file():
            value = escaped
    return path_of(value, images, location)


def _ilias(path: pathlib.Path, folders: Sequence[pathlib.Path]) -> Domain:
    """Returns the one domain of ILIAS; a label is an instance, and distractors have none that a query has."""
    index, labels, queries, query_labels = [], [], [], []
    for folder in folders:
        if folder.name == _DISTRACTORS:
            continue
        if not (folder / "query").is_dir() or not (folder / "pos").is_dir():
            raise DataError(
                f"{folder}: needs the folders query and pos of images; restore the instance, or move the folder away"
            )
        for name, items, names in (("query", queries, query_labels), ("pos", index, labels)):
            paths = some(_images_of(folder / name), folder / name)
            items += [Item(images=(file,)) for file in paths]
            names += [folder.name] * len(paths)
    distractors = _images_of(path / _DISTRACTORS) if (path / _DISTRACTORS).is_dir() else []
    index += [Item(images=(file,)) for file in distractors]
    return Domain(index, [*labels, *[""] * len(distractors)], queries, query_labels)


def _images_of(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_file())
