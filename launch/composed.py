"""Queries of a text and images, and the emoji they find: the set `composed` of launch/image_data.sh.

An emoji such as the woman astronaut is a sequence, woman and rocket, so its picture can be predicted from other emoji. A query
shows some parts as pictures and describes the missing part as text: "[MASK_0] as an astronaut" with the woman. The kinds are

    profession   a person, and the profession as a text            objects      a person and an object, both as pictures
    hair         a person, and the hair                            tone         anybody, and the tone of the skin
    gender       anybody, and woman or man                         other        such as a cat, and a black square
    pair         two persons, and what they do

train/KIND.jsonl holds the training rows of each kind. Two more kinds are for training only: `name` is the name of an emoji and its
picture, `same` two pictures of one emoji. One target in ten, and every profession with an object of HELD_OUT, is held out for
testing and is in no training row. TEST_LANGUAGES are in no training row. ceilings.json of each task holds the largest R@1 that the
images alone or the text alone allow, as several targets have the same images or the same text.
"""

import collections
import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from image_suites import write_rows
from PIL import Image, ImageDraw, ImageFont, features

JOINER, VARIANT = "\u200d", "\ufe0f"
TONES = ("\U0001f3fb", "\U0001f3fc", "\U0001f3fd", "\U0001f3fe", "\U0001f3ff")
PERSONS = ("\U0001f469", "\U0001f468", "\U0001f9d1")  # woman, man, person
CHILDREN = ("\U0001f467", "\U0001f466")
HAIR = ("\U0001f9b0", "\U0001f9b1", "\U0001f9b3", "\U0001f9b2")
GENDERS = {"\u2640": "\U0001f469", "\u2642": "\U0001f468"}  # and the emoji whose name says it
RELATIONS = ("\u2764", "\U0001f48b", "\U0001f91d")  # heart, kiss, hands
LANGUAGES = ("en", "de", "fr", "es")
TEST_LANGUAGES = ("pt", "it")
HELD_OUT = (
    "\U0001f680",
    "\U0001f373",
    "\U0001f3a8",
)  # rocket, frying pan, palette: no training query asks for a profession with them
COMPONENT, QUALIFIED = 1, 2  # the status of tones and hair, and of sequences that are meant to be shown as emoji
STRIKE, UNIT = 109, 136  # the font's one size, and the width of a picture in it
SIDE = 64  # pixels of an image
DRAWINGS = 4  # augmented pictures of each emoji for training; the gallery has the plain picture


@dataclasses.dataclass(frozen=True)
class Query:
    """What a query shows, says and finds, as emoji; `text` and `unmasked` by language."""

    kind: str
    images: tuple[str, ...]
    target: str
    text: dict[str, str]
    unmasked: dict[str, str]


