"""Scores in files of their own: found again by the texts of their pairs, refused where they are none or lack."""

import gzip
import json

import numpy as np
import pytest
from encoded_pairs import pair

from embed.data import teacher_scores
from embed.data.draws import Draws
from embed.data.features import Unit, definitions
from embed.data.teacher_scores import TeacherScores
from embed.errors import DataError
from embed.text import content_id, pair_id, target_id


@pytest.fixture
def write(tmp_path):
    """write(rows, name) -> the path of a file with these lines."""

    def write(rows, name="scores.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
        return str(path)

    return write


def stored(store) -> dict[int, float]:
    return dict(zip(store.ids.tolist(), store.scores.tolist()))


def key(query, text, title="") -> int:
    return int(pair_id(np.array(content_id(query)), np.array(target_id(text, title))))


ROWS = [
    {"query": "a", "text": "b", "score": 0.5},
    {"query": "a", "text": "b", "title": "t", "score": -3},
    {"query": " b ", "text": "e\u0301", "score": 1e3, "title": None},  # texts are cleaned as those of records
]


def test_scores_are_found_by_query_text_and_title(write):
    store = teacher_scores.read(write(ROWS))
    assert stored(store) == {key("a", "b"): 0.5, key("a", "b", "t"): -3.0, key("b", "\u00e9"): 1000.0}
    asked = np.array([[key("a", "b", "t"), key("a", "x")]], np.uint64)
    rows, is_there = store.rows(asked)
    assert is_there.tolist() == [[True, False]] and store.scores[rows[0, 0]] == -3.0


def test_several_files_are_one_store_and_the_digest_is_of_their_content(write, tmp_path):
    whole, first = teacher_scores.read(write(ROWS)), write(ROWS[:1], "parts/a.jsonl.gz")
    write(ROWS[1:], "parts/b.jsonl")
    parts = teacher_scores.read(str(tmp_path / "parts" / "*"))
    assert stored(parts) == stored(whole) and parts.digest != whole.digest
    assert teacher_scores.read(write(ROWS, "copy.jsonl")).digest == whole.digest
    assert len(teacher_scores.read(first).ids) == 1


@pytest.mark.parametrize("judged", [{"negatives": [0, 3, 1], "kept": [0, 1]}, {"negatives": [0, 1], "of": 3}])
def test_the_rows_of_curate_are_scores(write, tmp_path, judged):
    """Those of filter hold the grades of negatives that were left out too, those of pick none of the target."""
    row = {"query": "a", "positive": "b", "title": "t", "negative": ["c", "d"], "judged": judged}
    graded = {**row, "judged": {**judged, "target": 2}}
    path = write([graded], "curated/rows.jsonl.gz")
    negatives = {key("a", "c"): 0.0, key("a", "d"): 1.0}
    both = {key("a", "b"): 2.0, key("a", "b", "t"): 2.0}  # the recipe may map the title or not
    assert stored(teacher_scores.read(path)) == both | negatives
    assert stored(teacher_scores.read(str(tmp_path / "curated"))) == both | negatives
    assert stored(teacher_scores.read(write([row]))) == negatives
    assert stored(teacher_scores.read(write([{**row, "negative": "c", "judged": {"negatives": [3]}}]))) == {
        key("a", "c"): 3
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "a", "text": "b"}, "no field 'score'; a line of scores holds 'query', 'text', 'score'"),
        ({"query": "a", "target": "b", "score": 1}, "no field 'text'"),
        ({"query": " ", "text": "b", "score": 1}, "field 'query' is empty"),
        ({"query": "a", "text": ["b"], "score": 1}, "field 'text' is list, expected a text"),
        ({"query": "a", "text": "b", "score": "high"}, "the score is 'high', expected a finite number"),
        ({"query": "a", "text": "b", "score": True}, "the score is 'True', expected a finite number"),
        ({"query": "a", "text": "b", "score": 1e39}, "the score is '1e[+]39', expected a finite number"),
        ({"query": "a", "text": "b", "score": None}, "the score is 'None', expected a finite number"),
        (
            {"query": "b", "text": "\u00e9", "score": 7},
            r"jsonl:4: scores a pair 7 that has the score 1000 at .*jsonl:3 .1 pairs",
        ),
        ({"query": "a", "judged": {}}, "'judged' does not grade each text of 'negative'"),
        ({"query": "a", "judged": 3, "negative": ["b"]}, "take the rows of `embed curate filter` as it writes them"),
        ({"query": "a", "judged": {"negatives": [1, 2]}, "negative": ["b"]}, "'judged' does not grade each text"),
        (
            {"query": "a", "judged": {"negatives": ["x"]}, "negative": ["b"]},
            "the score is 'x', expected a finite number",
        ),
        ({"query": "a", "judged": {"negatives": [], "target": 3}}, "field 'positive' is missing or null"),
    ],
)
def test_a_line_that_is_no_score_is_named(write, row, message):
    with pytest.raises(DataError, match=message) as caught:
        teacher_scores.read(write([*ROWS, row]))
    assert "scores.jsonl:4: " in str(caught.value) and "\n" not in str(caught.value)


