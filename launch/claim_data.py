"""Data that some claims need and no public set has: pairs with known noise, and labelled texts made from templates.

    python launch/claim_data.py noise --share=0.3 --output=DIR FILE [FILE ...]
    python launch/claim_data.py reviews --count=3000 --output=FILE

noise: in every file of pairs the positives of a SHARE of the rows change places; `wrong` marks them. reviews: short opinions in
English, positive, negative or neutral, in three steps: people, what they speak of, what they say (no language model, so that they
are poorer than what one writes). Both are functions of --seed.
"""

import argparse
import gzip
import json
import pathlib
import random

from embed.sources.lines import write_json_lines

PEOPLE = [
    "a student",
    "a nurse",
    "a taxi driver",
    "a father of three",
    "a retired teacher",
    "a backpacker",
    "a shop owner",
    "a cook",
]
SUBJECTS = {
    "food": [
        "fried rice",
        "noodle soup",
        "grilled chicken",
        "coffee",
        "chocolate cake",
        "seafood platter",
        "mango juice",
        "pizza",
    ],
    "places": ["hotel room", "beach villa", "museum", "cafe", "theme park", "guest house", "food court", "restaurant"],
    "services": [
        "internet provider",
        "delivery app",
        "bank app",
        "phone plan",
        "airline",
        "train ride",
        "customer service",
    ],
    "films": ["thriller", "romantic comedy", "documentary", "cartoon", "war film", "series finale"],
}
SAID = {
    "positive": ["was delicious and cheap", "made my day", "is really comfortable", "was better than I hoped", "worth every cent",
                 "was friendly and quick", "is my favourite, highly recommended", "was clean, cosy and beautiful"],
    "negative": ["was a waste of money", "made me angry", "is always late and slow", "was cold, dirty and disappointing",
                 "keeps breaking down", "was rude to us, never again", "is far too expensive for what you get", "tasted awful"],
    "neutral": ["opens at nine on weekdays", "is on the second floor", "was announced by the company yesterday",
                "comes with a voucher until Friday", "is next to the station", "was moved to another street",
                "will be available from next month", "has been there since 1998"],
}  # fmt: skip
FRAMES = ["The {subject} {said}.", "{who} says the {subject} {said}", "About the {subject}: it {said}", "{subject}, it {said}!",
          "We tried the {subject} last week. It {said}.", "My view as {who}: the {subject} {said}."]  # fmt: skip


def reviews(count: int, seed: int):
    """Yields texts with labels, each text once."""
    choose, seen = random.Random(seed), set()
    while len(seen) < count:
        label = choose.choice(sorted(SAID))
        subject = choose.choice(SUBJECTS[choose.choice(sorted(SUBJECTS))])
        said = " and ".join(choose.sample(SAID[label], choose.choice((1, 1, 2))))
        text = choose.choice(FRAMES).format(subject=subject, said=said, who=choose.choice(PEOPLE))
        if text not in seen:
            seen.add(text)
            yield {"text": text, "label": label, "made": "templates"}


def noisy(rows: list[dict], share: float, seed: int) -> list[dict]:
    """Returns the rows with the positives of a share of them moved one on in a random order, so that none keeps its own."""
    moved = random.Random(seed).sample(range(len(rows)), int(share * len(rows)))
    out = [dict(row) for row in rows]
    for here, there in zip(moved, [*moved[1:], *moved[:1]]):
        if rows[here]["positive"] != rows[there]["positive"]:
            out[here] |= {"positive": rows[there]["positive"], "wrong": True}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("noise", "reviews"))
    parser.add_argument("files", nargs="*")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_intermixed_args()
    if given.what == "reviews":
        given.output.parent.mkdir(parents=True, exist_ok=True)
        write_json_lines(given.output, reviews(given.count, given.seed))
        return
    given.output.mkdir(parents=True, exist_ok=True)
    for path in given.files:
        with gzip.open(path, "rt", encoding="utf-8") as f:
            rows = [json.loads(line) for line in f]
        write_json_lines(given.output / pathlib.Path(path).name, noisy(rows, given.share, given.seed))


if __name__ == "__main__":
    main()