def names_of(folder: pathlib.Path) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Returns the emoji of the package `emoji`, and {language: {emoji, tone or hair: its name}}."""
    codes = folder / "emoji" / "unicode_codes"
    english = json.loads((codes / "emoji.json").read_text(encoding="utf-8"))
    named = [key for key, value in english.items() if value["status"] in (COMPONENT, QUALIFIED)]
    tables = {"en": {key: english[key]["en"] for key in named}}
    for language in (*LANGUAGES[1:], *TEST_LANGUAGES):
        table = json.loads((codes / f"emoji_{language}.json").read_text(encoding="utf-8"))
        tables[language] = {key: table[key] for key in named if key in table}
    plain = lambda name: re.sub(r"[_:]+", " ", name).strip()  # noqa: E731
    qualified = [key for key in named if english[key]["status"] == QUALIFIED]
    return qualified, {
        language: {key: plain(name) for key, name in table.items()} for language, table in tables.items()
    }


def glyphs(font: pathlib.Path, emoji: Sequence[str]) -> dict[str, Image.Image]:
    """Returns the picture of each emoji that the font draws as one and that no earlier one looks like, with transparency."""
    if not features.check("raqm"):
        raise SystemExit(
            "Pillow has no raqm here, without which joined emoji are drawn apart; install Pillow from its wheel"
        )
    drawn, digests = {}, set()
    face = ImageFont.truetype(str(font), STRIKE, layout_engine=ImageFont.Layout.RAQM)
    for one in emoji:
        if face.getlength(one) > 1.2 * UNIT:
            continue
        image = Image.new("RGBA", (UNIT, 128))
        ImageDraw.Draw(image).text((0, 0), one, font=face, embedded_color=True)
        digest = hashlib.sha256(image.tobytes()).digest()
        if image.getchannel("A").getextrema()[1] and digest not in digests:
            digests.add(digest)
            drawn[one] = image
    return drawn


def plain(glyph: Image.Image) -> Image.Image:
    """Returns a picture on white, in the middle of a square of SIDE."""
    square = Image.new("RGBA", (UNIT, UNIT), "white")
    square.alpha_composite(glyph, (0, (UNIT - glyph.height) // 2))
    return square.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def drawing(glyph: Image.Image, seed: int) -> Image.Image:
    """Returns a picture that is rotated, scaled and moved at random on a coloured background."""
    rng = np.random.default_rng(seed)
    ground = tuple(int(level) for level in rng.integers(120, 256, 3))
    square = Image.new("RGBA", (UNIT, UNIT), ground)
    scale = rng.uniform(0.65, 1.0)
    small = glyph.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR)
    small = small.resize((int(small.width * scale), int(small.height * scale)), Image.Resampling.BILINEAR)
    left, top = (int(rng.integers(0, UNIT - size + 1)) for size in small.size)
    square.alpha_composite(small, (left, top))
    return square.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def _toned(person: str) -> tuple[str, str]:
    """Returns a person without its tone, and the tone."""
    return (person[:-1], person[-1]) if person[-1] in TONES else (person, "")


def _phrases(names: dict[str, dict[str, str]], what: str, pattern: str = "[MASK_0]: {}") -> dict[str, str]:
    """Returns a text in every language that has a name for `what`; the English one reads as a sentence."""
    texts = {language: f"[MASK_0]: {table[what]}" for language, table in names.items() if what in table}
    return texts | ({"en": pattern.format(names["en"][what])} if what in names["en"] else {})


def queries(names: dict[str, dict[str, str]], known: Sequence[str]) -> Iterator[Query]:
    """Yields all queries whose pictures and target are among the emoji `known`."""
    pictures = set(known)

    def query(kind: str, images: Sequence[str], target: str, texts: dict[str, str]) -> Iterator[Query]:
        if target in pictures and all(image in pictures for image in images):
            unmasked = {}
            for language, text in texts.items():
                for number, image in enumerate(images):
                    text = text.replace(f"[MASK_{number}]", names[language].get(image, ""))
                unmasked[language] = text
            yield Query(kind, tuple(images), target, texts, unmasked)

    for target in known:
        parts = target.replace(VARIANT, "").split(JOINER)
        first, tone = _toned(parts[0])
        bare = "".join(c for c in target if c not in TONES)
        tones = [c for c in target if c in TONES]
        if len(set(tones)) == 1 and bare != target:
            base = bare if bare in pictures else bare + VARIANT
            yield from query("tone", [base], target, _phrases(names, tones[0], "[MASK_0] with {}"))
        if len(parts) == 2 and parts[1] in GENDERS:
            base = parts[0] if parts[0] in pictures else parts[0] + VARIANT
            yield from query("gender", [base], target, _phrases(names, GENDERS[parts[1]], "[MASK_0], a {}"))
        elif len(parts) == 2 and first in PERSONS and parts[1] in HAIR:
            yield from query("hair", [parts[0]], target, _phrases(names, parts[1], "[MASK_0] with {}"))
        elif len(parts) == 2 and first in PERSONS and parts[1] not in CHILDREN:
            thing = parts[1] if parts[1] in pictures else parts[1] + VARIANT
            profession = target.replace(parts[0], PERSONS[2], 1)
            yield from query("profession", [parts[0]], target, _phrases(names, profession, "[MASK_0] as {}"))
            yield from query("objects", [parts[0], thing], target, {"en": "[MASK_0] working with [MASK_1]"})
        elif len(parts) == 2 and first not in PERSONS:
            base, thing = (part if part in pictures else part + VARIANT for part in parts)
            yield from query("other", [base], target, _phrases(names, thing, "[MASK_0] with {}"))
        elif parts[0] and _toned(parts[0])[0] in PERSONS and _toned(parts[-1])[0] in (*PERSONS, *CHILDREN):
            middle = parts[1:-1]
            relation = {
                (): "a family of [MASK_0] and [MASK_1]",
                (RELATIONS[0],): "[MASK_0] and [MASK_1] in love",
                RELATIONS[:2]: "[MASK_0] and [MASK_1] kiss",
                (RELATIONS[2],): "[MASK_0] and [MASK_1] hold hands",
            }
            if tuple(middle) in relation:  # fmt: skip
                yield from query("pair", [parts[0], parts[-1]], target, {"en": relation[tuple(middle)]})


def _hash_fraction(name: str) -> float:
    """Returns a hash of `name` in [0, 1)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def split(every: Sequence[Query]) -> dict[str, list[Query]]:
    """Returns the queries for training, and for the tests of held-out combinations and of held-out objects."""
    of_objects = {
        q.target for q in every if q.kind in ("profession", "objects") and any(x in q.target for x in HELD_OUT)
    }
    held_out = {q.target for q in every if _hash_fraction(q.target) < 0.1} - of_objects
    tested = of_objects | held_out
    # What a query shows is known from training, so that only the combination is new.
    asked = [q for q in every if q.target in tested and not tested & set(q.images)]
    return {
        "train": [q for q in every if q.target not in tested and not tested & set(q.images)],
        "combinations": [q for q in asked if q.target in held_out],
        "objects": [q for q in asked if q.target in of_objects],
    }


