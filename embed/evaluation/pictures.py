"""Pictures of what was scored: images beside their patches' components, maps of classes and depths, and what queries found.

They lie in the folder `pictures` of an evaluation as PNG files, with index.json that says which belong together, and the HTML
report holds them.
"""

import colorsys
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np

from embed import documents, files, image_bytes
from embed.errors import DataError

FOLDER, INDEX = "pictures", "index.json"
SIDE = 160  # pixels of a picture's longer side


@dataclasses.dataclass(frozen=True)
class Panel:
    """An image as the bytes of a PNG, or a text where there is none, and what it is. `is_right` marks what was to be found."""

    label: str
    png: bytes | None = None
    text: str = ""
    is_right: bool | None = None


Row = Sequence[Panel]
Rows = Mapping[str, Mapping[str, Sequence[Row]]]  # model -> task -> rows of panels


class _Panel(TypedDict):
    label: str
    file: NotRequired[str]
    text: NotRequired[str]
    is_right: NotRequired[bool]


_Index = dict[str, dict[str, list[list[_Panel]]]]


def opened(image: Any) -> Any:
    """Returns the Pillow image of a task's image: a path, the bytes of a file, or an array of pixels."""
    if isinstance(image, np.ndarray):
        return image_bytes.open_image(image_bytes.png(image), "an array")
    content = image if isinstance(image, bytes) else pathlib.Path(image).read_bytes()
    return image_bytes.open_image(content, str(image)[:200])


def thumbnail(image: Any, side: int = SIDE) -> bytes:
    """Returns an opened image, no larger than `side`, as PNG."""
    image = image.copy()
    image.thumbnail((side, side))
    return image_bytes.png(np.asarray(image.convert("RGB")))


def scaled(pixels: np.ndarray, side: int = SIDE) -> bytes:
    """Returns colours [Y, X, 3] in [0, 1] as PNG, every pixel as a square of several."""
    factor = max(1, side // max(pixels.shape[:2]))
    step = max(1, -(-max(pixels.shape[:2]) // side))
    levels = np.uint8(np.round(np.clip(pixels[::step, ::step], 0, 1) * 255))
    return image_bytes.png(np.ascontiguousarray(levels.repeat(factor, 0).repeat(factor, 1)))


def of_classes(classes: np.ndarray, count: int) -> bytes:
    """Returns a map of classes [Y, X] as PNG, a colour each; grey where there is none (-1)."""
    hues = [colorsys.hsv_to_rgb((i * 0.618) % 1, 0.35 + 0.4 * (i % 2), 0.9 - 0.25 * (i % 3)) for i in range(count)]
    palette = np.array([*hues, (0.6, 0.6, 0.6)])
    return scaled(palette[classes])


def of_depths(depths: np.ndarray, low: float, high: float) -> bytes:
    """Returns a map of depths [Y, X] as PNG: near ones are yellow, far ones blue, and NaN is black.

    `low` and `high` are the ends of the scale.
    """
    share = np.clip((depths - low) / max(high - low, 1e-9), 0, 1)[..., None]
    colours = (1 - share) * np.array([0.99, 0.9, 0.35]) + share * np.array([0.1, 0.15, 0.5])
    return scaled(np.nan_to_num(colours))


def of_normals(normals: np.ndarray) -> bytes:
    """Returns directions [Y, X, 3] as PNG, each as a colour; NaN is black."""
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return scaled(np.nan_to_num(normals / np.maximum(length, 1e-9) / 2 + 0.5))


def write(folder: pathlib.Path, rows: Rows) -> None:
    """Writes pictures and their index below `folder`; nothing where there are none."""
    index: _Index = {}
    for i, (model, tasks) in enumerate(rows.items()):
        for j, (task, task_rows) in enumerate(tasks.items()):
            for k, row in enumerate(task_rows):
                entries = [_written(folder, panel, f"{i}-{j}-{k}-{number}.png") for number, panel in enumerate(row)]
                index.setdefault(model, {}).setdefault(task, []).append(entries)
    if index:
        files.write_json(folder / FOLDER / INDEX, index)


def _written(folder: pathlib.Path, panel: Panel, name: str) -> _Panel:
    entry: _Panel = {"label": panel.label}
    if panel.png is not None:
        (folder / FOLDER).mkdir(exist_ok=True)
        (folder / FOLDER / name).write_bytes(panel.png)
        entry["file"] = name
    if panel.text:
        entry["text"] = panel.text
    if panel.is_right is not None:
        entry["is_right"] = panel.is_right
    return entry


def read(folder: pathlib.Path) -> dict[str, dict[str, list[list[Panel]]]]:
    """Returns the pictures of an evaluation's folder; none where it has none. A file that is not there is a DataError."""
    path = folder / FOLDER / INDEX
    if not path.is_file():
        return {}
    index = documents.read_json(path, _Index)
    return {
        model: {task: [[_opened(path, entry) for entry in row] for row in rows] for task, rows in tasks.items()}
        for model, tasks in index.items()
    }


def _opened(path: pathlib.Path, entry: _Panel) -> Panel:
    content = None
    if "file" in entry:
        name = entry["file"]
        if pathlib.PurePath(name).name != name or not (path.parent / name).is_file():
            raise DataError(f"{path}: {name!r} is no picture beside it; run the evaluation again")
        content = (path.parent / name).read_bytes()
    return Panel(entry["label"], content, entry.get("text", ""), entry.get("is_right"))
