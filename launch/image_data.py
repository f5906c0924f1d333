"""Writes images and jsonl from the unpacked packages of launch/image_data.sh: image_data.py SET PACKAGE OUTPUT.

Every set has train.jsonl and test.jsonl, whose rows name images by a path in the folder. A row is for testing when the sha256 of
what it shows (a stamp, an emoji, a tile) says so: one in eight. The set `arrays` makes such a folder of FILE.npz, whose rows are in
FILE.jsonl.gz beside it: image_data.py arrays FILE.npz OUTPUT. All of it is for training.

scenes, stamps and emoji also get suite.json, which `embed evaluate` scores models on, and the folders of its tasks
(image_suites.py). The set `composed` has files of its own (composed.py).
"""

import gzip
import hashlib
import json
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import composed
import image_suites
import numpy as np
import scenes
from PIL import Image

Rows = Iterator[dict[str, Any]]


def is_test(name: str) -> bool:
    """Returns whether what has this name is for testing."""
    return hashlib.sha256(name.encode()).digest()[0] % 8 == 0


def stamps(package: pathlib.Path, output: pathlib.Path) -> Rows:
    """Yields Tux Paint's stamps: {"id", "image", "caption", "names", "category", "kind"}.

    A stamp's text file has the English caption in its first line, and then LANGUAGE.utf8=CAPTION. Stamps are PNG files with
    transparency; drawings in SVG, and stamps without an English caption, are left out.
    """
    root = package / "usr" / "share" / "tuxpaint" / "stamps"
    for path in sorted(root.rglob("*.png")):
        text = path.with_suffix(".txt")
        if not text.is_file():
            continue
        caption, *others = text.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
        if not caption.strip():
            continue
        names = {"en": caption.strip()}
        for line in others:
            language, separator, translated = line.partition(".utf8=")
            if separator and translated.strip():
                names[language.strip()] = translated.strip()
        name = path.relative_to(root).with_suffix("").as_posix()
        image = output / "images" / f"{name.replace('/', '-')}.png"
        shutil.copyfile(path, image)
        category, *kinds = name.split("/")[:-1]
        yield {
            "id": name,
            "image": image.relative_to(output).as_posix(),
            "caption": names["en"],
            "names": names,
            "category": category,
            "kind": "/".join([category, *kinds[:1]]),
        }


CELL, BORDER = 34, 1  # pixels of a cell of a sheet, and around each image in it
VENDORS = ("google", "twitter")


def emoji(package: pathlib.Path, output: pathlib.Path) -> Rows:
    """Yields emoji as each vendor draws them: {"id", "image", "vendor", "caption", "long_caption", "category", "kind"}."""
    folder = package / "package"
    entries = json.loads((folder / "emoji.json").read_text(encoding="utf-8"))
    for vendor in VENDORS:
        sheet = Image.open(folder / "img" / vendor / "sheets" / "32.png").convert("RGBA")
        for entry in entries:
            if not entry[f"has_img_{vendor}"]:
                continue
            left, top = (entry[f"sheet_{axis}"] * CELL + BORDER for axis in "xy")
            image = output / "images" / f"{vendor}-{entry['unified'].lower()}.png"
            sheet.crop((left, top, left + CELL - 2 * BORDER, top + CELL - 2 * BORDER)).save(image)
            caption = (entry["name"] or entry["short_name"]).lower()
            words = ", ".join(name.replace("_", " ").replace("-", " ") for name in entry["short_names"])
            yield {
                "id": entry["unified"].lower(),
                "image": image.relative_to(output).as_posix(),
                "vendor": vendor,
                "caption": caption,
                "long_caption": f"{caption}: {words}. {entry['category']}, {entry['subcategory'].replace('-', ' ')}.",
                "category": entry["category"],
                "kind": entry["subcategory"],
            }


TILE = 128  # pixels of a tile's side, 11 degrees


