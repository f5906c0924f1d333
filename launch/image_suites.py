"""Suites of the sets of launch/image_data.py: tasks as folders of jsonl that name the images of the set, and suite.json."""

import json
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import scenes
from PIL import Image

Row = dict[str, Any]
DENSE_TRAIN, DENSE_TEST = 800, 300  # images whose patches are probed
FLOOR = 0  # its position in scenes.SHAPES; the objects come after it
IGNORED = 255  # a pixel that no score of a dense task counts


def write_rows(path: pathlib.Path, rows: Iterable[Row]) -> None:
    """Writes rows as jsonl."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _above(row: Row, *fields: str) -> Row:
    """Returns the fields of a row, paths of images as they are from a folder of the set."""
    return {field: f"../{row[field]}" for field in fields}


def classification(folder: pathlib.Path, train: Sequence[Row], test: Sequence[Row], label: str) -> str:
    """Writes images with a label each. Labels that only one part has are left out."""
    known = {row[label] for row in train} & {row[label] for row in test}
    for part, rows in (("train", train), ("test", test)):
        kept = [{**_above(row, "image"), "label": row[label]} for row in rows if row[label] in known]
        write_rows(folder / f"{part}.jsonl", kept)
    return "image_classification"


def zero_shot(folder: pathlib.Path, test: Sequence[Row], label: str, text: Callable[[str], str]) -> str:
    """Writes images whose labels are told by their names."""
    write_rows(folder / "test.jsonl", [{**_above(row, "image"), "label": row[label]} for row in test])
    write_rows(folder / "labels.jsonl", [{"label": x, "text": text(x)} for x in sorted({row[label] for row in test})])
    return "zero_shot_classification"


def retrieval(folder: pathlib.Path, test: Sequence[Row], caption: str, from_images: bool) -> str:
    """Writes captions and the images that they find, or the other way round. Every image with a caption answers it."""
    images = [{"id": f"image {row['id']} {row.get('vendor', '')}".strip(), **_above(row, "image")} for row in test]
    captions = {text: f"caption {i}" for i, text in enumerate(dict.fromkeys(row[caption] for row in test))}
    texts = [{"id": name, "text": text} for text, name in captions.items()]
    queries, corpus = (images, texts) if from_images else (texts, images)
    write_rows(folder / "queries.jsonl", queries)
    write_rows(folder / "corpus.jsonl", corpus)
    pairs = [(captions[row[caption]], image["id"]) for row, image in zip(test, images)]
    judged = [(image, text) if from_images else (text, image) for text, image in pairs]
    lines = ["query-id\tcorpus-id\tscore", *(f"{query}\t{document}\t1" for query, document in judged)]
    (folder / "qrels.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "image_text_retrieval" if from_images else "image_retrieval"


def dense(folder: pathlib.Path, train: Sequence[Row], test: Sequence[Row]) -> str:
    """Writes scenes with their maps, and the names of the classes."""
    layers = ("image", "classes", "depth", "normals")
    write_rows(folder / "train.jsonl", [_above(row, *layers) for row in train[:DENSE_TRAIN]])
    write_rows(folder / "test.jsonl", [_above(row, *layers) for row in test[:DENSE_TEST]])
    names = [{"label": i, "text": [shape, f"a {shape}"]} for i, shape in enumerate(scenes.SHAPES)]
    write_rows(folder / "labels.jsonl", names)
    return "dense"


def objects(folder: pathlib.Path, train: Sequence[Row], test: Sequence[Row]) -> str:
    """Writes scenes with maps of the objects alone, and their names. The floor is not scored: hardly a caption names it."""
    (folder / "maps").mkdir()
    for part, rows in (("train", train[:DENSE_TRAIN]), ("test", test[:DENSE_TEST])):
        written = []
        for row in rows:
            classes = np.asarray(Image.open(folder.parent / row["classes"]))
            name = f"maps/{part}-{row['id']}.png"
            Image.fromarray(np.where(classes == FLOOR, IGNORED, classes - 1).astype(np.uint8)).save(folder / name)
            written.append({**_above(row, "image"), "classes": name})
        write_rows(folder / f"{part}.jsonl", written)
    named = scenes.SHAPES[FLOOR + 1 :]
    write_rows(folder / "labels.jsonl", [{"label": i, "text": [x, f"a {x}"]} for i, x in enumerate(named)])
    return "dense"


def of_scenes(train: Sequence[Row], test: Sequence[Row]) -> dict[str, Callable[[pathlib.Path], str]]:
    """Returns what writes each task: all pixels, pixels of objects, sentences of everything, and the name of the largest object."""
    return {
        "scenes-pixels": lambda folder: dense(folder, train, test),
        "scenes-objects": lambda folder: objects(folder, train, test),
        "scenes-text-to-image": lambda folder: retrieval(folder, test, "synthetic_caption", False),
        "scenes-image-to-text": lambda folder: retrieval(folder, test, "synthetic_caption", True),
        "scenes-names": lambda folder: classification(folder, train, test, "name"),
        "scenes-zero-shot": lambda folder: zero_shot(folder, test, "name", "a {}".format),
    }


def of_pictures(name: str, train: Sequence[Row], test: Sequence[Row]) -> dict[str, Callable[[pathlib.Path], str]]:
    """Returns what writes each task of stamps or emoji: categories, and captions."""
    return {
        f"{name}-categories": lambda folder: classification(folder, train, test, "category"),
        f"{name}-text-to-image": lambda folder: retrieval(folder, test, "caption", False),
        f"{name}-image-to-text": lambda folder: retrieval(folder, test, "caption", True),
    }


SUITES = {
    "scenes": of_scenes,
    "stamps": lambda train, test: of_pictures("stamps", train, test),
    "emoji": lambda train, test: of_pictures("emoji", train, test),
}


def write(name: str, output: pathlib.Path, train: Sequence[Row], test: Sequence[Row]) -> None:
    """Writes the tasks of a set below its folder, and suite.json."""
    tasks = []
    for task, write_task in SUITES[name](train, test).items():
        (output / task).mkdir()
        tasks.append({"name": task, "type": write_task(output / task), "path": task, "languages": ["en"]})
    suite = {"name": name, "tasks": tasks}
    (output / "suite.json").write_text(json.dumps(suite, indent=2) + "\n", encoding="utf-8")
