"""A tiny model as a bundle: random weights, a vocabulary trained on made-up texts."""

import functools
import pathlib
import random

import jax
import pytest

from embed import bundles, checkpoints
from embed.data import tokenizers
from embed.models import api
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.pooling import MeanPooling
from embed.text import PROMPTS

MAX_LENGTH = 48


def made_up_texts(count: int, seed: int = 0, longest: int = 12) -> list[str]:
    """Returns texts of 1 to `longest` made-up words."""
    draw = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(400)]
    return [" ".join(draw.choices(words, k=draw.randint(1, longest))) for _ in range(count)]


def small_module() -> Embedder:
    encoder = Gemma(
        vocab_size=400,
        width=16,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        mlp_dim=32,
        window=16,
        global_every=2,
    )
    return Embedder(encoder, MeanPooling(), projection=(24, 16), matryoshka_dims=(8, 4))


@functools.cache
def small_model():
    """Returns the tiny model and its compiled `init`."""
    model = api.build(small_module())
    return model, jax.jit(model.init)


def write_model(path, vocabulary: bytes, seed: int = 0, overwrite: bool = False) -> pathlib.Path:
    """Returns a new bundle of the tiny model with weights drawn from `seed`."""
    file = pathlib.Path(path).parent / f"vocabulary-{seed}-{pathlib.Path(path).name}.model"
    file.write_bytes(vocabulary)
    tokenizer = tokenizers.SentencePiece(str(file))
    model, init = small_model()
    description = bundles.model_json(
        model.description,
        tokenizer_options=tokenizer.options(),
        tokenizer_digest=tokenizer.digest,
        prompts=dict(PROMPTS),
        matryoshka_dims=model.matryoshka_dims,
        lengths={"query": 16, "target": MAX_LENGTH},
        lineage={"seed": seed},
    )
    contents = bundles.contents(description, tokenizer.filename, vocabulary)
    checkpoints.write_bundle(path, init(jax.random.key(100 + seed)), contents, overwrite=overwrite)
    file.unlink()
    return pathlib.Path(path)


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
    return write_model(tmp_path_factory.mktemp("model") / "bundle", vocabulary)


@pytest.fixture(scope="session")
def model(bundle):
    from embed.inference.model import open_model

    return open_model(bundle)


@pytest.fixture(scope="session")
def texts_of():
    return made_up_texts


@pytest.fixture(scope="session")
def write_tiny():
    return write_model