def ceilings(asked: Sequence[Query], every: Sequence[Query]) -> dict[str, float]:
    """Returns upper bounds of R@1 from the images alone, the English text alone and both, if the kind of the query is known.

    A bound is the mean of 1 / (number of targets with the same kind and input), over all queries and over each kind.
    """
    keys = {
        "images/r1": lambda q: q.images,
        "text/r1": lambda q: q.text["en"],
        "r1": lambda q: (q.images, q.text["en"]),
    }
    result = {}
    for name, key in keys.items():
        targets = collections.defaultdict(set)
        for q in every:
            targets[q.kind, key(q)].add(q.target)
        shares = [1 / len(targets[q.kind, key(q)]) for q in asked]
        result[name] = round(float(np.mean(shares)), 4)
        for kind in sorted({q.kind for q in asked}):
            of_kind = [share for share, q in zip(shares, asked) if q.kind == kind]
            result[f"{name}/kind {kind}"] = round(float(np.mean(of_kind)), 4)
    return result


def write(package: pathlib.Path, output: pathlib.Path) -> str:
    """Writes the images, the rows for training and the suite; returns what was written, for people."""
    qualified, names = names_of(package)
    (font,) = package.rglob("NotoColorEmoji.ttf")
    drawn = glyphs(font, qualified)
    code = lambda one: "-".join(f"{ord(c):x}" for c in one)  # noqa: E731
    for one, glyph in drawn.items():
        plain(glyph).save(output / "images" / f"{code(one)}.png")
        for number in range(DRAWINGS):
            seed = int(_hash_fraction(f"{code(one)} {number}") * 2**31)
            drawing(glyph, seed).save(output / "images" / f"{code(one)}-{number}.jpg", quality=92)
    every = list(queries(names, list(drawn)))
    parts = split(every)
    tested = {q.target for q in every} - {q.target for q in parts["train"]}
    image = lambda one, number: f"images/{code(one)}{'.png' if number < 0 else f'-{number}.jpg'}"  # noqa: E731
    # The plain picture of an emoji, or one of its drawings, in turn.
    in_turn = lambda one, turn: f"../{image(one, turn % (DRAWINGS + 1) - 1)}"  # noqa: E731
    rows = []
    for turn, q in enumerate(parts["train"]):
        for number, language in enumerate(x for x in LANGUAGES if x in q.text):
            shown = [in_turn(x, turn + number + k) for k, x in enumerate(q.images)]
            target = in_turn(q.target, turn + number + len(shown))
            rows.append(
                {"text": q.text[language], "images": shown, "target": target, "kind": q.kind, "language": language}
            )
    name_rows = [
        {
            "text": names[language][one],
            "images": [],
            "target": in_turn(one, turn + number),
            "kind": "name",
            "language": language,
        }
        for turn, one in enumerate(drawn)
        if one not in tested
        for number, language in enumerate(x for x in LANGUAGES if one in names[x])
    ]
    same_rows = [
        {
            "text": "[MASK_0]",
            "images": [in_turn(one, turn)],
            "target": in_turn(one, turn + 1),
            "kind": "same",
            "language": "en",
        }
        for one in drawn
        if one not in tested
        for turn in range(DRAWINGS + 1)
    ]
    # A file for each kind: a batch of one kind is hard, as its targets are alike.
    (output / "train").mkdir()
    by_kind = collections.defaultdict(list)
    for row in (*rows, *name_rows, *same_rows):
        by_kind[row["kind"]].append(
            {**row, "target_text": "[MASK_0]"}
        )  # for models that read an image as a text of nothing else
    for kind, listed in by_kind.items():
        write_rows(output / "train" / f"{kind}.jsonl", listed)
    tasks = []
    for name, asked, languages in (
        ("combinations", parts["combinations"], ("en",)),
        ("objects", parts["objects"], ("en",)),
        ("languages", parts["combinations"], (*LANGUAGES, *TEST_LANGUAGES)),
    ):
        if name == "languages":
            asked = [q for q in asked if all(language in q.text for language in languages)]
        tasks.append(_task(output, f"composed-{name}", asked, every, languages, list(drawn), image))
    suite = {"name": "composed", "tasks": tasks}
    (output / "suite.json").write_text(json.dumps(suite, indent=2) + "\n", encoding="utf-8")
    kinds = collections.Counter(q.kind for q in every)
    listed = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    return (
        f"{len(drawn):,} emoji; {len(every):,} queries: {listed}; {len(rows):,} rows for training, of "
        f"{len(parts['combinations']):,} held-out combinations and {len(parts['objects']):,} of held-out objects none"
    )


