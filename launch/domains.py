"""Small domains of images, each with its own labels, for one embedding of all: domains.py PICTURES OUTPUT [NAME=FILE.npz ...]

PICTURES is the folder of launch/image_data.sh with the sets stamps and emoji. They become the domains

    emoji     each emoji as drawn by two vendors, each on two backgrounds; the label is the emoji
    stamps    each stamp on four backgrounds; the label is the stamp
    NAME      one domain for each FILE.npz, which has `images` uint8 [n, height, width(, 3)] and `labels` [n]

OUTPUT is a new folder with

    NAME.jsonl and NAME.txt     a domain's rows for training, {image, label}, and its labels
    all.txt                     the labels of all domains, one domain after the other
    universal/NAME/index.jsonl  the test images for suite.json: each is a query for the other images of its label

One label in eight of emoji and stamps, and one image in four of each FILE.npz, is held out for testing.
"""

import hashlib
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from image_suites import write_rows
from PIL import Image

SIDE = 64  # pixels of an image
Picture = tuple[str, Image.Image, bool]  # (label, picture, whether it is for testing)


def _hash_fraction(name: str) -> float:
    """Returns a hash of `name` in [0, 1)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def on_background(picture: Image.Image, name: str) -> Image.Image:
    """Returns a picture that is rotated, scaled and moved on a coloured background, all drawn from a hash of `name`."""
    rng = np.random.default_rng(int(_hash_fraction(name) * 2**31))
    side = max(picture.size)
    ground = tuple(int(level) for level in rng.integers(90, 256, 3))
    square = Image.new("RGBA", (side, side), ground)
    turned = picture.convert("RGBA").rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR)
    scale = rng.uniform(0.6, 1.0)
    small = turned.resize([max(1, int(scale * length)) for length in turned.size], Image.Resampling.BILINEAR)
    left, top = (int(rng.integers(0, side - length + 1)) for length in small.size)
    square.alpha_composite(small, (left, top))
    return square.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def of_set(folder: pathlib.Path, backgrounds: int) -> Iterator[Picture]:
    """Yields each picture of a set on so many backgrounds; its id is its label."""
    lines = [line for part in ("train", "test") for line in (folder / f"{part}.jsonl").read_text("utf-8").splitlines()]
    for row in map(json.loads, lines):
        with Image.open(folder / row["image"]) as opened:
            for number in range(backgrounds):
                picture = on_background(opened, f"{row['image']} {number}")
                yield row["id"], picture, _hash_fraction(row["id"]) < 1 / 8


def of_arrays(path: pathlib.Path) -> Iterator[Picture]:
    """Yields the images of an .npz file, resized to squares."""
    with np.load(path, allow_pickle=False) as stored:
        images, labels = stored["images"], stored["labels"]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        picture = Image.fromarray(image).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        yield str(label), picture, _hash_fraction(f"{path.stem} {number}") < 1 / 4


def write(name: str, pictures: Iterator[Picture], output: pathlib.Path) -> list[str]:
    """Writes a domain and returns its labels, which have its name in front."""
    images = output / "images" / name
    images.mkdir(parents=True)
    rows: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for number, (label, picture, is_test) in enumerate(pictures):
        path = images / f"{number}.png"
        picture.save(path)
        rows[is_test].append({"image": path.relative_to(output).as_posix(), "label": f"{name} {label}"})
    write_rows(output / f"{name}.jsonl", rows[False])
    labels = list(dict.fromkeys(row["label"] for row in rows[False]))
    (output / f"{name}.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    folder = output / "universal" / name
    folder.mkdir(parents=True)
    write_rows(folder / "index.jsonl", ({**row, "image": f"../../{row['image']}"} for row in rows[True]))
    print(
        f"wrote      {name}: {len(rows[False]):,} images of {len(labels):,} labels for training, {len(rows[True]):,} for testing"
    )
    return labels


def main(pictures: pathlib.Path, output: pathlib.Path, arrays: dict[str, pathlib.Path]) -> None:
    """Writes all domains, their suite and the list of all labels."""
    output.mkdir(parents=True)
    domains = {"emoji": of_set(pictures / "emoji", 2), "stamps": of_set(pictures / "stamps", 4)}
    domains |= {name: of_arrays(path) for name, path in arrays.items()}
    labels = [write(name, domain_pictures, output) for name, domain_pictures in domains.items()]
    (output / "all.txt").write_text("".join(f"{label}\n" for of_one in labels for label in of_one), encoding="utf-8")
    suite = {"name": "domains", "tasks": [{"name": "domains", "type": "universal_retrieval", "path": "universal"}]}
    (output / "suite.json").write_text(json.dumps(suite, indent=2) + "\n", encoding="utf-8")
    counts = tuple(map(len, labels))
    print(f"classes    all.txt: CLASS_COUNTS = {counts}, NUM_CLASSES = {sum(counts)}")


if __name__ == "__main__":
    named = dict(argument.split("=", 1) for argument in sys.argv[3:])
    main(
        pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), {name: pathlib.Path(path) for name, path in named.items()}
    )
