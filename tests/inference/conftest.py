"""A tiny model as a bundle: random weights, a vocabulary trained on made-up texts."""

import pathlib

import pytest
from tiny_models import build, made_up_texts, small_dual_encoder, write_model

from embed.data import tokenizers
from embed.models import api
from embed.text import PROMPTS


def write_with(path, vocabulary: bytes, seed: int = 0, overwrite: bool = False) -> pathlib.Path:
    """Returns a new bundle of the tiny model with this vocabulary and weights drawn from `seed`."""
    file = pathlib.Path(path).parent / f"vocabulary-{seed}-{pathlib.Path(path).name}.model"
    file.write_bytes(vocabulary)
    write_model(path, tokenizers.SentencePiece(str(file)), seed, overwrite)
    file.unlink()
    return pathlib.Path(path)


@pytest.fixture(autouse=True)
def built_once(monkeypatch):
    """Models of one description are built once, for time."""
    monkeypatch.setattr(api, "build", build)


@pytest.fixture(scope="session")
def vocabulary() -> bytes:
    return tokenizers.train_sentencepiece([*made_up_texts(600), *PROMPTS.values()], 400)


@pytest.fixture(scope="session")
def other_vocabulary() -> bytes:
    """A vocabulary of the same size that gives other ids."""
    return tokenizers.train_sentencepiece([*made_up_texts(600, seed=9), *PROMPTS.values()], 400)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, vocabulary) -> pathlib.Path:
    """The tiny model's bundle; tests must not change it."""
    return write_with(tmp_path_factory.mktemp("model") / "bundle", vocabulary)


@pytest.fixture(scope="session")
def model(bundle):
    from embed.inference.model import open_model

    return open_model(bundle)


@pytest.fixture(scope="session")
def texts_of():
    return made_up_texts


@pytest.fixture(scope="session")
def write_tiny():
    return write_with


@pytest.fixture(scope="session")
def dual_bundle(tmp_path_factory, vocabulary) -> pathlib.Path:
    """The bundle of a tiny model of texts and images; tests must not change it."""
    folder = tmp_path_factory.mktemp("dual")
    (folder / "vocabulary.model").write_bytes(vocabulary)
    tokenizer = tokenizers.SentencePiece(str(folder / "vocabulary.model"))
    return write_model(folder / "bundle", tokenizer, module=small_dual_encoder)


@pytest.fixture(scope="session")
def dual_model(dual_bundle):
    from embed.inference.model import open_model

    return open_model(dual_bundle)