def _task(
    output: pathlib.Path,
    name: str,
    asked: Sequence[Query],
    every: Sequence[Query],
    languages: Sequence[str],
    gallery: Sequence[str],
    image,
) -> dict[str, Any]:
    """Writes the folder of a task; returns its entry in the suite."""
    folder = output / name
    folder.mkdir()
    rows, judged = [], []
    for number, q in enumerate(asked):
        for language in languages:
            if language in q.text:
                key = f"{number}-{language}"
                rows.append(
                    {
                        "_id": key,
                        "text": q.text[language],
                        "unmasked": q.unmasked[language],
                        "images": [f"../{image(x, -1)}" for x in q.images],
                        "kind": q.kind,
                        **({"language": language} if len(languages) > 1 else {}),
                    }
                )
                judged.append(f"{key}\t{gallery.index(q.target)}\t1")
    write_rows(folder / "queries.jsonl", rows)
    corpus = [{"_id": str(row), "image": f"../{image(x, -1)}"} for row, x in enumerate(gallery)]
    write_rows(folder / "corpus.jsonl", corpus)
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n", encoding="utf-8")
    (folder / "ceilings.json").write_text(json.dumps(ceilings(asked, every)) + "\n", encoding="utf-8")
    return {"name": name, "type": "mixed_retrieval", "path": name, "languages": list(languages)}
