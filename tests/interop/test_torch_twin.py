"""The exported folder in torch: what is missing is named, third parties are quiet, and what stops a folder is one line.

Stand-ins for torch's libraries are enough here; tests/parity runs the libraries themselves.
"""

import importlib.util
import logging
import os
import sys
import types
import warnings

import numpy as np
import pytest

from embed.errors import DataError, UsageError
from embed.interop import torch_twin


def test_packages_that_are_missing_are_all_named(monkeypatch):
    torch_twin.need("numpy", "json")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name != "numpy" else object())
    with pytest.raises(UsageError, match=r"^this needs torch, onnx; run: pip install 'embed\[export\]'$"):
        torch_twin.need("torch", "numpy", "onnx")


@pytest.fixture
def environment(monkeypatch):
    """What the environment says of the network and of tokenizers, put back as it was after the test."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")


def test_third_parties_are_quiet_and_offline_for_a_while(environment):
    logger = logging.getLogger("sentence_transformers")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        with torch_twin.quiet():
            warnings.warn("nobody reads this", stacklevel=1)
            assert not logger.isEnabledFor(logging.WARNING) and logger.isEnabledFor(logging.ERROR)
            assert (os.environ["HF_HUB_OFFLINE"], os.environ["TOKENIZERS_PARALLELISM"]) == ("1", "true")
        assert logger.level == logging.INFO
        with pytest.raises(KeyError), torch_twin.quiet():
            raise KeyError
        assert logger.level == logging.INFO  # after an error too
    finally:
        logger.setLevel(before)
    with pytest.warns(UserWarning, match="heard again"):
        warnings.warn("heard again", stacklevel=1)


@pytest.fixture
def libraries(monkeypatch, environment):
    """Stand-ins for the two libraries; returns the calls they get."""
    calls = []
    shown = types.SimpleNamespace(
        set_verbosity_error=lambda: calls.append("errors alone"),
        disable_progress_bar=lambda: calls.append("no progress bar"),
    )

    def open_model(folder, **options):
        calls.append((folder, options))
        if folder == "broken":
            raise RuntimeError("size mismatch\nfor many tensors")
        return "the model"

    transformers = types.SimpleNamespace(utils=types.SimpleNamespace(logging=shown))
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    monkeypatch.setitem(sys.modules, "sentence_transformers", types.SimpleNamespace(SentenceTransformer=open_model))
    monkeypatch.setattr(torch_twin, "need", lambda *names: calls.append(names))
    return calls


def test_a_folder_is_opened_on_the_cpu_and_its_code_is_not_run(libraries, tmp_path):
    assert torch_twin.load(tmp_path) == "the model"
    assert libraries == [
        ("torch", "sentence_transformers"),
        "errors alone",
        "no progress bar",
        (str(tmp_path), {"device": "cpu", "trust_remote_code": False}),
    ]


def test_a_folder_that_cannot_be_loaded_is_one_line(libraries):
    with pytest.raises(DataError, match=r"^broken: sentence-transformers cannot load it \(size mismatch\)$"):
        torch_twin.load("broken")


def test_the_cards_function_is_opened_and_gives_float32(libraries):
    def open_folder(folder):
        warnings.warn("of loading", stacklevel=1)

        def embed(texts, prompt_name):
            warnings.warn("of encoding", stacklevel=1)
            return [[len(folder), len(text), len(prompt_name)] for text in texts]

        return embed

    found = torch_twin.opened(open_folder, "here")(["a", "bcd"], "query")
    assert found.dtype == np.float32 and found.tolist() == [[4, 1, 5], [4, 3, 5]]
    assert libraries == [("torch", "sentence_transformers")]


def test_a_function_that_cannot_open_the_folder_is_one_line(libraries):
    def open_folder(folder):
        raise OSError("no tokenizer\nanywhere")

    with pytest.raises(DataError, match=r"^here: sentence-transformers cannot load it \(no tokenizer\)$"):
        torch_twin.opened(open_folder, "here")
