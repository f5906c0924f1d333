"""MMIR's files: masks in place of names, images of a table of entities, cells that show bytes, and what is wrong in one line."""

import gzip
import json

import pytest

from embed.errors import DataError
from embed.sources import EntityQueries, JsonLines, TabSeparated
from embed.sources.entities import masked

PLAIN = {"query": "query", "target": "target"}


def rows(folder, *values):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return JsonLines(str(path))


ROW = {
    "text": "Neil Armstrong walks on the Moon",
    "entities": ["Neil Armstrong", "Moon"],
    "image_url": "http://h/walk.jpg",
}


def test_names_become_masks_and_images_come_from_the_row(tmp_path):
    row = {**ROW, "pictures": ["http://h/neil.jpg", "http://h/moon.jpg"]}
    ((location, record),) = EntityQueries(rows(tmp_path, row), images="pictures").examples()
    assert location.endswith("rows.jsonl:1") and record == {
        "query": "[MASK_0] walks on the [MASK_1]",
        "query_images": ["http://h/neil.jpg", "http://h/moon.jpg"],
        "target": "http://h/walk.jpg",
        "unmasked": "Neil Armstrong walks on the Moon",
    }


def test_a_target_may_be_a_text_of_nothing_but_its_image(tmp_path):
    row = {**ROW, "pictures": ["http://h/neil.jpg", "http://h/moon.jpg"]}
    ((_, record),) = EntityQueries(rows(tmp_path, row), images="pictures", target_in_text=True).examples()
    assert (record["target"], record["target_images"]) == ("[MASK_0]", ["http://h/walk.jpg"])


def test_names_become_masks_and_images_come_from_a_table_that_shows_bytes(tmp_path):
    table = tmp_path / "entities.tsv.gz"
    cells = [
        ("name", "image_url"),
        (repr(b"Neil Armstrong"), "http://h/n.jpg"),
        (repr("Möön".encode()), "http://h/m.jpg"),
    ]
    table.write_bytes(gzip.compress("".join("\t".join(row) + "\n" for row in cells).encode()))
    known = TabSeparated(str(table), quoting="none", python_bytes=True)
    row = {**ROW, "text": "the Möön and Neil Armstrong", "entities": json.dumps(["Möön", "Neil Armstrong"])}
    ((_, record),) = EntityQueries(rows(tmp_path, row), entity_table=known).examples()
    assert record["query"] == "the [MASK_0] and [MASK_1]"
    assert record["query_images"] == ["http://h/m.jpg", "http://h/n.jpg"]
    source = EntityQueries(rows(tmp_path, {**ROW, "entities": ["Mars"]}), entity_table=known)
    with pytest.raises(DataError, match="the entity 'Mars' is not in the table of entities; add it, or remove the row"):
        list(source.examples())
    assert set(source.fingerprint()) == {str(table), str(tmp_path / "rows.jsonl")}


def test_texts_that_have_their_masks_are_taken_as_they_are(tmp_path):
    row = {"text": "[MASK_0] on the Moon", "pictures": ["a.jpg"], "image_url": "b.jpg"}
    ((_, record),) = EntityQueries(rows(tmp_path, row), entities=None, images="pictures").examples()
    assert record == {"query": "[MASK_0] on the Moon", "query_images": ["a.jpg"], "target": "b.jpg"}


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("a cat and a Catfish, CAT!", ["cat"], "a [MASK_0] and a Catfish, [MASK_0]!"),
        ("New York, New York City", ["New York", "New York City"], "[MASK_0], [MASK_1]"),
        ("C++ (language)", ["C++"], "[MASK_0] (language)"),
    ],
)
def test_whole_words_are_replaced_and_the_longest_first(text, names, expected):
    assert masked(text, names, "f:1") == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ROW, "text": "nobody here"}, "the text does not name the entity 'Neil Armstrong'"),
        (
            {"text": "x", "image_url": "y", "names": []},
            "rows.jsonl:1: no field 'entities'; it has text, image_url, names",
        ),
        ({**ROW, "entities": "[broken"}, r"field 'entities' holds '\[broken', which is no list in JSON"),
        ({**ROW, "pictures": ["one"]}, "2 entities and 1 images; give one image for each entity"),
    ],
)
def test_bad_rows_are_told_in_one_line(tmp_path, row, message):
    row = {"pictures": ["a", "b"], **row}
    if "names" in row:
        del row["pictures"]
    with pytest.raises(DataError, match=message):
        list(EntityQueries(rows(tmp_path, row), images="pictures").examples())


def test_one_of_images_and_entity_table_is_needed(tmp_path):
    with pytest.raises(DataError, match="needs images, a field of the rows, or entity_table; give one"):
        EntityQueries(rows(tmp_path, ROW))
    with pytest.raises(DataError, match="entity_table is looked up by the names in entities, which is None"):
        EntityQueries(rows(tmp_path, ROW), entities=None, entity_table=rows(tmp_path, ROW))


WIT = [
    "language",
    "page_url",
    "image_url",
    "page_title",
    "section_title",
    "hierarchical_section_title",
    "caption_reference_description",
    "caption_attribution_description",
    "caption_alt_text_description",
    "mime_type",
    "original_height",
    "original_width",
    "is_main_image",
    "attribution_passes_lang_id",
    "page_changed_recently",
    "context_page_description",
    "context_section_description",
]


def test_wit_is_read_by_its_17_columns(tmp_path):
    path = tmp_path / "wit.tsv.gz"
    row = {name: f"the {name}" for name in WIT} | {
        "image_url": "http://h/a.jpg",
        "caption_reference_description": 'a "cat"',
    }
    path.write_bytes(gzip.compress(("\t".join(WIT) + "\n" + "\t".join(row[name] for name in WIT) + "\n").encode()))
    fields = {"caption": "caption_reference_description", "image": "image_url"}
    ((_, record),) = TabSeparated(str(path), fields, quoting="none").examples()
    assert record == {"caption": 'a "cat"', "image": "http://h/a.jpg"}
    with pytest.raises(DataError, match="'caption_reference'"):
        list(TabSeparated(str(path), {**fields, "caption": "caption_reference"}, quoting="none").examples())


@pytest.mark.parametrize("cell", [r"b'\xff'", r"b'\q'", "b'é'"])
def test_cells_that_show_no_text_are_told(tmp_path, cell):
    path = tmp_path / "bytes.tsv"
    path.write_text(f"query\ttarget\n{cell}\tb\n", encoding="utf-8")
    source = TabSeparated(str(path), PLAIN, quoting="none", python_bytes=True)
    with pytest.raises(DataError, match="bytes.tsv:2: .*is not UTF-8 text written as Python bytes"):
        list(source.examples())
    path.write_text(f"query\ttarget\n{cell}\tb\nc\td\n", encoding="utf-8")
    skipping = {"on_bad_record": "skip", "max_bad_share": 0.5}
    source = TabSeparated(str(path), PLAIN, quoting="none", python_bytes=True, **skipping)
    assert [record["query"] for _, record in source.examples()] == ["c"] and source.bad_records.skipped == 1
