"""The Python API, given what people give by mistake: one line that names the position and the type, never other vectors."""

import dataclasses
import threading

import numpy as np
import pytest

import embed
from embed.errors import DataError, EmbedError, NumericError, UsageError
from embed.inference.model import _check_length
from embed.types import Item

TEXTS = ["bada kolo", "mira", "tode fuli gapo", "semo"]


class Series:
    """Like a column of pandas: one dimension, its own index, iterated by value."""

    ndim = 1

    def __init__(self, values):
        self._values = values

    def __iter__(self):
        return iter(self._values)

    def __getitem__(self, key):
        raise KeyError(key)


class Frame(Series):
    """Like a table of pandas, which iterates over the names of its columns."""

    ndim = 2


@pytest.mark.parametrize(
    "given",
    [tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, object), Series(TEXTS), iter(TEXTS), dict.fromkeys(TEXTS).keys()],
    ids=["tuple", "array", "objects", "series", "generator", "keys"],
)
def test_every_kind_of_list_gives_the_same_vectors(model, given):
    np.testing.assert_array_equal(model.encode(given), model.encode(TEXTS))


def test_pandas_columns_are_lists(model):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": TEXTS, "n": range(4)}, index=[3, 1, 2, 0])
    np.testing.assert_array_equal(model.encode(frame["text"]), model.encode(TEXTS))
    with pytest.raises(UsageError, match="items has 2 dimensions"):
        model.encode(frame)
    frame.loc[2, "text"] = None
    with pytest.raises(DataError, match="text 2 of 4 is (NoneType|float), expected a text"):
        model.encode(frame["text"])


@pytest.mark.parametrize(
    "item, kind",
    [
        (None, "NoneType"),
        (float("nan"), "float"),
        (3, "int"),
        (b"abc", "bytes"),
        (["b"], "list"),
        (("a", "b"), "tuple"),
        (np.float32(1), "float32"),
    ],
)
def test_an_item_that_is_no_text_is_named_by_position_and_type(model, item, kind):
    with pytest.raises(DataError, match=rf"text 1 of 2 is {kind}, expected a text"):
        model.encode(["a", item])
    if item is not None:  # None is no title
        with pytest.raises(DataError, match=rf"title 1 of 2 is {kind}, expected a text"):
            model.encode(["a", {"text": "b", "title": item}])


@pytest.mark.parametrize(
    "texts, message",
    [
        (None, "items is NoneType"),
        (3, "items is int"),
        (b"abc", "items is bytes"),
        ({"a", "b"}, "items is set"),
        (np.array("a"), "items has 0 dimensions"),
        (np.array([["a", "b"]]), "items has 2 dimensions"),
        (Frame(["text", "title"]), "items has 2 dimensions"),
    ],
    ids=["nothing", "number", "bytes", "set", "array of no dimension", "array of two", "frame"],
)
def test_what_is_no_list_of_items_is_refused(model, texts, message):
    with pytest.raises(UsageError, match=message):
        model.encode(texts)


def test_a_lone_surrogate_is_named(model):
    with pytest.raises(DataError, match="text 1 of 2 holds a lone surrogate"):
        model.encode(["a", "b\ud800c"])
    with pytest.raises(DataError, match="title 0 of 1 holds a lone surrogate"):
        model.encode([Item("a", "b\udfffc")])


def test_an_item_may_be_a_text_a_dict_or_an_item(model):
    expected = model.encode([Item("bada", "mira"), Item("kolo")], prompt="document")
    forms = [
        [{"text": "bada", "title": "mira"}, "kolo"],
        [{"text": "bada", "title": "mira", "images": []}, {"text": "kolo", "title": None, "image": None}],
        [Item("bada", "mira"), {"text": "kolo", "title": ""}],
    ]
    for form in forms:
        np.testing.assert_array_equal(model.encode(form, prompt="document"), expected)
    for one in ({"text": "bada", "title": "mira"}, Item("bada", "mira")):
        np.testing.assert_allclose(model.encode(one, prompt="document"), expected[:1], atol=1e-6)
    assert np.abs(expected[0] - model.encode("bada", prompt="document")[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"txt": "a"}, "item 1 of 2: no part of an item is called 'txt'; did you mean 'text'"),
        ({"title": "a"}, "item 1 of 2 has neither text nor image"),
        (Item(), "item 1 of 2 has neither text nor image"),
        ({"image": "cat.jpg"}, "item 1 of 2 has an image, and the model embeds texts only"),
        (Item("a", images=("cat.jpg",)), "item 1 of 2 has an image, and the model embeds texts only"),
    ],
)
def test_an_item_that_cannot_be_embedded_is_refused(model, item, message):
    with pytest.raises(DataError, match=message):
        model.encode(["a", item])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dims": True}, "dims = True is bool, expected an integer"),
        ({"dims": 8.0}, "dims = 8.0 is float"),
        ({"dims": "8"}, "dims = '8' is str"),
        ({"prompt": None}, "prompt = None is NoneType, expected a text"),
        ({"prompt": 3}, "prompt = 3 is int"),
        ({"prompt": ["query"]}, "prompt = .* is list"),
        ({"allow_empty": 1}, "allow_empty = 1 is int, expected True or False"),
    ],
)
def test_options_of_another_type_are_refused(model, options, message):
    with pytest.raises(UsageError, match=message):
        model.encode(["a"], **options)


