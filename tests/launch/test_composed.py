"""Composed emoji: which queries follow from sequences, what is held out, the ceilings, and a suite that can be read and scored."""

import itertools
import json
import re

import numpy as np
import pytest
from launch_scripts import script
from PIL import Image

from embed.evaluation import suites
from embed.types import Item

WOMAN, MAN, PERSON = "\U0001f469", "\U0001f468", "\U0001f9d1"
LIGHT, DARK = "\U0001f3fb", "\U0001f3ff"
ROCKET, COOKING, SCHOOL, RED, HEART = "\U0001f680", "\U0001f373", "\U0001f3eb", "\U0001f9b0", "\u2764\ufe0f"
TOOLS = ("\U0001f4bb", "\U0001f4bc", "\U0001f527", "\U0001f52c", "\U0001f3ed", "\U0001f33e")
RUNNER = "\U0001f3c3"
JOINER, FEMALE = "\u200d", "\u2640\ufe0f"


@pytest.fixture(scope="module")
def composed():
    return script("composed")


def joined(*parts: str) -> str:
    return JOINER.join(parts)


@pytest.fixture
def names():
    """The English and German names of a small world of emoji."""
    english = {WOMAN: "woman", MAN: "man", PERSON: "person", RUNNER: "person running", LIGHT: "light skin tone"}
    english |= {DARK: "dark skin tone", ROCKET: "rocket", COOKING: "cooking", SCHOOL: "school", RED: "red hair"}
    english |= {joined(PERSON, ROCKET): "astronaut", joined(PERSON, SCHOOL): "teacher", joined(PERSON, COOKING): "cook"}
    english |= {joined(PERSON, tool): f"worker {i}" for i, tool in enumerate(TOOLS)}
    return {"en": english, "de": {WOMAN: "Frau", joined(PERSON, SCHOOL): "Lehrer(in)", RED: "rotes Haar"}}


def known_emoji() -> list[str]:
    """All persons with and without tones, their professions and hair, a runner, and a couple."""
    persons = ["".join(x) for x in itertools.product((WOMAN, MAN, PERSON), ("", LIGHT, DARK))]
    objects = (ROCKET, COOKING, SCHOOL, *TOOLS)
    things = [*objects, RUNNER, RUNNER + LIGHT, joined(RUNNER, FEMALE), joined(WOMAN, HEART, MAN)]
    return [*persons, *things, *(joined(p, x) for p in persons for x in (*objects, RED))]


def test_what_queries_show_say_and_find(composed, names):
    made = {(q.kind, q.target): q for q in composed.queries(names, known_emoji())}
    teacher = made["profession", joined(WOMAN + LIGHT, SCHOOL)]
    assert teacher.images == (WOMAN + LIGHT,)
    assert teacher.text == {"en": "[MASK_0] as teacher", "de": "[MASK_0]: Lehrer(in)"}
    assert made["profession", joined(WOMAN, SCHOOL)].unmasked["de"] == "Frau: Lehrer(in)"
    assert made["objects", joined(MAN, ROCKET)].images == (MAN, ROCKET)
    assert made["hair", joined(PERSON, RED)].text["en"] == "[MASK_0] with red hair"
    assert made["tone", RUNNER + LIGHT].images == (RUNNER,)
    assert made["tone", joined(WOMAN + DARK, ROCKET)].images == (joined(WOMAN, ROCKET),)
    assert made["gender", joined(RUNNER, FEMALE)].text["en"] == "[MASK_0], a woman"
    couple = made["pair", joined(WOMAN, HEART, MAN)]
    assert couple.images == (WOMAN, MAN) and couple.unmasked["en"] == "woman and man in love"


def test_what_is_not_drawn_is_in_no_query(composed, names):
    without = [one for one in known_emoji() if one != ROCKET]
    made = list(composed.queries(names, without))
    assert not any(ROCKET in q.images for q in made)
    assert any(q.kind == "profession" and ROCKET in q.target for q in made)


