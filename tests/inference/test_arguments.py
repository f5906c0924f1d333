"""The Python API, given what people give by mistake: one line that names the position and the type, never other vectors."""

import dataclasses
import threading

import numpy as np
import pytest

import embed
from embed.errors import DataError, EmbedError, NumericError, UsageError
from embed.inference.model import _check_length
from embed.types import Item


@pytest.mark.slow
def test_encode_takes_every_form_of_item(model):
    expected = model.encode([Item("bada", "mira"), Item("kolo")], prompt="document")
    for form in (iter([{"text": "bada", "title": "mira"}, "kolo"]), np.array([Item("bada", "mira"), "kolo"], object)):
        np.testing.assert_array_equal(model.encode(form, prompt="document"), expected)
    one = model.encode({"text": "bada", "title": "mira"}, prompt="document")
    np.testing.assert_allclose(one, expected[:1], atol=1e-6)
    assert np.abs(expected[0] - model.encode("bada", prompt="document")[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["a", 3], "text 1 of 2 is int"),
        ({"a", "b"}, "items is set"),
        (["a", {"image": "cat.jpg"}], "item 1 of 2 has an image, and the model embeds texts only"),
        (["a", " \n"], "text 1 of 2 is empty"),
    ],
)
def test_encode_checks_its_items(model, items, message):
    with pytest.raises(EmbedError, match=message):
        model.encode(items)


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
        ({"weights": "int5"}, "weights 'int5'; known: bfloat16, float32, int4_blocks"),
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
    nothing = dataclasses.replace(model.encoder.texts.tokenizer, add_bos=False, add_eos=False)
    encoder = dataclasses.replace(model.encoder.texts, tokenizer=nothing)
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