def test_the_same_score_may_come_again(write):
    assert len(teacher_scores.read(write([*ROWS, ROWS[0]])).ids) == 3


def test_files_without_scores_are_refused(write, tmp_path):
    with pytest.raises(DataError, match="holds no score; write lines of"):
        teacher_scores.read(write([]))
    with pytest.raises(DataError, match="no such file; correct Recipe.teacher_scores"):
        teacher_scores.read(str(tmp_path / "nothing.jsonl"))


# The feature.


def records():
    """Two pairs of texts named by letters, with their negatives."""
    ids = lambda *texts: [int(target_id(text)) for text in texts]  # noqa: E731
    rows = [("q", "a", "bcd"), ("r", "e", "f")]
    return [
        pair([1], [1], [[1]] * len(n), query_id=int(content_id(q)), target_id=ids(t)[0], negatives_id=ids(*n))
        for q, t, n in rows
    ]


class Cache:
    """Of `records`; the second negative of the first is a positive of its query, which is never drawn."""

    name = "letters"

    def __len__(self):
        return 2

    def read(self, numbers):
        return [records()[i] for i in numbers]

    def lengths(self, name, numbers):
        assert name == "negatives"
        return np.array([[1, 0, 1], [1, 0, 0]])[numbers]


SCORED = [("q", "a", 5.0), ("q", "b", 1.0), ("q", "d", 2.0), ("r", "e", -1.0), ("r", "f", -2.0)]


@pytest.fixture
def feature(write):
    rows = [{"query": q, "text": t, "score": s} for q, t, s in SCORED]
    return lambda without=None: TeacherScores(path=write([r for r in rows if r["text"] != without]))


def test_scores_are_joined_to_the_texts_that_are_drawn(feature):
    scores, n = feature(), np.arange(2)
    columns = {"query": n * 0, "target": n * 0, "negatives": np.array([[2, 0], [0, -1]])}
    unit = Unit(records(), Draws(n * 0, n, n * 0), columns, {})
    joined = scores.collate(unit)["scores"]
    assert joined.dtype == np.float32 and joined.tolist() == [[5, 2, 1], [-1, -2, 0]]
    del columns["negatives"]  # a batch of a task without any
    assert scores.collate(unit)["scores"].tolist() == [[5], [-1]]
    assert scores.shapes(2, {"negatives": (2,)}) == {"scores": ((2, 3), np.float32)}
    assert scores.shapes(2, {}) == {"scores": ((2, 1), np.float32)}
    assert definitions([scores]) == [] and set(scores.identity()) == {"scores"}


def test_a_pair_without_a_score_is_an_error_before_the_run(feature):
    feature().check(Cache())
    for text, pairs in (("d", "1 of 5"), ("e", "1 of 5")):
        with pytest.raises(
            DataError, match=rf"has no score for {pairs} pairs .* of task 'letters'; add a line"
        ) as caught:
            feature(without=text).check(Cache())
        assert "\n" not in str(caught.value)


def test_every_query_of_a_record_is_compared_with_every_target(feature):
    """One of each is drawn, whichever it is."""
    record = records()[0]
    record["query_id"] = np.array([content_id("q"), content_id("r")])

    class One(Cache):
        def __len__(self):
            return 1

        def read(self, numbers):
            return [record for _ in numbers]

    with pytest.raises(DataError, match="has no score for 3 of 6 pairs"):
        feature().check(One())