def earth(package: pathlib.Path, output: pathlib.Path) -> Rows:
    """Yields tiles of the Earth: {"id", "image", "height", "water", "longitude", "latitude"}.

    `height` is an image of 8 bits of the height above the sea, `water` one of 255 where there is water. Each is scaled to the size
    of the colours. Tiles beyond 78 degrees of latitude, which the projection stretches, are left out.
    """
    folder = package / "package" / "example" / "img"
    colours = Image.open(folder / "earth-blue-marble.jpg").convert("RGB")
    layers = {
        name: Image.open(folder / f"earth-{file}.png").convert("L").resize(colours.size, Image.Resampling.BILINEAR)
        for name, file in (("height", "topology"), ("water", "water"))
    }
    across, down = colours.size[0] // TILE, colours.size[1] // TILE
    for row in range(down):
        latitude = 90 - (row + 0.5) * 180 / down
        if abs(latitude) > 78:
            continue
        for column in range(across):
            box = (column * TILE, row * TILE, (column + 1) * TILE, (row + 1) * TILE)
            name = f"{row:02d}-{column:02d}"
            paths = {"image": f"images/{name}.png", **{layer: f"images/{name}-{layer}.png" for layer in layers}}
            colours.crop(box).save(output / paths["image"])
            for layer, image in layers.items():
                image.crop(box).save(output / paths[layer])
            longitude = (column + 0.5) * 360 / across - 180
            yield {"id": name, **paths, "longitude": longitude, "latitude": latitude}


def arrays(path: pathlib.Path, output: pathlib.Path) -> Rows:
    """Yields the images of an .npz file with their names: {"id", "image", "caption", "captions", "names"}.

    `captions` are the names in all languages.
    """
    with np.load(path, allow_pickle=False) as stored:
        images = stored["images"]
    with gzip.open(path.with_suffix(".jsonl.gz"), "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for number, (row, image) in enumerate(zip(rows, images, strict=True)):
        name = output / "images" / f"{number}.png"
        Image.fromarray(image).save(name)
        captions = list(dict.fromkeys(row["names"].values()))
        caption = row["names"].get("en", captions[0])
        yield {
            "id": row["id"],
            "image": name.relative_to(output).as_posix(),
            "caption": caption,
            "captions": captions,
            "names": row["names"],
        }


SCENES = 3500  # one in eight for testing


def made_scenes(package: pathlib.Path, output: pathlib.Path) -> Rows:
    """Yields pictures made by rule: {"id", "image", "classes", "depth", "normals", "caption", "synthetic_caption", "name"}.

    `classes` is an image of positions in scenes.SHAPES, `depth` one of 16 bits in thousandths, and `normals` one of colours from 0
    to 255 for -1 to 1. `name` is that of the largest object, such as "red sphere". `package` is not read.
    """
    del package
    for number in range(SCENES):
        made = scenes.scene(0, number)
        name = f"{number:05d}"
        paths = {"image": f"images/{name}.png"} | {x: f"images/{name}-{x}.png" for x in ("classes", "depth", "normals")}
        arrays = {
            "image": made.pixels,
            "classes": made.classes,
            "depth": (made.depth * 1000).round().astype(np.uint16),
            "normals": ((made.normals + 1) * 127.5).round().astype(np.uint8),
        }
        for layer, array in arrays.items():
            Image.fromarray(array).save(output / paths[layer])
        largest = max(made.things, key=lambda thing: thing.area, default=None)
        yield {
            "id": name,
            **paths,
            "caption": made.caption,
            "synthetic_caption": made.synthetic_caption,
            "name": "floor" if largest is None else largest.name,
        }


SETS = {"scenes": made_scenes, "stamps": stamps, "emoji": emoji, "earth": earth, "arrays": arrays}


def main(name: str, package: pathlib.Path, output: pathlib.Path) -> None:
    """Writes a set; an output folder of an earlier run is written anew."""
    shutil.rmtree(output, ignore_errors=True)
    (output / "images").mkdir(parents=True)
    if name == "composed":
        print(f"wrote      {output}: {composed.write(package, output)}")
        return
    split: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for row in SETS[name](package, output):
        split["test" if name != "arrays" and is_test(row["id"]) else "train"].append(row)
    for part, rows in split.items():
        image_suites.write_rows(output / f"{part}.jsonl", rows)
    if name in image_suites.SUITES:
        image_suites.write(name, output, split["train"], split["test"])
    print(f"wrote      {output}: {len(split['train']):,} rows for training, {len(split['test']):,} for testing")


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