def test_numpy_integers_are_sizes(model):
    np.testing.assert_array_equal(model.encode(["bada"], dims=np.int32(4)), model.encode(["bada"], dims=4))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_len": 3}, "load has no option 'max_len'; did you mean 'max_length'"),
        ({"max_length": 0}, "max_length = 0: at least 1"),
        ({"max_length": 10**30}, "at most 16,777,216 tokens"),
        ({"max_length": True}, "max_length = True is bool"),
        ({"max_length": 12.0}, "max_length = 12.0 is float"),
        ({"dtype": 32}, "dtype = 32 is int"),
        ({"dtype": "float23"}, "float23"),
        ({"weights": None}, "weights = None is NoneType"),
        ({"weights": "int5"}, "int5.*did you mean"),
        ({"random": "yes"}, "random = 'yes' is str"),
        ({"overflow": 3}, "cannot be called"),
        ({"devices": []}, "devices = .*: give at least one"),
    ],
)
def test_options_of_load_are_checked_in_one_line(bundle, options, message):
    with pytest.raises(EmbedError, match=message) as caught:
        embed.load(bundle, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", [None, 3, "", "a\0b", b"abc", ["a"]])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(UsageError, match="path = "):
        embed.load(path)


def test_a_length_beyond_learned_positions_is_refused():
    bert = {"type": "Bert", "max_positions": 514, "position_offset": 2}
    with pytest.raises(UsageError, match="max_length = 513: this model has positions for 512 tokens"):
        _check_length(513, bert)
    for length, encoder in ((512, bert), (None, bert), (100_000, {"type": "Gemma"})):
        _check_length(length, encoder)


def test_empty_texts_are_their_prompt_alone_where_they_are_allowed(model):
    found = model.encode(["bada", Item(" \n", "mira")], prompt="document", allow_empty=True)
    np.testing.assert_allclose(found[:1], model.encode(["bada"], prompt="document"), atol=2e-6)
    as_text = model.encode(["title: mira | text:"], prompt="none")
    np.testing.assert_allclose(found[1:], as_text, atol=2e-6)
    with pytest.raises(DataError, match="text 1 of 2 is empty"):
        model.encode(["bada", " \n"])
    nothing = dataclasses.replace(model.encoder.tokenizer, add_bos=False, add_eos=False)
    encoder = dataclasses.replace(model.encoder, tokenizer=nothing)
    with pytest.raises(DataError, match="text 1 of 2 gives no token"):
        encoder(model.params, ["bada", ""], prompt="none", allow_empty=True)


def test_vectors_that_are_not_finite_are_refused(model):
    import jax

    broken = jax.tree.map(lambda x: x * np.float32(np.nan), model.params)
    with pytest.raises(NumericError, match="the vector of text 0 of 2 is not finite"):
        model.encoder(broken, ["bada", "kolo"], prompt="query")


def test_several_threads_get_the_vectors_of_their_own_texts(model, texts_of):
    texts = texts_of(24, seed=8)
    wanted, wrong = model.encode(texts), []

    def work(shift: int) -> None:
        try:
            for _ in range(3):
                found = model.encode(texts[shift:] + texts[:shift])
                if np.abs(found - np.roll(wanted, -shift, 0)).max() > 2e-6:
                    wrong.append(shift)
        except BaseException as e:
            wrong.append(e)

    threads = [threading.Thread(target=work, args=(4 * i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not wrong and not any(thread.is_alive() for thread in threads)
