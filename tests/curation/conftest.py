"""A language model that answers by rule."""

import pytest
from language_model import Server


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()
