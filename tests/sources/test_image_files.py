"""Images beside their records: paths from the record's file or a folder, missing files, and changes that a cache notices."""

import json
import os

import pytest
from PIL import Image

from embed.errors import DataError
from embed.sources import ImageFiles, JsonLines


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "png").mkdir()
    for name in "ab":
        (tmp_path / "png" / f"{name}.png").write_bytes(name.encode())
    rows = [{"image": f"png/{name}.png", "caption": name} for name in "ab"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def source(folder, **options):
    fields = {"image": "image", "caption": "caption"}
    return JsonLines(str(folder / "rows.jsonl"), fields, **options)


def test_paths_start_at_the_records_file_or_at_the_folder(folder):
    records = [record for _, record in ImageFiles(source(folder)).examples()]
    assert records == [{"image": b"a", "caption": "a"}, {"image": b"b", "caption": "b"}]
    os.rename(folder / "png", folder / "moved")
    (folder / "elsewhere").mkdir()
    os.rename(folder / "moved", folder / "elsewhere" / "png")
    assert [r["image"] for _, r in ImageFiles(source(folder), folder=str(folder / "elsewhere")).examples()] == [
        b"a",
        b"b",
    ]


def test_a_missing_file_is_named_or_left_out(folder):
    (folder / "png" / "b.png").unlink()
    with pytest.raises(DataError) as caught:
        list(ImageFiles(source(folder)).examples())
    line = str(caught.value)
    path = folder / "png" / "b.png"
    assert line.startswith(
        f"{folder}/rows.jsonl:2: image '{path}': no such file; correct the path, or set ImageFiles.folder"
    )
    Image.new("RGB", (3, 2)).save(folder / "png" / "a.png")
    skipping = ImageFiles(source(folder, on_bad_record="skip", max_bad_share=0.6))
    assert [r["caption"] for _, r in skipping.examples()] == ["a"]
    assert (skipping.bad_records.skipped, skipping.bad_records.read) == (1, 1)


def test_a_record_without_a_path_is_told(folder):
    (folder / "rows.jsonl").write_text('{"image": 3, "caption": "three"}\n')
    with pytest.raises(DataError, match="rows.jsonl:1: .*image"):
        list(ImageFiles(source(folder)).examples())


def test_a_record_without_a_path_can_be_left_out(folder):
    with (folder / "rows.jsonl").open("a") as file:
        file.write('{"image": 3, "caption": "three"}\n')
    skipping = ImageFiles(source(folder, on_bad_record="skip", max_bad_share=0.5))
    assert set(skipping.fingerprint()) == {str(folder / "rows.jsonl"), "images"}


def test_an_image_that_changes_changes_the_fingerprint(folder):
    first = ImageFiles(source(folder)).fingerprint()
    assert ImageFiles(source(folder)).fingerprint() == first and set(first) == {str(folder / "rows.jsonl"), "images"}
    (folder / "run").mkdir()
    (folder / "run" / "metrics.jsonl").write_text("of something else")
    assert ImageFiles(source(folder)).fingerprint() == first
    (folder / "png" / "a.png").write_bytes(b"another")
    assert ImageFiles(source(folder)).fingerprint() != first


def test_arrays_of_records_in_folders_with_brackets_have_their_images_beside_them(tmp_path):
    folder = tmp_path / "set[1]"
    (folder / "png").mkdir(parents=True)
    (folder / "png" / "a.png").write_bytes(b"a")
    (folder / "rows.json").write_text('[{"image": "png/a.png", "caption": "a"}]')
    rows = JsonLines(str(folder / "rows.json"), {"image": "image", "caption": "caption"})
    assert [record["image"] for _, record in ImageFiles(rows).examples()] == [b"a"]
