"""Texts embedded at an endpoint: in order, at unit length, of one size, and what the server does not take."""

import pathlib

import numpy as np
import pytest
from embedding_faults import DIM, WRONG, EmbeddingServer, expected, items, listed
from fault_server import failing

from embed.curation.asking import Asker
from embed.curation.embedding import TextEmbedder
from embed.curation.endpoint import Endpoint
from embed.curation.ledger import Ledger
from embed.curation.sending import Budget, Spent
from embed.errors import EndpointError

KEY = "sk-abcdefgh"
TEXTS = [f"text number {i}" for i in range(23)]
PLACES = [f"a:{i + 1}" for i in range(23)]


@pytest.fixture(scope="module")
def server():
    server = EmbeddingServer()
    yield server
    server.close()


@pytest.fixture
def embedder(server, tmp_path):
    """embedder(script, budget) -> a new embedder of 4 texts a request, against that script of faults."""
    ledgers = []

    def make(script=(), budget=None, begin=True, dimensions=None, **options):
        if begin:
            server.begin(script, KEY)
        given = {"attempts": 3, "first_wait": 1e-4, "deadline": 20.0, **options}
        endpoint = Endpoint(server.url, "tiny", KEY, structured=False, **given)
        ledgers.append(Ledger(pathlib.Path(tmp_path) / "replies.jsonl"))
        return TextEmbedder(Asker(endpoint, ledgers[-1], budget or Budget(), b"", 3), 4, dimensions)

    make.ledgers = ledgers
    yield make
    for ledger in ledgers:
        ledger.close()


def test_vectors_come_in_the_order_of_the_texts_at_unit_length(embedder, server):
    done = []
    vectors = embedder(["ok", "shuffled", "no usage", "503", "without index"])(TEXTS, PLACES, done.append)
    np.testing.assert_array_equal(vectors, expected(TEXTS))
    assert done == [4] * 5 + [3] and server.received == 7


def test_what_was_answered_is_not_asked_again(embedder, server):
    with pytest.raises(Spent, match="4 requests"):
        embedder(budget=Budget(requests=4))(TEXTS, PLACES)
    embedder.ledgers[-1].close()
    vectors = embedder(begin=False, budget=Budget(requests=6))(TEXTS, PLACES)
    np.testing.assert_array_equal(vectors, expected(TEXTS))
    keys = [key for key, _ in server.log]
    assert server.received == 6 == len(set(keys))


@pytest.mark.parametrize("fault", WRONG)
def test_a_reply_that_is_not_one_vector_for_each_text_is_asked_for_again(embedder, server, fault):
    np.testing.assert_array_equal(embedder(["ok", fault])(TEXTS[:8], PLACES), expected(TEXTS[:8]))
    assert server.received == 3 and embedder.ledgers[-1].failures == 1


def test_every_vector_has_the_size_of_the_first(embedder, server):
    """Of one request alone at the beginning, whose answer says what the others must be."""
    server.faults = {**server.faults, "large": lambda s, b: failing(listed(items({**b, "dimensions": DIM + 1})))}
    try:
        with pytest.raises(
            EndpointError, match="no reply in 3 tries .vectors of 6 values, and those of other texts have 5"
        ):
            embedder(["ok", *["large"] * 9])(TEXTS[:8], PLACES)
        assert server.received == 4
    finally:
        del server.faults


def test_a_size_that_is_asked_for_must_come(embedder, server):
    assert embedder(dimensions=3)(TEXTS[:5], PLACES).shape == (5, 3)
    embedder.ledgers[-1].close()
    server.faults = {**server.faults, "ok": lambda s, b: EmbeddingServer.faults["ok"](s, {**b, "dimensions": DIM})}
    try:
        with pytest.raises(EndpointError, match="vectors of 5 values, and asked for were 4"):
            embedder(dimensions=4)(TEXTS[:5], PLACES)
    finally:
        del server.faults


def test_texts_that_the_server_does_not_take_are_named(embedder, server):
    with pytest.raises(EndpointError) as caught:
        embedder(["ok", "400"])(TEXTS[:8], PLACES)
    message = str(caught.value)
    assert "refuses the request, status 400: " in message and KEY not in message
    assert message.endswith(
        "the request holds 4 texts, from a:5 to a:8: shorten them, or give another --batch_size in another --output"
    )


def test_replies_of_another_size_in_the_file_of_replies_are_refused(embedder):
    embedder(dimensions=None)(TEXTS[4:8], PLACES)  # kept with 5 values
    embedder.ledgers[-1].close()
    again = embedder(begin=False)
    again._dim = 6
    with pytest.raises(
        EndpointError, match="gave vectors of 6 values, and others of 5; begin again in another --output"
    ):
        again(TEXTS[4:8], PLACES)