def test_targets_of_tests_are_nowhere_in_training(composed, names):
    every = list(composed.queries(names, known_emoji()))
    parts = composed.split(every)
    tested = {q.target for part in ("combinations", "objects") for q in parts[part]}
    shown = {image for q in parts["train"] for image in q.images}
    assert parts["combinations"] and parts["objects"]
    assert not tested & ({q.target for q in parts["train"]} | shown)
    assert {x for q in parts["objects"] for x in composed.HELD_OUT if x in q.target} == {ROCKET, COOKING}
    assert not any(x in q.target for q in parts["train"] if q.kind == "profession" for x in composed.HELD_OUT)


def test_ceilings_are_those_of_loops(composed, names):
    every = list(composed.queries(names, known_emoji()))
    asked = [q for q in every if q.kind == "profession"]
    found = composed.ceilings(asked, every)
    of_images = np.mean([1 / len({o.target for o in asked if o.images == q.images}) for q in asked])
    of_text = np.mean([1 / len({o.target for o in asked if o.text["en"] == q.text["en"]}) for q in asked])
    assert (found["images/r1"], found["text/r1"], found["r1"]) == (round(of_images, 4), round(of_text, 4), 1.0)
    assert found["images/r1/kind profession"] == found["images/r1"] == pytest.approx(1 / 9, abs=1e-4)


def test_drawings_differ_by_their_seed_alone(composed):
    glyph = Image.new("RGBA", (composed.UNIT, 128), (200, 30, 40, 255))
    one, same, other = (np.asarray(composed.drawing(glyph, seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert one.shape == (composed.SIDE, composed.SIDE, 3) and not np.array_equal(one, other)


def test_the_suite_and_the_rows(composed, names, tmp_path, monkeypatch):
    glyphs = {one: Image.new("RGBA", (composed.UNIT, 128), (i, 9, 9, 255)) for i, one in enumerate(known_emoji())}
    everywhere = {**names, **dict.fromkeys(("fr", "es", "pt", "it"), names["en"])}
    everywhere["de"] = names["en"] | names["de"]
    monkeypatch.setattr(composed, "names_of", lambda folder: (list(glyphs), everywhere))
    monkeypatch.setattr(composed, "glyphs", lambda font, emoji: glyphs)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "NotoColorEmoji.ttf").touch()
    (tmp_path / "out" / "images").mkdir(parents=True)
    line = composed.write(tmp_path / "package", tmp_path / "out")
    assert line.startswith(f"{len(glyphs)} emoji; ")

    folder = tmp_path / "out" / "train"
    rows = {path.stem: [json.loads(x) for x in path.read_text().splitlines()] for path in folder.iterdir()}
    assert {"profession", "objects", "hair", "tone", "name", "same"} <= set(rows)
    assert {row["language"] for row in rows["profession"]} == set(composed.LANGUAGES)
    assert all(row["images"] == [] for row in rows["name"]) and all(row["text"] == "[MASK_0]" for row in rows["same"])
    for row in itertools.chain(*rows.values()):
        for image in (*row["images"], row["target"]):
            assert (folder / image).is_file()

    suite = suites.read_suite(tmp_path / "out" / "suite.json")
    tasks = {task.name.removeprefix("composed-"): task for task in suite.tasks}
    assert list(tasks) == ["combinations", "objects", "languages"]
    every_row = list(itertools.chain(*rows.values()))
    seen = {image for row in every_row for image in (*row["images"], row["target"])}
    trained = {re.sub(r"(-\d\.jpg|\.png)$", "", image.removeprefix("../")) for image in seen}
    assert {image.endswith(".png") for row in rows["name"] for image in [row["target"]]} == {True, False}
    for task in tasks.values():
        assert len(task.gallery) == len(glyphs) and all(isinstance(item, Item) for item in task.gallery)
        for query in task.queries:
            (target,) = query.targets
            assert f"images/{task.gallery[target].images[0].name.removesuffix('.png')}" not in trained
    assert {query.groups["language"] for query in tasks["languages"].queries} == {"en", "de", "fr", "es", "pt", "it"}
