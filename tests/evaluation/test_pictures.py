"""Pictures of an evaluation: drawn, written with their index, read again, and shown in the report."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from embed.errors import DataError
from embed.evaluation import html, pictures
from embed.evaluation.pictures import Panel


def size(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def test_maps_are_drawn_pixel_by_pixel():
    classes = np.array([[0, 1, 2], [2, 1, -1]])
    drawn = np.asarray(Image.open(io.BytesIO(pictures.of_classes(classes, 3))))
    factor = drawn.shape[1] // 3
    colours = drawn[::factor, ::factor].reshape(-1, 3)
    assert len({tuple(c) for c in colours}) == 4 and tuple(colours[-1]) == (153, 153, 153)
    assert tuple(colours[1]) == tuple(colours[4]) and tuple(colours[2]) == tuple(colours[3])
    near, far = (
        np.asarray(Image.open(io.BytesIO(pictures.of_depths(np.full((2, 2), d), 1, 5))))[0, 0] for d in (1.0, 5.0)
    )
    assert near[0] > 200 and far[2] > far[0]
    normals = np.zeros((2, 2, 3))
    normals[..., 2] = 3.0
    assert tuple(np.asarray(Image.open(io.BytesIO(pictures.of_normals(normals))))[0, 0]) == (128, 128, 255)


def test_large_maps_and_images_become_small_ones():
    assert max(size(pictures.of_classes(np.zeros((500, 900), int), 1))) <= pictures.SIDE
    assert size(pictures.thumbnail(Image.new("RGB", (900, 300)))) == (160, 53)
    assert size(pictures.thumbnail(pictures.opened(np.zeros((40, 20, 3), np.uint8)))) == (20, 40)


@pytest.fixture
def rows():
    png = pictures.thumbnail(Image.new("RGB", (10, 10), "red"))
    found = [
        Panel("query", text="a <red> square"),
        Panel("1. 0.91", png, is_right=True),
        Panel("2. 0.40", png, is_right=False),
    ]
    return {"m": {"retrieval": [found, found[:2]]}, "other": {"scenes": [[Panel("image", png), Panel("depth", png)]]}}


def test_pictures_are_written_and_read_again(rows, tmp_path):
    pictures.write(tmp_path, rows)
    assert pictures.read(tmp_path) == {
        m: {t: [list(row) for row in r] for t, r in tasks.items()} for m, tasks in rows.items()
    }
    assert pictures.read(tmp_path / "nowhere") == {}
    pictures.write(tmp_path / "none", {})
    assert not (tmp_path / "none").exists()


def test_a_file_that_is_not_there_or_elsewhere_is_refused(rows, tmp_path):
    pictures.write(tmp_path, rows)
    index = tmp_path / "pictures" / "index.json"
    for name in ("none.png", "../index.json"):
        content = json.loads(index.read_text())
        content["m"]["retrieval"][0][1]["file"] = name
        (tmp_path / "changed" / "pictures").mkdir(parents=True, exist_ok=True)
        (tmp_path / "changed" / "pictures" / "index.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match="is no picture beside it; run the evaluation again"):
            pictures.read(tmp_path / "changed")


def test_the_report_shows_them_by_task_and_escapes_texts(rows):
    shown = "".join(html._pictures(rows))
    assert shown.index("Pictures: retrieval") < shown.index("<h3>m</h3>") < shown.index("Pictures: scenes")
    assert "a &lt;red&gt; square" in shown and shown.count("<img") == 5
    assert shown.count('class="panel right"') == 2 and shown.count('class="panel wrong"') == 1
    assert html._pictures({}) == []
