"""The code of a model card is the code that `embed verify` runs; it needs nothing of this package."""

import ast
import inspect
import json
import re

import numpy as np
import pytest
import tokenizers

from embed.interop import readers, tokenizer_json
from embed.text import prompted

FUNCTIONS = [
    readers.prompted,
    readers.prompted_as_it_is,
    readers.open_sentence_transformers,
    readers.open_onnx,
    readers.open_stablehlo,
    readers.open_stablehlo_sentencepiece,
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_a_reader_stands_alone(function):
    """Every name that it uses is its own, imported inside, or built in; nothing of this package is among them."""
    tree = ast.parse(readers.source(function))
    assert "embed." not in re.sub(r"^\s*(\"\"\").*?\1", "", readers.source(function), flags=re.S | re.M)
    code = compile(tree, "card", "exec")
    names: dict = {}
    exec(code, names)
    assert callable(names[function.__name__])
    # --jaxtyping-packages wraps the functions in one that uses jaxtyping.
    assert set(inspect.getclosurevars(inspect.unwrap(function)).globals) <= {"jaxtyping"}


TEXTS = ["plain", "  blanks \n", "Cafe\u0301", "a {content} and a {title}", "\u00a0no-break\u2003", ""]
PROMPTS = ["", "query: ", "title: {title} | text: {content}", "before {content} behind"]


@pytest.mark.parametrize("name", ["NFC, strip", "none"])
def test_prompted_texts_are_those_of_the_model(name):
    for prompt in PROMPTS:
        template = prompt if "{content}" in prompt else prompt + "{content}"
        for text in TEXTS:
            assert readers.PROMPTED[name](prompt, text) == prompted(template, text, normalization=name)


def test_a_tokenizer_is_written_cut_and_not_padded():
    """What the folder it came from kept (Fixed padding, another cut, from the left) is not handed on."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "[UNK]": 1, "caf\u00e9": 2}, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(128, direction="left", stride=3)
    for name, ids in (("NFC, strip", [2]), ("none", [1])):
        made = tokenizer_json.for_readers(tokenizer.to_str().encode(), 7, "right", name)
        read = tokenizers.Tokenizer.from_str(json.dumps(made))
        assert read.padding is None
        assert read.truncation == {"max_length": 7, "stride": 0, "strategy": "longest_first", "direction": "right"}
        assert read.encode("cafe\u0301").ids[: len(ids)] == ids and len(read.encode("a " * 20).ids) == 7
    assert np.all(np.array(tokenizer.encode("a").ids) >= 0)  # the one that was read is as it was
