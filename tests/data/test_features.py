"""Features that are no texts, and the values that records give them."""

import dataclasses

import numpy as np
import pytest
from encoded_pairs import encoded

from embed.data import vector_store
from embed.data.draws import Draws
from embed.data.features import Labels, Role, Scores, Unit, Vectors, definitions, parse_value, roles_of, split_ids
from embed.data.text_features import Text
from embed.errors import ConfigError, DataError
from embed.text import content_id


def unit(examples, **columns):
    n = np.arange(len(examples))
    columns = {name: np.array(x) for name, x in columns.items()}
    return Unit(
        examples, Draws(n * 0, n, n * 0), columns, {name: np.zeros(x.shape, np.int32) for name, x in columns.items()}
    )


# Values.


@pytest.mark.parametrize(
    ("value", "kind", "parsed"),
    [
        (" a ", "texts", ["a"]), (["a", b"b "], "texts", ["a", "b"]), (np.array([b"a"], object), "texts", ["a"]),
        (3, "numbers", [3.0]), ("0.5", "numbers", [0.5]), ("[1, 2.5]", "numbers", [1.0, 2.5]), ([True, "4"], "numbers", [1.0, 4.0]),
        (np.float32(2), "numbers", [2.0]), (np.array([1, 2]), "numbers", [1.0, 2.0]),
        ("x", "text", "x"), (3, "text", "3"), (3.0, "text", "3"), (0.5, "text", "0.5"), (True, "text", "1"),
        (b"\xff\x00", "bytes", b"\xff\x00"),
    ],
)  # fmt: skip
def test_a_value_becomes_what_its_kind_says(value, kind, parsed):
    assert parse_value(value, Role("r", kind), "f", "a:1") == parsed


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (None, "texts", "missing or null"), ("  ", "texts", "is empty"), ([], "texts", "is empty"),
        (["a", " "], "texts", "is empty"),
        ([1], "texts", "is int, expected a text"), ("x", "numbers", "holds 'x', expected a finite number"),
        ([1, "nan"], "numbers", "expected a finite number"), (1e39, "numbers", "expected a finite number"),
        ({"a": 1}, "numbers", "expected a finite number"), ("[1, ", "numbers", "JSON"), (["a"], "text", "is list, expected a text"),
        ("text", "bytes", "is str, expected the bytes of a file; for paths of images"), (float("inf"), "text", "expected a text"),
        (None, "numbers", "missing or null"),
        ([b"x", None], "files", "has an empty entry among 2; fill it or remove it"), ([None], "files", "is empty"),
    ],
)  # fmt: skip
def test_what_is_none_is_refused_with_its_place(value, kind, said):
    with pytest.raises(DataError, match="^a:1") as caught:
        parse_value(value, Role("r", kind), "f", "a:1")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_optional_value_may_be_missing():
    empty = {"text": "", "texts": [], "numbers": [], "bytes": b""}
    for kind, value in empty.items():
        for missing in (None, "", " ", []):
            assert parse_value(missing, Role("r", kind, optional=True), "f", "a:1") == value


def test_the_roles_of_features_are_joined():
    @dataclasses.dataclass(frozen=True)
    class Other(Scores):
        role: Role = Role("title", "text")

        @property
        def roles(self):
            return (self.role,)

    titled = Text("target", 5, titled=True)
    assert roles_of([titled, Other("o", role=Role("title", "texts"))])["title"].optional is False
    with pytest.raises(ConfigError, match="two features read 'title', as 'texts' and as 'text'"):
        roles_of([titled, Other("o")])


# Labels and scores.


def test_labels_are_content_ids():
    labels = Labels("kind")
    encoded_rows = labels.encode([{"kind": "cat"}, {"kind": "3"}], None)
    assert (
        labels.collate(unit(encoded_rows))["kind"].tolist() == split_ids([content_id("cat"), content_id("3")]).tolist()
    )


def test_a_score_is_one_number():
    scores = Scores()
    rows = scores.encode([{"score": [0.25], "location": "a:1"}, {"score": [-3], "location": "a:2"}], None)
    found = scores.collate(unit(rows))["score"]
    assert (found.tolist(), found.dtype) == ([0.25, -3.0], np.float32)
    with pytest.raises(DataError, match="a:1: score holds 2 numbers, expected one"):
        scores.encode([{"score": [1, 2], "location": "a:1"}], None)


@pytest.mark.parametrize("role", ["query", "target"])
def test_a_score_of_several_texts_is_refused(role):
    record = {"query": "q", "target": "t", "score": [1.0], "location": "a:1", role: ["a", "b"]}
    with pytest.raises(
        DataError, match=f"a:1: score belongs to one {role}, and the record has 2; make a record of each"
    ):
        Scores().encode([record], None)


