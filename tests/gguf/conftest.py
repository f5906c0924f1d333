"""Bundles of every tiny model, each written once."""

import pathlib

import gguf_models
import pytest
import tiny_models

from embed.models import api


@pytest.fixture(autouse=True, scope="module")
def built_once():
    """Every model of one description is built once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "build", tiny_models.build)
        yield


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """bundle(name) -> the folder of one of gguf_models.MODELS, not to be changed."""
    folders: dict[str, pathlib.Path] = {}

    def write(name: str) -> pathlib.Path:
        if name not in folders:
            folders[name] = gguf_models.write(tmp_path_factory.mktemp("bundle"), name)
        return folders[name]

    return write


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory):
    """vocabulary(kind) -> a tokenizer of one of gguf_models.VOCABULARIES, not to be changed."""
    opened = {}

    def open_one(kind: str):
        if kind not in opened:
            opened[kind] = gguf_models.VOCABULARIES[kind](tmp_path_factory.mktemp("vocabulary") / "tokenizer.file")
        return opened[kind]

    return open_one
