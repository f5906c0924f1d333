"""Indices of made-up vectors, without a model."""

import made_index
import pytest


@pytest.fixture
def make_index(tmp_path):
    """make_index(vectors, ..., name=, fields=) -> `made_index.make` in a folder of the test."""
    return lambda *parts, name="index", **options: made_index.make(tmp_path / name, *parts, **options)


@pytest.fixture
def vectors():
    return made_index.unit


@pytest.fixture
def new_segment():
    return made_index.write_segment
