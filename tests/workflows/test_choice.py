"""The negatives of a row, chosen by hand among a few texts whose vectors are known."""

import numpy as np
import pytest

from embed.curation import collection
from embed.curation.negatives import Rule
from embed.curation.positives import Positives, text_ids
from embed.inference import bulk
from embed.sources.input_texts import Text
from embed.text import target_id
from embed.workflows import choice
from embed.workflows.choice import Choice, Pairs, Source, summary_line

# Texts and the angles, in degrees, at which they lie from the first query; the second lies at 90.
QUERIES = {("", "q0"): 0, ("", "q1"): 90}
TARGETS = {("", "t0"): 10, ("T", "t1"): 60, ("", "t2"): 95, ("", "t3"): 20}
CORPUS = {("", "c0"): 15, ("C", "c1"): 40, ("", "t1"): 50}
ROWS = [("q0", "", "t0"), ("q0", "T", "t1"), ("q1", "", "t2")]


def unit(degrees) -> np.ndarray:
    angles = np.radians(np.array(list(degrees), np.float64))
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The queries, the targets and a corpus as `embed mine` keeps them."""
    folder, made = tmp_path_factory.mktemp("choice"), []
    for name, angles in (("queries", QUERIES), ("targets", TARGETS), ("corpus", CORPUS)):
        texts = [Text("", text, title, "f:1") for title, text in angles]
        kept = collection.collect(folder / name, lambda own=texts: iter(own))
        job = bulk.Job(
            folder / f"{name}-vectors", "npy", "float32", 2, bulk.scan(lambda k=kept: k, 2, unique=False), {}
        )
        job.begin()
        place = iter(unit(angles.values()))
        bulk.run(job, kept, lambda shard, rows=place: (np.stack([next(rows) for _ in shard]), 0))
        made.append(Source(kept, folder / f"{name}-vectors"))
    return made


def make(sources, rule: Rule, with_corpus: bool = True) -> Choice:
    queries, targets, corpus = sources
    searched = [targets, corpus] if with_corpus else [targets]
    angles = [*TARGETS.values(), *(CORPUS.values() if with_corpus else [])]
    cosines = unit(QUERIES.values()) @ unit(angles).T
    numbers = np.argsort(-cosines, axis=1, kind="stable")
    neighbours = {q: (cosines[q][numbers[q]], numbers[q]) for q in range(2)}
    targets_of = {"q0": [("t0", ""), ("t1", "T")], "q1": [("t2", "")]}
    known = [(target_id(q), text_ids(*t)) for q, own in targets_of.items() for t in own]
    positives = Positives([(np.array([q for q, _ in known]), np.array([ids for _, ids in known]))])
    pairs = Pairs(
        np.array([int(q[1]) for q, _, _ in ROWS]), np.array([target_id(text, title) for _, title, text in ROWS])
    )
    return Choice(rule, pairs, positives, queries, searched, neighbours)


def cosine(degrees: float) -> float:
    return round(float(np.cos(np.radians(degrees))), 4)


def test_the_nearest_that_are_no_positives_are_taken(sources):
    """t1 in the corpus is the titled t1 of the pairs, without its title: a positive of q0."""
    made = make(sources, Rule(2, last=7, ceiling=None))
    kept, mined, facts = made.of(0, [])
    assert (kept, mined) == ([], ["c0", "t3"])
    assert facts == {"positive_score": cosine(10), "scores": [cosine(15), cosine(20)]}
    assert made.of(2, [])[1] == ["T t1", "t1"]  # of q1, at 30 and 40 degrees from it
    assert make(sources, Rule(9, last=7, ceiling=None)).of(0, [])[1] == ["c0", "t3", "C c1", "t2"]


def test_targets_alone_are_searched_without_a_corpus(sources):
    assert make(sources, Rule(9, last=7, ceiling=None), with_corpus=False).of(0, [])[1] == ["t3", "t2"]


def test_what_scores_near_the_positive_is_ruled_out_and_counted(sources):
    made = make(sources, Rule(2, last=7, ceiling=0.95))
    kept, mined, _ = made.of(0, [])  # 0.95 * cos(10) lies between the cosines of 20 and 21 degrees
    assert mined == ["C c1", "t2"]
    assert made.counted == {
        "pairs": 1, "dropped": 0, "negatives": 2, "short": 0, "neighbours": 4, "ruled_out": 2, "given_dropped": 0,
    }  # fmt: skip


def test_given_negatives_are_kept_but_for_positives_and_the_query(sources):
    made = make(sources, Rule(1, last=7, ceiling=None))
    kept, mined, facts = made.of(0, ["c0", "t0", "own", "q0", "T t1"])
    assert kept == ["c0", "own"] and mined == ["t3"], "one that is given is not mined again"
    assert facts["scores"] == [None, None, cosine(20)]
    assert made.counted["given_dropped"] == 3
    assert made.of(2, ["t0"])[0] == ["t0"], "the positive of another query"


def test_a_row_with_fewer_than_asked_is_short(sources):
    made = make(sources, Rule(5, last=7, ceiling=None))
    assert len(made.of(0, [])[1]) == 4 and len(made.of(2, [])[1]) == 5
    assert (made.counted["short"], made.counted["negatives"]) == (1, 9)


def test_pairs_whose_target_is_far_are_dropped(sources):
    """Nearer to q0 than its target t1 are c0, t3 and c1, and t1 of the corpus, which is its positive too."""
    for consistent, dropped in ((3, True), (4, False)):
        made = make(sources, Rule(1, last=7, ceiling=None, consistent=consistent))
        assert (made.of(1, []) is None) == dropped
        assert (made.counted["pairs"], made.counted["dropped"]) == (1, dropped)


def test_scores_of_positives_are_computed_by_blocks(sources, monkeypatch):
    monkeypatch.setattr(choice, "_BLOCK", 2)
    made = make(sources, Rule(1, last=7, ceiling=None))
    wanted = [cosine(10), cosine(60), cosine(5)]
    for row in (2, 0, 1, 2, 1):
        assert made.of(row, [])[2]["positive_score"] == wanted[row]


def test_the_summary_has_the_medians_of_all_cosines(sources):
    made = make(sources, Rule(1, last=7, ceiling=None))
    for row in range(3):
        made.of(row, [])
    found = made.summary()
    assert {name: found[name] for name in made.counted} == made.counted
    # c0 of q0 twice, and t1 with its title of q1; of positives 10, 60 and 5 degrees
    assert found["median_cosine"]["negative"] == pytest.approx(np.cos(np.radians(15)), abs=1e-6)
    assert found["median_cosine"]["positive"] == pytest.approx(np.cos(np.radians(10)), abs=1e-6)


COUNTED = {
    "pairs": 2000, "dropped": 0, "negatives": 4000, "short": 0, "neighbours": 1000, "ruled_out": 250, "given_dropped": 0,
    "median_cosine": {"negative": 0.456, "positive": 0.789},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "negatives", "begins"),
    [
        ({}, 2, "2,000 of 2,000 pairs have 2 negatives now; 25.0% of the neighbours are too near the positive; "),
        ({"short": 500}, 1, "1,500 of 2,000 pairs have 1 negative now; "),
        ({"dropped": 1200, "short": 1}, 1, "1,200 are dropped; 799 of 2,000 pairs have 1 negative now; "),
        (
            {"given_dropped": 1003, "neighbours": 0, "ruled_out": 0},
            3,
            "1,003 given negatives were positives of their query, or the query, and are left out; 2,000 of 2,000 pairs have 3 "
            "negatives now; 0.0% of the neighbours",
        ),
    ],
)
def test_the_line_for_people_by_hand(changes, negatives, begins):
    line = summary_line({**COUNTED, **changes}, Rule(negatives))
    assert line.startswith(begins) and line.endswith("median cosine 0.46, of positives 0.79")