def test_the_scores_of_a_list_follow_the_texts_that_are_drawn():
    scores = Scores("scores", each="negatives")
    records = [
        {"scores": [9.0, 1.0, 2.0, 3.0], "negatives": ["a", "b", "c"], "location": "a:1"},
        {"scores": [4.0, 5.0], "negatives": ["a", "b"], "location": "a:2"},  # margins
        {"scores": [6.0], "negatives": ["a"], "location": "a:3"},  # a margin
        {"scores": [7.0], "negatives": [], "location": "a:4"},  # the target's alone
    ]
    rows = scores.encode(records, None)
    columns = [[0, 2], [1, -1], [0, -1], [-1, -1]]
    found = scores.collate(unit(rows, negatives=columns))["scores"]
    assert found.tolist() == [[9, 1, 3], [0, -5, 0], [0, -6, 0], [7, 0, 0]]
    assert scores.collate(unit(rows))["scores"].tolist() == [[9], [0], [0], [7]]  # a batch without negatives
    assert scores.shapes(4, {"negatives": (2,)}) == {"scores": ((4, 3), np.float32)}
    assert scores.shapes(4, {}) == {"scores": ((4, 1), np.float32)}
    with pytest.raises(DataError, match="a:5: scores holds 3 numbers for 1 negatives; expected 1 margins, or 2 scores"):
        scores.encode([{"scores": [1.0, 2.0, 3.0], "negatives": ["a"], "location": "a:5"}], None)


def test_a_record_without_texts_to_compare_may_lack_the_scores():
    scores = Scores("scores", each="negatives")
    assert scores.roles == (Role("scores", "numbers", optional=True),) and not Scores().roles[0].optional
    records = [
        {"scores": [], "negatives": [], "location": "a:1"},
        {"target": ["b", "c"], "location": "a:2"},  # several targets, which no score belongs to
    ]
    assert scores.collate(unit(scores.encode(records, None), negatives=[[-1], [-1]]))["scores"].tolist() == [[0, 0]] * 2
    with pytest.raises(DataError, match="a:3: scores holds 0 numbers for 2 negatives; expected 2 margins, or 3 scores"):
        scores.encode([{"scores": [], "negatives": ["a", "b"], "location": "a:3"}], None)


# Vectors.


@pytest.fixture
def store(tmp_path):
    ids = np.array([5, -7, 9, 2**62])
    return vector_store.write(tmp_path / "vectors", ids, np.arange(12.0).reshape(4, 3))


def test_vectors_are_joined_by_the_ids_of_the_drawn_texts(store):
    one, several = (
        Vectors("teacher", "query", str(store.folder), 3),
        Vectors("others", "negatives", str(store.folder)),  # of whatever size they are
    )
    rows = [
        {**encoded("query", [[1]], [9]), **encoded("negatives", [[1], [1]], [5, -7])},
        {**encoded("query", [[1]], [2**62]), **encoded("negatives", [], [])},
    ]
    made = unit(rows, query=[0, 0], negatives=[[0, 1], [-1, -1]])
    assert one.collate(made)["teacher"].tolist() == [[6, 7, 8], [9, 10, 11]]
    assert several.collate(made)["others"].tolist() == [[[0, 1, 2], [3, 4, 5]], [[0, 0, 0], [0, 0, 0]]]
    assert one.shapes(2, {"query": ()})["teacher"][0] == (2, 3)
    assert several.shapes(2, {"negatives": (2,)})["others"][0] == (2, 2, 3)
    assert one.identity() == {"vectors": store.digest} and definitions([one]) == []


def test_a_missing_vector_is_an_error_before_the_run(store):
    class Cache:
        def __len__(self):
            return 3

        def read(self, indices):
            return [encoded("query", [[1]], [(5, 6, 6)[i]]) for i in indices]

    with pytest.raises(DataError, match="has no vector for 1 of 2 different items of 'query'; write theirs too"):
        Vectors("teacher", "query", str(store.folder), 3).check(Cache())


def test_vectors_of_another_size_are_refused(store):
    with pytest.raises(DataError, match="holds vectors of 3 values, and Vectors.dim = 4; give that size"):
        Vectors("teacher", "query", str(store.folder), 4).identity()


def test_vectors_of_a_given_size_have_shapes_before_their_folder_is_there(tmp_path):
    vectors = Vectors("teacher_query", "query", str(tmp_path / "none"), dim=7)
    assert vectors.shapes(3, {"query": ()}) == {"teacher_query": ((3, 7), np.float32)}
    with pytest.raises(DataError, match="no folder of vectors"):
        Vectors("teacher_query", "query", str(tmp_path / "none")).shapes(3, {"query": ()})
