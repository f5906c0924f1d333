"""What users give to be embedded, given rightly and by mistake: items, or one line that names the position and the type."""

import numpy as np
import pytest

from embed.errors import DataError, UsageError
from embed.inference.items import check_filled, check_texts, items_of
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
    [
        TEXTS,
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, object),
        Series(TEXTS),
        iter(TEXTS),
        dict.fromkeys(TEXTS).keys(),
    ],
    ids=["list", "tuple", "array", "objects", "series", "generator", "keys"],
)
def test_every_kind_of_list_gives_the_same_items(given):
    found = items_of(given)
    assert found == [Item(text) for text in TEXTS]
    assert all(type(item.text) is str for item in found)  # not numpy.str_


def test_one_item_alone_is_a_list_of_one_and_nothing_is_an_empty_list():
    for one in ("bada", {"text": "bada"}, Item("bada")):
        assert items_of(one) == [Item("bada")]
    assert items_of([]) == []
    for one in ({"text": np.str_("bada"), "title": np.str_("kolo")}, Item(np.str_("bada"), np.str_("kolo"))):
        (found,) = items_of(one)
        assert found == Item("bada", "kolo") and type(found.text) is type(found.title) is str


def test_pandas_columns_are_lists():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": TEXTS, "n": range(4)}, index=[3, 1, 2, 0])
    assert items_of(frame["text"]) == items_of(TEXTS)
    with pytest.raises(UsageError, match="items has 2 dimensions"):
        items_of(frame)
    frame.loc[2, "text"] = None
    with pytest.raises(DataError, match="text 2 of 4 is (NoneType|float), expected a text"):
        items_of(frame["text"])


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
def test_an_item_that_is_no_text_is_named_by_position_and_type(item, kind):
    with pytest.raises(DataError, match=rf"^text 1 of 2 is {kind}, expected a text or an item; remove or convert it$"):
        items_of(["a", item])
    for name in ("text", "title"):
        if item is not None:  # None is no title, and no text
            with pytest.raises(DataError, match=rf"^{name} 1 of 2 is {kind}, expected a text; remove or convert it$"):
                items_of(["a", {"text": "b", name: item}])


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
def test_what_is_no_list_of_items_is_refused(texts, message):
    with pytest.raises(UsageError, match=f"^{message}, expected a list of texts or items"):
        items_of(texts)


def test_a_lone_surrogate_is_named():
    with pytest.raises(DataError, match="text 1 of 2 holds a lone surrogate, which no UTF-8 text can; remove it"):
        items_of(["a", "b\ud800c"])
    with pytest.raises(DataError, match="title 0 of 1 holds a lone surrogate"):
        items_of([Item("a", "b\udfffc")])


def test_an_item_may_be_a_text_a_dict_or_an_item():
    expected = [Item("bada", "mira"), Item("kolo")]
    for form in (
        [{"text": "bada", "title": "mira"}, "kolo"],
        [{"text": "bada", "title": "mira", "images": []}, {"text": "kolo", "title": None, "image": None}],
        [Item("bada", "mira"), Item("kolo")],
    ):
        assert items_of(form) == expected


def test_images_come_from_both_keys_in_order():
    assert items_of({"image": "d", "images": ["a", "b"]}) == [Item(images=("a", "b", "d"))]
    assert items_of([{"text": "x", "image": "d"}, Item(images=["a"])]) == [
        Item("x", images=("d",)),
        Item(images=("a",)),
    ]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"txt": "a"}, "item 1 of 2: no part of an item is called 'txt'; did you mean 'text'"),
        ({3: "a"}, "item 1 of 2: no part of an item is called 3"),
        ({"title": "a"}, "item 1 of 2 has neither text nor image"),
        (Item(), "item 1 of 2 has neither text nor image"),
    ],
)
def test_an_item_that_cannot_be_embedded_is_refused(item, message):
    with pytest.raises(DataError, match=message):
        items_of(["a", item])


def test_a_model_of_texts_names_the_first_item_with_an_image():
    check_texts([Item("a"), Item("", "title")])
    for bad in (Item("a", images=("cat.jpg",)), Item(images=("cat.jpg",))):
        with pytest.raises(DataError, match="^item 1 of 3 has an image, and the model embeds texts only; remove it$"):
            check_texts([Item("a"), bad, bad])


def test_an_empty_text_is_named_and_an_item_without_one_is_not():
    check_filled([Item("a"), Item(images=("cat.jpg",))])
    for empty in ("", " \n", "\u00a0"):
        with pytest.raises(DataError, match="^text 1 of 2 is empty; remove it or fill it$"):
            check_filled([Item("a"), Item(empty, "title")])
