"""Small tasks of images as files, of every type and both forms."""

import json
import pathlib

import numpy as np
from PIL import Image
from task_files import write_json, write_tsv

KINDS = (
    "image_retrieval",
    "image_text_retrieval",
    "image_classification",
    "zero_shot_classification",
    "image_clustering",
    "visual_sts",
    "compositionality",
    "dense",
    "universal_retrieval",
    "mixed_retrieval",
)
PICTURES = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3)).astype(np.uint8)


def write_images(folder) -> list[str]:
    """Writes six images below `folder` and returns their paths in it."""
    folder = pathlib.Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = [f"images/{i}.png" for i in range(len(PICTURES))]
    for name, picture in zip(names, PICTURES):
        Image.fromarray(picture).save(folder / name)
    return names


def write(kind: str, folder, suffix: str = "") -> pathlib.Path:
    """Writes a task of a type as a folder of jsonl files, and returns it."""
    folder = pathlib.Path(folder)
    names = write_images(folder)
    rows = [{"image": name, "label": "xy"[i % 2]} for i, name in enumerate(names)]
    if kind in ("image_retrieval", "image_text_retrieval"):
        images = [{"id": f"i{i}", "image": name} for i, name in enumerate(names)]
        texts = [{"id": f"t{i}", "text": f"picture {i}"} for i in range(len(names))]
        queries, corpus = (texts, images) if kind == "image_retrieval" else (images, texts)
        write_json(folder / f"queries.jsonl{suffix}", queries)
        write_json(folder / f"corpus.jsonl{suffix}", corpus)
        judged = [(q["id"], d["id"], "1") for q, d in zip(queries, corpus)]
        write_tsv(folder / f"qrels.tsv{suffix}", "query-id corpus-id score", judged)
    elif kind == "visual_sts":
        pairs = [{"image1": a, "image2": b, "score": float(i)} for i, (a, b) in enumerate(zip(names, names[1:]))]
        write_json(folder / f"test.jsonl{suffix}", pairs)
    elif kind == "dense":
        for i, name in enumerate(names):
            map_of = lambda layer, array, i=i: _write_map(folder, f"images/{i}-{layer}.png", array)  # noqa: E731
            classes = PICTURES[i, ..., 0] // 128
            rows[i] = {"image": name, "classes": map_of("classes", classes)}
            rows[i] |= {"depth": map_of("depth", PICTURES[i, ..., 1].astype(np.uint16) * 20), "normals": name}
        for split in ("train", "test"):
            write_json(folder / f"{split}.jsonl{suffix}", rows)
    elif kind == "mixed_retrieval":
        queries = [{"id": f"q{i}", "text": "[MASK_0] once more", "images": [name]} for i, name in enumerate(names[:4])]
        write_json(folder / f"queries.jsonl{suffix}", queries)
        write_json(folder / f"corpus.jsonl{suffix}", [{"id": f"i{i}", "image": name} for i, name in enumerate(names)])
        judged = [(f"q{i}", f"i{i + 1}", "1") for i in range(4)]
        write_tsv(folder / f"qrels.tsv{suffix}", "query-id corpus-id score", judged)
    elif kind == "universal_retrieval":
        for number, domain in enumerate(("one", "two")):
            index = [{"image": f"../{name}", "label": "xy"[i % 2]} for i, name in enumerate(names[number:])]
            write_json(folder / domain / f"index.jsonl{suffix}", index)
        write_json(folder / "two" / f"queries.jsonl{suffix}", index[:3])
    elif kind == "compositionality":
        pairs = [{"images": names[i : i + 2], "texts": [f"picture {i}", f"picture {i + 1}"]} for i in (0, 2, 4)]
        write_json(folder / f"test.jsonl{suffix}", pairs)
    else:
        write_json(folder / f"test.jsonl{suffix}", rows)
        if kind == "image_classification":
            write_json(folder / f"train.jsonl{suffix}", rows)
        if kind == "zero_shot_classification":
            write_json(folder / f"labels.jsonl{suffix}", [{"label": x, "text": f"the letter {x}"} for x in "xy"])
    return folder


def _write_map(folder: pathlib.Path, name: str, array: np.ndarray) -> str:
    Image.fromarray(array).save(folder / name)
    return name


def write_arrays(path, rows: list[dict] | None = None, **arrays) -> pathlib.Path:
    """Writes the six images as an .npz file with `arrays`, and `rows` beside it."""
    path = pathlib.Path(path)
    np.savez(path, **{"images": PICTURES, **arrays})
    if rows is not None:
        path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
