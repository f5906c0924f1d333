"""The file formats of tasks of images.

A task is a folder of jsonl files whose rows name images by a path in the folder, or NAME.npz with `images` of bytes, [n, height,
width] or [n, height, width, 3]. Labels are in it as `labels`; names and texts are in the rows of NAME.jsonl beside it.
"""

import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from embed.buckets import copies
from embed.errors import DataError
from embed.evaluation.dense_tasks import MAPS
from embed.evaluation.reading import Entry, finite, label_of, part, some, text_or_empty
from embed.sources.fields import checked_text
from embed.sources.lines import read_json_lines
from embed.types import Item


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
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


def rows_beside(path: pathlib.Path, number: int) -> list[tuple[str, dict]]:
    """Returns (location, row) of NAME.jsonl beside NAME.npz, one row for each image."""
    file = part(copies.folder_of(path), f"the rows of {path.name} are there", f"{path.stem}.jsonl")
    rows = list(read_json_lines(file))
    if len(rows) != number:
        raise DataError(f"{file}: has {len(rows)} rows, and {path.name} {number} images; restore both")
    return rows


def items_of(arrays: Mapping[str, np.ndarray]) -> list[Item]:
    """Returns the images of an .npz file as items."""
    return [Item(images=(image,)) for image in arrays["images"]]


def path_of(value: Any, folder: pathlib.Path, location: str) -> pathlib.Path:
    """Returns the path of an image that a row names; one that is not there is a DataError."""
    path = folder / checked_text(value, "image", location)
    if not path.is_file():
        raise DataError(f"{location}: the image {path} is not there; correct the path, or remove the line")
    return path


def item_of(row: Mapping, folder: pathlib.Path, location: str) -> Item:
    """Returns the item of a row with `text`, `image` or `images`."""
    given = [row["image"]] if row.get("image") is not None else list(row.get("images") or ())
    text = None if row.get("text") is None else text_or_empty(row["text"], "text", location)
    if text is None and not given:
        raise DataError(f"{location}: needs a field 'image' or 'text'")
    return Item(text, None, tuple(path_of(value, folder, location) for value in given))


# labels


def read_labelled(path: pathlib.Path, folder: pathlib.Path) -> tuple[list[Item], list[str]]:
    """Returns the images and labels of lines of {"image", "label"}."""
    items, labels = [], []
    for location, row in read_json_lines(str(path)):
        if row.get("label") is None or isinstance(row["label"], list):
            raise DataError(f"{location}: needs a field 'label' with one label")
        items.append(Item(images=(path_of(row.get("image"), folder, location),)))
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
        (train, train_labels), (test, test_labels) = (read_labelled(file, path) for file in files)
    else:
        arrays = read_arrays(path)
        items, labels, chosen = items_of(arrays), _array_labels(path, arrays), _is_training(arrays)
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
        items, labels = read_labelled(pathlib.Path(part(path, what, "test.jsonl")), path)
        texts = {}
        for location, row in read_json_lines(part(path, what, "labels.jsonl")):
            texts[label_of(row.get("label"), location)] = text_or_empty(row.get("text"), "text", location)
    else:
        arrays = read_arrays(path)
        items, labels = items_of(arrays), _array_labels(path, arrays)
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
        items, labels = read_labelled(pathlib.Path(part(path, what, "test.jsonl")), path)
    else:
        arrays = read_arrays(path)
        items, labels = items_of(arrays), _array_labels(path, arrays)
    if len(set(labels)) < 2:
        raise DataError(f"{path}: the images have one label only; there is nothing to find")
    return {"images": items, "labels": labels}


# pairs


def read_visual_sts(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder with test.jsonl of {"image1", "image2", "score"}."""
    first, second, gold = [], [], []
    for location, row in read_json_lines(part(path, "a visual_sts task is a folder with test", "test.jsonl")):
        for side, name in ((first, "image1"), (second, "image2")):
            side.append(Item(images=(path_of(row.get(name), path, location),)))
        try:
            gold.append(finite(row.get("score")))
        except (TypeError, ValueError) as e:
            raise DataError(
                f"{location}: needs a field 'score' with a number, not {str(row.get('score'))[:40]!r}"
            ) from e
    return {"first": some(first, path), "second": second, "gold": gold}


def read_image_text_pairs(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads an .npz file whose rows have `text` and `label`: 1 where the text is true of the image, else 0."""
    items = items_of(read_arrays(path))
    texts, labels = [], []
    for location, row in rows_beside(path, len(items)):
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
        images.append([Item(images=(path_of(value, path, location),)) for value in sides[0]])
        texts.append([text_or_empty(text, "texts", location) for text in sides[1]])
        if (len(images[-1]), len(texts[-1])) != (len(images[0]), len(texts[0])):
            raise DataError(f"{location}: has another number of images or texts than the first row")
    return {"images": some(images, path), "texts": texts}


def beside(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """Returns the path of a file in a folder, plain or packed; None where it is not there."""
    return next((folder / n for n in (name, f"{name}.gz") if (folder / n).is_file()), None)


def read_dense(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder with train.jsonl and test.jsonl of {"image", "classes", "depth"?, "normals"?}: images as paths in the folder.

    A map of classes has a number for each pixel, 255 for no class; depths have 8 or 16 bits, 0 for no depth; normals are colours
    of -1 to 1, black or of no length for no normal. Pixels without a value are neither fitted nor scored. The classes' names may
    stand in labels.jsonl: {"label": number, "text": a name, or a list of texts of it}.
    """
    what, fields = "a dense task is a folder with train and test", {}
    for split in ("train", "test"):
        file = part(path, what, f"{split}.jsonl")
        rows = list(read_json_lines(file))
        kinds = [kind for kind in MAPS if rows and kind in rows[0][1]]
        if "classes" not in kinds:
            raise DataError(f"{file}: its rows need the fields 'image' and 'classes'")
        fields[split] = [Item(images=(path_of(row.get("image"), path, location),)) for location, row in rows]
        fields[f"{split}_maps"] = {
            kind: [path_of(row.get(kind), path, location) for location, row in rows] for kind in kinds
        }
    if fields["train_maps"].keys() != fields["test_maps"].keys():
        raise DataError(f"{path}: train and test have different kinds of maps; give both the same")
    return {**fields, "labels": _names(path)}


def _names(path: pathlib.Path) -> dict[int, list[str]] | None:
    """Returns the texts of each class of labels.jsonl by its number; None where there is no such file."""
    file = beside(path, "labels.jsonl")
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
