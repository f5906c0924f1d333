"""A language model that answers by rule."""

import os

import pytest
from language_model import Server


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Nothing is killed in this process, so that no ledger needs to be on the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()
